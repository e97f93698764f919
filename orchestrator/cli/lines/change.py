"""`pigeonhole lines pause`, `resume`, `remove` and `bins`."""

from collections.abc import Iterable
from dataclasses import replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Literal

import click

from orchestrator.cli.lines.facts import bin_states, closed_labels
from orchestrator.cli.lines.options import LineName
from orchestrator.cli.output import confirm_removal, json_option, print_json, print_message, print_table
from orchestrator.contract.errors import UnavailableError, UsageError
from orchestrator.contract.server_url import redact

if TYPE_CHECKING:
    from orchestrator.contract.lines.settings import Line
    from orchestrator.contract.lines.status import LineStatus
    from orchestrator.contract.lines.store import LineStore

Change = Literal["full", "disable", "enable"]


@click.command("pause")
@click.argument("line", type=LineName())
@json_option
def pause_line(line: str, as_json: bool) -> None:
    """Let LINE refuse pushes until `lines resume`. What waits already is still answered.

    A client goes on trying until its deadline, then gives the fallback bin with the reason `paused`.

    \b
    Example:
      pigeonhole lines pause birds
    """
    _set_paused(line, paused=True, as_json=as_json)


@click.command("resume")
@click.argument("line", type=LineName())
@json_option
def resume_line(line: str, as_json: bool) -> None:
    """End the pause of LINE.

    \b
    Example:
      pigeonhole lines resume birds
    """
    _set_paused(line, paused=False, as_json=as_json)


def _set_paused(name: str, *, paused: bool, as_json: bool) -> None:
    from orchestrator.cli.lines.connect import open_registry
    from orchestrator.lines.facts import line_facts

    registry = open_registry()
    before = registry.get(name)
    after = registry.change(name, lambda present: replace(present, paused=paused))
    if as_json:
        print_json(line_facts(after))
    else:
        state = "paused" if paused else "not paused"
        print_message(f"line {name} is {state}" + (" already" if before.paused == paused else ""))


@click.command("remove")
@click.argument("line", type=LineName())
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--server-is-gone", is_flag=True, help="Do not ask its own server, which keeps what it has of the line.")
@json_option
def remove_line(line: str, yes: bool, server_is_gone: bool, as_json: bool) -> None:
    """Remove LINE permanently, with its answers and kept images. What waits gets no answer of the line.

    Where it was interrupted, the same command removes the rest.

    \b
    Examples:
      pigeonhole lines remove birds
      pigeonhole lines remove birds --yes --json
    """
    from orchestrator.cli.lines.connect import open_registry

    registry = open_registry()
    found = registry.last_known(line)
    if server_is_gone and found is not None and found.settings.server is None:
        raise UsageError(f"line {line} has no server of its own; remove it without --server-is-gone")
    status = None if server_is_gone or found is None else _status_to_remove(registry.store(found), found)
    num_answers, num_waiting = (status.num_answers, status.num_waiting) if status else (None, None)
    if not yes:
        waiting = f", while {num_waiting:,} requests wait" if num_waiting else ""
        answers = "its answers" if num_answers is None else f"its {num_answers:,} answers"
        confirm_removal(f"remove line {line} with {answers} and its images{waiting}?")
    registry.remove(line, server_is_gone=server_is_gone)
    if as_json:
        print_json({"removed": line, "num_answers": num_answers, "num_waiting": num_waiting})
    else:
        print_message(f"removed line {line}")


def _status_to_remove(store: "LineStore", line: "Line") -> "LineStatus":
    """Raises UnavailableError where a server of the line's own does not answer."""
    import redis

    from orchestrator.contract.lines.status import read_status

    try:
        return read_status(store, line)
    except (redis.RedisError, OSError) as err:
        if line.settings.server is None:
            raise
        raise UnavailableError(
            f"the server of line {line.name} does not answer at {redact(line.settings.server)} ({err}); "
            "start it, or remove the line with --server-is-gone"
        ) from err


@click.command("bins")
@click.argument("line", type=LineName())
@click.argument("change", type=click.Choice(["full", "disable", "enable"]), required=False)
@click.argument("bins", nargs=-1, metavar="[BIN]...")
@json_option
def change_bins(line: str, change: Change | None, bins: tuple[str, ...], as_json: bool) -> None:
    """Mark a BIN of LINE as full or disabled, or enable it again. Without a change, show the bins.

    The next bin of a label takes the items of one that is full or disabled; where there is none, they go to the
    fallback bin with the reason `bin_full`. It counts for all images that are answered from then on.

    \b
    Examples:
      pigeonhole lines bins birds
      pigeonhole lines bins birds full 3
      pigeonhole lines bins birds enable 3
    """
    from orchestrator.cli.lines.connect import LinesView, open_registry

    if change is None:
        _show_bins(LinesView().get(line), as_json=as_json)
        return
    if not bins:
        raise UsageError(f"name the BIN to {'mark as full' if change == 'full' else change}")
    after = open_registry().change(line, lambda present: _with_bins(present, change, bins))
    if as_json:
        print_json({"line": line, "map_version": after.map_version, "bins": bin_states(after)})
    else:
        print_message(f"line {line}: " + ", ".join(f"bin {name} is {bin_states(after)[name]}" for name in bins))
    _warn(after)


def _show_bins(line: "Line", *, as_json: bool) -> None:
    from orchestrator.lines.labels import shown

    states = bin_states(line)
    if as_json:
        print_json({"line": line.name, "map_version": line.map_version, "bins": states})
        return
    labels = {name: [label for label, bins in line.settings.bins.items() if name in bins] for name in states}
    print_table(("bin", "state", "labels"), [(name, state, shown(labels[name])) for name, state in states.items()])
    _warn(line)


def _require_bins(line: "Line", bins: Iterable[str]) -> None:
    known = bin_states(line)
    for name in bins:
        if name in known:
            continue
        if name in (line.settings.fallback, line.settings.review):
            raise UsageError(f"bin {name!r} is the fallback or review bin of line {line.name!r}: it must take items")
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UsageError(f"line {line.name!r} has no bin {name!r}; {hint}there are {', '.join(known) or 'none'}")


def _with_bins(line: "Line", change: Change, bins: tuple[str, ...]) -> "Line":
    _require_bins(line, bins)
    others = replace(
        line,
        full=tuple(name for name in line.full if change == "disable" or name not in bins),
        disabled=tuple(name for name in line.disabled if change == "full" or name not in bins),
    )
    if change == "full":
        return replace(others, full=tuple(sorted({*others.full, *bins})))
    return others if change == "enable" else replace(others, disabled=tuple(sorted({*others.disabled, *bins})))


def _warn(line: "Line") -> None:
    from orchestrator.lines.labels import shown

    if closed := closed_labels(line):
        labels = "label" if len(closed) == 1 else "labels"
        print_message(
            f"warning: no bin is left for the {labels} {shown(closed)}: items go to the fallback bin with "
            "the reason `bin_full`",
            color="yellow",
        )
