"""Every command of `pigeonhole`, lazy groups included."""

from collections.abc import Iterator

import click

from orchestrator.cli import main

CONTEXT = click.Context(main, info_name="pigeonhole")


def all_commands(group: click.Group = main, words: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command and group below a group with its words, such as `models show`."""
    for name in group.list_commands(CONTEXT):
        command = group.get_command(CONTEXT, name)
        assert command is not None
        full = f"{words} {name}".strip()
        yield full, command
        if isinstance(command, click.Group):
            yield from all_commands(command, full)


EVERY_COMMAND = dict(all_commands())
LEAVES = {words: command for words, command in EVERY_COMMAND.items() if not isinstance(command, click.Group)}
