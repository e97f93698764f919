"""`pigeonhole results sort` and `results unsort`."""

import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modeling.names import path_to_text
from orchestrator.cli import speaking
from orchestrator.cli.output import duration, json_option, print_json, print_line, print_message, print_table
from orchestrator.contract.errors import ExitCode, UsageError
from orchestrator.sorting.words import GROUPINGS, MODES, By, Mode

if TYPE_CHECKING:
    from orchestrator.sorting.make import Tally
    from orchestrator.sorting.sort import Sorted, SortSpec
    from orchestrator.sorting.unsort import Unsorted

_NAMED = 20  # files that stay; --json and the journal have more
_DONE = {"link": "linked", "copy": "copied", "move": "moved"}
_WHY = {
    "missing": "no such file",
    "not a file": "a folder, a pipe or a device",
    "outside the source": "not below the source's folder",
    "a link": "symbolic links are not moved",
    "changed": "changed since it was classified, or while it was sorted",
    "taken": "its place is taken",
    "permission": "this user may not read or move it",
    "copy differs": "the copy could not be read back as it was written: check that disk",
    "attributes": "the other file system does not hold its attributes or access list",
}
_WHY_LEFT = {
    "changed": "was changed since, or its place is taken",
    "taken": "its place is taken",
    "gone": "is at neither place",
    "permission": "may not be put back there by this user",
    "copy differs": "could not be read back as it was written: check that disk",
    "attributes": "has attributes or an access list that the source's file system does not hold",
}


@click.command("sort")
@click.argument("job", metavar="MANIFEST")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--by", type=click.Choice(GROUPINGS), required=True, help="What the folders are named after.")
@click.option("--link", is_flag=True, help="Symbolic links to the images (the default).")
@click.option("--copy", is_flag=True, help="Copies, which share their blocks where the file system can.")
@click.option("--move", is_flag=True, help="Move the images out of the source's folder.")
@click.option("--dry-run", is_flag=True, help="Count what would go where, and change nothing.")
@json_option
def sort_results(job: str, folder: Path, by: By, dry_run: bool, as_json: bool, **modes: bool) -> None:
    """Sort the images of MANIFEST (or of a job) into folders in DIR: one for each label or decision.

    Images without an answer go to `_errors`, by error code. Nothing that exists is overwritten. Only --move changes the
    source's folder. A sort that was stopped goes on when it is run again; `results unsort DIR` undoes it.

    \b
    Examples:
      pigeonhole results sort birds.csv sorted --by label --dry-run
      pigeonhole results sort birds.csv sorted --by label,decision
      pigeonhole results sort birds.csv sorted --by label --copy
    """
    from orchestrator.contract.settings import get_settings
    from orchestrator.jobs.results import find_published
    from orchestrator.sorting.sort import SortSpec

    spec = SortSpec(find_published(get_settings(), job), folder, by, _mode_of(modes))
    started = time.monotonic()
    with speaking.doing("sorting") as say:
        result = _sorted(spec, say, dry_run=dry_run)
    seconds = time.monotonic() - started
    tally = result.tally
    if as_json:
        print_json(_to_json(spec, result, seconds, dry_run=dry_run))
    else:
        _print_sorted(spec, result, seconds, dry_run=dry_run)
    sys.exit(ExitCode.FAILED if tally.num_left_answered else ExitCode.OK)


def _mode_of(modes: dict[str, bool]) -> Mode:
    """The only mode that is chosen. Raises UsageError where there are several: --move changes the source."""
    chosen: list[Mode] = [mode for mode in MODES if modes[mode]] or ["link"]
    if len(chosen) > 1:
        raise UsageError(f"--{' and --'.join(chosen)} cannot both be done; choose one")
    return chosen[0]


def _sorted(spec: "SortSpec", say: Any, *, dry_run: bool) -> "Sorted":
    from orchestrator.contract.settings import get_settings
    from orchestrator.sorting.sort import preview, sort

    def progress(num_rows: int, total: int) -> None:
        say(f"sorting: {num_rows:,} of {total:,} rows")

    if dry_run:
        return preview(get_settings(), spec, progress)
    try:
        return sort(get_settings(), spec, progress)
    except KeyboardInterrupt:
        print_message(
            "stopped: run the same command again to go on, or `pigeonhole results unsort` to undo what was sorted"
        )
        sys.exit(ExitCode.INTERRUPTED)


