"""`pigeonhole lines ...`."""

import click

from orchestrator.cli.lazy import LazyCommand, LazyGroup

COMMANDS = {
    "list": LazyCommand("lines.show:list_lines", "List the lines, with their state and what waits."),
    "create": LazyCommand("lines.create:create_line", "Create a line: a model, a deadline, and a bin for each label."),
    "show": LazyCommand("lines.show:show_line", "Show the state, settings, bins and workers of a line."),
    "set": LazyCommand("lines.create:set_line", "Change the settings of a line while it runs."),
    "stats": LazyCommand("lines.stats:show_stats", "Show what became of pushes: reasons, causes of misses, times."),
    "answer": LazyCommand("lines.answers:look_up_answer", "Look up the answer of an item."),
    "tail": LazyCommand("lines.answers:tail", "Follow the answers of a line as they come."),
    "pause": LazyCommand("lines.change:pause_line", "Let a line refuse pushes until it is resumed."),
    "resume": LazyCommand("lines.change:resume_line", "End the pause of a line."),
    "remove": LazyCommand("lines.change:remove_line", "Remove a line with its answers and kept images."),
    "bins": LazyCommand("lines.change:change_bins", "Show the bins of a line; mark one as full or disabled."),
    "simulate": LazyCommand(
        "lines.simulate:simulate_line", "Push images to a line as a belt would, and report the answers."
    ),
}


@click.group(cls=LazyGroup, table=COMMANDS)
def lines() -> None:
    """Lines: named streams of pushed images, each answered with a bin before its deadline."""
