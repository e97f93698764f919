"""A group of commands whose modules are imported when they are needed, so that help is fast.

Own code: click imports every command of a group, and help and completion are piped, so they must be fast.
"""

import contextlib
import gc
import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import click
from click.shell_completion import CompletionItem

from orchestrator.contract.imports import uncollected_imports


class LazyCommand(NamedTuple):
    """A command: "module:attribute" below `orchestrator.cli`, and its line in the list of commands."""

    target: str
    line: str


def choose_config(ctx: click.Context, param: click.Parameter, file: str | None) -> None:
    """Have this process and those that it starts read that settings file."""
    if file is not None:
        os.environ["PIGEONHOLE_CONFIG"] = os.path.abspath(file)  # noqa: PTH100 pathlib is slow to import


def config_option(*, hidden: bool = False) -> click.Option:
    """The --config option, which every command takes and the program's own help shows."""
    help_text = "Settings file; default: pigeonhole/pigeonhole.toml in the user's configuration folder."
    return click.Option(
        ["--config"], metavar="FILE", expose_value=False, is_eager=True, hidden=hidden, callback=choose_config,
        help=help_text,
    )  # fmt: skip


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is needed; the table has its place."""

    def __init__(self, *args: Any, table: Mapping[str, LazyCommand], **extra: Any) -> None:
        super().__init__(*args, **extra)
        self._table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._table:
            return None
        module, _, attribute = self._table[cmd_name].target.partition(":")
        command: click.Command = getattr(_module(f"orchestrator.cli.{module}"), attribute)
        if "config" not in {param.name for param in command.params}:
            command.params.append(config_option(hidden=True))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.line) for name, entry in self._table.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the nearest name in the error for an unknown command."""
        name = args[0]
        if name not in self._table and not name.startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(name, self._table, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(self._table)}"
            ctx.fail(f"there is no command {name!r}; {hint}")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands from the table alone: completion must be fast."""
        names = [name for name in self._table if name.startswith(incomplete)]
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [CompletionItem(name, help=self._table[name].line) for name in names] + options

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        with _errors_reported():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> object:
        """Run; our errors become one line and their exit code, an interrupt 130."""
        with _errors_reported():
            return super().invoke(ctx)


def _module(name: str) -> ModuleType:
    """A command's module, imported without the garbage collector."""
    if (loaded := sys.modules.get(name)) is not None:
        return loaded
    with uncollected_imports():
        return importlib.import_module(name)


@contextlib.contextmanager
def _errors_reported() -> Iterator[None]:
    """`report_errors`, whose import takes as long as a quarter of a help text: only where there is an error."""
    try:
        yield
    except (click.exceptions.Exit, click.exceptions.NoArgsIsHelpError):
        raise  # the help was printed, or will be
    except (Exception, KeyboardInterrupt):
        from orchestrator.cli.errors import report_errors

        with report_errors():
            raise


class RootGroup(LazyGroup):
    """The group of all commands: run as a program, it first makes closed streams and the C locale harmless."""

    _speaks = False

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run as click does; with arguments given by a caller, such as a test, the process is the caller's."""
        if args or "args" in extra:
            return super().main(*args, **extra)
        from orchestrator.contract.streams import prepare_process

        prepare_process()
        self._speaks = True
        try:
            return super().main(*args, **extra)
        finally:
            if "triton" not in sys.modules:  # takes what the collector skips for leaks, and prints them
                gc.freeze()  # at exit, the collector skips all imported objects: a tenth of a short command

    def invoke(self, ctx: click.Context) -> object:
        """Run; a program says what it does when that takes long, a caller's process is the caller's."""
        if not self._speaks:
            return super().invoke(ctx)
        from orchestrator.cli.speaking import speaking

        with speaking():
            return super().invoke(ctx)