def _print_sorted(spec: "SortSpec", result: "Sorted", seconds: float, *, dry_run: bool) -> None:
    tally, shown = result.tally, path_to_text(str(spec.folder))
    print_table(("folder", "images"), [(path_to_text(name), num) for name, num in sorted(tally.folders.items())])
    _print_left(tally)
    images = f"{tally.num_sorted:,} of {tally.num_rows:,} images of {spec.published.summary['root']}"
    if result.was_finished:
        print_message(f"{shown} held this sort already; `pigeonhole results unsort` undoes it")
    elif dry_run:
        print_message(f"{images} would be {_DONE[spec.mode]}; nothing was changed")
    else:
        went_on = ", going on with an earlier run" if result.went_on else ""
        done = f"{images} {_DONE[spec.mode]} into {shown} in {duration(seconds)}{went_on}"
        print_message(f"{done}; `pigeonhole results unsort` undoes it")


def _print_left(tally: "Tally") -> None:
    from orchestrator.sorting.journal import JOURNAL

    for reason, num in tally.left.most_common():
        print_message(f"{num:,} not sorted: {_WHY[reason]}", color="yellow")
        named = [path for path, why in tally.named if why == reason][:_NAMED]
        for path in named:
            print_message(f"  {path_to_text(path)}")
        if num > len(named):
            print_message(f"  ... {num - len(named):,} more; the journal {JOURNAL} has all")


def _to_json(spec: "SortSpec", result: "Sorted", seconds: float, *, dry_run: bool) -> dict[str, Any]:
    tally = result.tally
    return {
        "manifest": path_to_text(str(spec.published.manifest)),
        "source": spec.published.summary["root"],
        "folder": path_to_text(str(spec.folder)),
        "by": spec.by,
        "mode": spec.mode,
        "dry_run": dry_run,
        "went_on": result.went_on,
        "was_finished": result.was_finished,
        "num_images": tally.num_rows,
        "num_sorted": tally.num_sorted,
        "folders": {path_to_text(name): num for name, num in sorted(tally.folders.items())},
        "left": dict(tally.left),
        "left_images": [{"path": path_to_text(path), "reason": reason} for path, reason in tally.named],
        "seconds": round(seconds, 3),
    }


@click.command("unsort")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Count what would be undone, and change nothing.")
@json_option
def unsort_results(folder: Path, dry_run: bool, as_json: bool) -> None:
    """Undo the sort into DIR: images go back to where they were, links and copies go, and so do folders that it made.

    What was changed since is left where it is, and named (exit 1). It may be run again after a kill.

    \b
    Example:
      pigeonhole results unsort sorted
    """
    from orchestrator.contract.settings import get_settings
    from orchestrator.sorting.unsort import unsort

    with speaking.doing("undoing") as say:
        try:
            result = unsort(get_settings(), folder, lambda num: say(f"undoing: {num:,} images"), dry_run=dry_run)
        except KeyboardInterrupt:
            print_message("stopped: run the same command again to go on")
            sys.exit(ExitCode.INTERRUPTED)
    if as_json:
        print_json({
            "folder": path_to_text(str(folder)), "dry_run": dry_run, "num_undone": result.num_undone,
            "num_left": result.num_left,
            "left": [
                {"path": path_to_text(target), "source": path_to_text(source), "reason": reason}
                for target, source, reason in result.left
            ],
        })  # fmt: skip
    else:
        _print_unsorted(folder, result, dry_run=dry_run)
    sys.exit(ExitCode.FAILED if result.num_left else ExitCode.OK)


def _print_unsorted(folder: Path, result: "Unsorted", *, dry_run: bool) -> None:
    from orchestrator.sorting.journal import JOURNAL

    shown = path_to_text(str(folder))
    for target, source, reason in result.left[:_NAMED]:
        print_message(f"left: {path_to_text(target)} (from {path_to_text(source)}) {_WHY_LEFT[reason]}", color="yellow")
    if result.num_left > _NAMED:
        reasons = Counter(reason for _, _, reason in result.left)
        print_message(f"  ... {result.num_left - _NAMED:,} more: {dict(reasons)}")
    would = "would be undone; nothing was changed" if dry_run else "undone"
    print_line(f"{shown}: {result.num_undone:,} images {would}")
    if result.num_left and not dry_run:
        print_message(
            f"not undone: {result.num_left:,}; the journal {JOURNAL} names them. Put them in order and run it "
            "again, or delete the journal to keep them as they are"
        )
