"""The `pigeonhole` command. Only click is imported until a command runs, so that help is instant."""

import importlib
from typing import Any

import click
from click.shell_completion import CompletionItem

# Command -> (module in this package, its one line in the list of commands), in the order of the list.
COMMANDS = {
    "demo": ("demo", "A whole run in about a minute: no GPU, server or data needed."),
    "train": ("train", "Train a classifier on a folder per class, or on MNIST idx files."),
    "classify": ("classify", "Classify the images of a folder, glob or list into a manifest."),
    "jobs": ("jobs", "List jobs, newest first."),
    "status": ("jobs", "Show how far a job is."),
    "watch": ("jobs", "Follow a job until it ends."),
    "wait": ("jobs", "Wait in silence until jobs end."),
    "cancel": ("jobs", "End a job early."),
    "results": ("results", "Show, check and filter manifests."),
    "models": ("models", "List and show published models."),
    "worker": ("worker", "Start a worker on one device of this machine."),
    "workers": ("worker", "List the workers that are alive."),
    "up": ("stack", "Start the local stack: a server and a worker a device."),
    "down": ("stack", "Stop the local stack."),
    "doctor": ("doctor", "Say what works, what does not, and what mends it."),
    "completion": ("completion", "Print the shell's completion script."),
}


class LazyGroup(click.Group):
    """A group that imports a command's module when that command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of COMMANDS."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"orchestrator.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the nearest name where there is none such."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(name, COMMANDS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(COMMANDS)}"
            ctx.fail(f"there is no command {name!r}; {hint}")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands from the table alone: a TAB must be instant."""
        names = [name for name in COMMANDS if name.startswith(incomplete)]
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [CompletionItem(name, help=COMMANDS[name][1]) for name in names] + options

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Parse the group's own options."""
        from orchestrator.cli.errors import report_errors

        with report_errors():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> object:
        """Run; our own errors end as one line and their exit code, an interrupt as 130."""
        from orchestrator.cli.errors import report_errors

        with report_errors():
            return super().invoke(ctx)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="pigeonhole", prog_name="pigeonhole")
def main() -> None:
    """Pigeonhole, a sorting office for images.

    Train image classifiers and classify folders of any size, on this machine or on many.

    \b
      pigeonhole demo                                       see it work
      pigeonhole train photos/ --name birds                 a folder per class
      pigeonhole classify inbox/ --model birds -o out.csv   one row per image
    """
