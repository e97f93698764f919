"""Output of commands: data on standard output, messages on standard error.

Everything that a command prints goes through this module: names, labels and errors come from files and from other
machines, and no terminal may obey what is in them. Own tables, not rich's: output is piped, so rows never wrap, and no
import slows a command down.
"""

import contextlib
import errno
import json
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import click

from orchestrator.cli import speaking
from orchestrator.contract.errors import ExitCode, PigeonholeError, UsageError
from orchestrator.contract.shown import printable, printable_json, without_logins
from orchestrator.contract.streams import discard

F = TypeVar("F", bound=Callable[..., Any])
_CLEAR_LINE = "\r\x1b[K"
_STDOUT, _STDERR = 1, 2


def json_option(function: F) -> F:
    """The --json option of every command that shows data."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")(function)


def print_line(text: object = "", *, color: str | None = None, bold: bool | None = None, nl: bool = True) -> None:
    """Print data on standard output, on one line."""
    with _whole_output():
        click.secho(printable(str(text)), fg=color, bold=bold, nl=nl)


def print_drawing(escapes: str) -> None:
    """Print a picture as escape sequences, which are made of pixels: nothing in them is text from elsewhere."""
    with _whole_output():
        click.echo(escapes, color=True)


def print_message(text: str, *, color: str | None = None, bold: bool | None = None, nl: bool = True) -> None:
    """Print a message for the operator on standard error, on one line.

    Where that is full or away, the command goes on without; a reader that has gone ends it, as click has it.
    """
    try:
        with speaking.output():
            click.secho(printable(without_logins(text)), fg=color, bold=bold, nl=nl, err=True)
    except OSError as err:
        if err.errno == errno.EPIPE:
            raise
        discard(_STDERR)


def redraw_line(text: str = "") -> None:
    """Replace the terminal's present line by `text`; does nothing where standard error is not a terminal."""
    if sys.stderr.isatty():
        with speaking.output():
            click.echo(_CLEAR_LINE + printable(text), nl=False, err=True)


@contextlib.contextmanager
def on_interrupt(job: str) -> Iterator[None]:
    """Exit with 130 on an interrupt, with a message: the job continues."""
    try:
        yield
    except KeyboardInterrupt:
        print_message(f"job {job} continues; `pigeonhole watch {job}` follows it, `pigeonhole cancel {job}` ends it")
        sys.exit(ExitCode.INTERRUPTED)


def confirm_removal(question: str) -> None:
    """Ask for confirmation on the terminal; exit with 1 if the answer is no."""
    if not sys.stdin.isatty():
        raise UsageError("standard input is not a terminal, so nothing can be confirmed; remove with --yes")
    with speaking.output():
        confirmed = click.confirm(printable(question), err=True)
    if not confirmed:
        print_message("nothing was removed")
        sys.exit(ExitCode.FAILED)


@contextlib.contextmanager
def cleaned_up_when_terminated() -> Iterator[None]:
    """In this block SIGTERM and SIGHUP raise SystemExit, so that temporary files are removed."""

    def stop(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def print_json(value: Any) -> None:
    """Print a document; characters that a terminal would obey are escaped, as JSON does it."""
    is_utf8 = str(getattr(sys.stdout, "encoding", "utf-8")).lower().replace("-", "") == "utf8"
    with _whole_output():
        click.echo(printable_json(json.dumps(value, ensure_ascii=not is_utf8, indent=2, default=str)))


def print_json_line(value: Any) -> None:
    """Print a document on one line, at once: who reads them gets each as it comes."""
    is_utf8 = str(getattr(sys.stdout, "encoding", "utf-8")).lower().replace("-", "") == "utf8"
    with _whole_output():
        click.echo(printable_json(json.dumps(value, ensure_ascii=not is_utf8, default=str)))


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], *, colors: Sequence[str | None] | None = None
) -> None:
    """Print rows under a heading, columns as wide as their widest cell. colors: of the rows, on a terminal."""
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    heads = [printable(name).upper() for name in columns]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    with _whole_output():
        click.secho("  ".join(map(str.ljust, heads, widths)).rstrip(), dim=True)
        for row, color in zip(cells, colors or [None] * len(cells), strict=True):
            click.secho("  ".join(map(str.ljust, row, widths)).rstrip(), fg=color)


@contextlib.contextmanager
def _whole_output() -> Iterator[None]:
    """Raise PigeonholeError where standard output cannot be written, as on a full disk; click handles a closed pipe."""
    try:
        with speaking.output():
            yield
    except OSError as err:
        if err.errno == errno.EPIPE:
            raise
        discard(_STDOUT)  # also what it still holds
        raise PigeonholeError(f"standard output cannot be written: {err.strerror}") from err


def size_text(size_bytes: int) -> str:
    """A readable size: 850 B, 12.3 kB, 44.8 MB."""
    size, units = float(size_bytes), ["B", "kB", "MB", "GB", "TB"]
    while size >= 999.95 and len(units) > 1:
        size /= 1000
        units.pop(0)
    return f"{size:.0f} B" if units[0] == "B" else f"{size:.1f} {units[0]}"


def duration(seconds: float) -> str:
    """A readable duration: 850 ms, 12.3 s, 4 min 05 s, 2 h 10 min."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
