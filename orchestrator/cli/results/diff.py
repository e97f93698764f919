"""`pigeonhole results diff`."""

import sys
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modeling.images.progress import OnProgress
from modeling.names import path_to_text
from orchestrator.cli.item_progress import item_progress
from orchestrator.cli.output import (
    cleaned_up_when_terminated,
    json_option,
    print_json,
    print_line,
    print_message,
    print_table,
)
from orchestrator.cli.outputs import overwrite_option, written_output
from orchestrator.cli.results.options import warn_of_changes
from orchestrator.contract.errors import ExitCode
from orchestrator.contract.jobs.rows import Row

if TYPE_CHECKING:
    from orchestrator.diff.differences import Differences, Transition
    from orchestrator.diff.match import Answer
    from orchestrator.jobs.results import Published

_TRANSITIONS_SHOWN = 50
_ROWS_BETWEEN_REPORTS = 1000


@click.command()
@click.argument("before", metavar="A")
@click.argument("after", metavar="B")
@click.option("--limit", type=click.IntRange(0, 10_000), default=20, show_default=True, help="Rows to show.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE.csv|FILE.jsonl",
    help="Write all rows that differ there.",
)  # fmt: skip
@overwrite_option
@json_option
def diff(before: str, after: str, limit: int, output: Path | None, overwrite: bool, as_json: bool) -> None:
    """Show what differs between manifests A and B of one source, by label, by decision and by row.

    Rows are matched by path, in whatever order and format they are. Exit 0 if both say the same of every image, 1 if
    anything differs, a score or a row that only one of them has included.

    \b
    Examples:
      pigeonhole results diff birds-1.csv birds-2.csv
      pigeonhole results diff monday.csv tuesday.jsonl -o changes.csv
    """
    from orchestrator.contract.settings import get_settings
    from orchestrator.diff.write import check_suffix
    from orchestrator.jobs.derived_outputs import check_derived_file
    from orchestrator.jobs.results import find_published

    settings = get_settings()
    manifests = find_published(settings, before), find_published(settings, after)
    if output is not None:
        check_suffix(output)
        for published in manifests:
            check_derived_file(output, published, overwrite=overwrite)
    for published in manifests:
        warn_of_changes(published)
    found = _compare(manifests, output, limit, overwrite=overwrite)
    if as_json:
        print_json(_to_json(manifests, found))
    else:
        _print(manifests, found, output)
    sys.exit(ExitCode.OK if found.are_none else ExitCode.FAILED)


def _compare(
    manifests: tuple["Published", "Published"], output: Path | None, limit: int, *, overwrite: bool
) -> "Differences":
    from orchestrator.contract.home import scratch_folder
    from orchestrator.contract.settings import get_settings
    from orchestrator.diff.differences import Differences, find_changes
    from orchestrator.diff.match import match_rows
    from orchestrator.diff.write import written

    found = Differences()
    scratch = scratch_folder(get_settings())
    with cleaned_up_when_terminated(), item_progress("comparing") as progress:
        one, other = _counted_rows(manifests, progress)
        changes = find_changes(match_rows(one, other, scratch), found, num_kept=limit)
        if output is None:
            deque(changes, maxlen=0)
        else:
            with written_output(output, overwrite=overwrite) as file:
                deque(written(changes, output, file), maxlen=0)
    return found


def _counted_rows(manifests: Sequence["Published"], progress: OnProgress) -> list[Iterator[Row]]:
    """The rows of each manifest; progress: gets how many of all were read."""
    total = sum(published.summary["counts"]["num_images"] for published in manifests)
    numbers = count(1)

    def counted(published: "Published") -> Iterator[Row]:
        for row in published.rows():
            if (number := next(numbers)) % _ROWS_BETWEEN_REPORTS == 0:
                progress(number, total)
            yield row

    return [counted(published) for published in manifests]


def _print(manifests: tuple["Published", "Published"], found: "Differences", output: Path | None) -> None:
    for name, published in zip("AB", manifests, strict=True):
        counts, ref = published.summary["counts"], published.summary["model"]["ref"]
        print_message(f"{name}: {published.manifest}: {counts['num_images']:,} images by {ref}")
    for difference in _different_facts(manifests):
        print_message(difference, color="yellow")
    print_message(_counts_in_words(found))
    _print_transitions("label", found.labels, found.num_in_further_transitions)
    _print_transitions("decision", found.decisions, 0)
    if found.first:
        rows = [
            (path_to_text(change.path), " ".join(change.kinds), _in_words(change.before), _in_words(change.after))
            for change in found.first
        ]
        print_table(("path", "change", "A", "B"), rows)
    num_more = found.num_changed + found.num_removed + found.num_added - len(found.first)
    if num_more:
        print_message(f"... and {num_more:,} more rows; -o FILE.csv writes all of them")
    if output is not None:
        print_message(f"all rows that differ are in {output}")


def _different_facts(manifests: tuple["Published", "Published"]) -> list[str]:
    """What the summaries say differently, a sentence each."""
    one, other = (published.summary for published in manifests)
    found = []
    if one["model"]["digest"] != other["model"]["digest"]:
        refs = f"{one['model']['ref']} and {other['model']['ref']}"
        same = " (of one name, with other digests)" if one["model"]["ref"] == other["model"]["ref"] else ""
        found.append(f"the models differ: {refs}{same}")
    if one.get("root") != other.get("root"):
        found.append(f"the sources differ: {one.get('root')} and {other.get('root')}; rows are matched by path")
    return found


def _counts_in_words(found: "Differences") -> str:
    scores = f"{found.num_other_scores:,} with another score only"
    scores += f" (by {found.largest_step:.6f} at most)" if found.num_other_scores else ""
    only = f"{found.num_removed:,} only in A, {found.num_added:,} only in B"
    return f"{found.num_equal:,} rows equal, {found.num_changed:,} with another answer, {scores}, {only}"


def _print_transitions(name: str, transitions: "Counter[Transition]", num_further: int) -> None:
    """A table of from and to with the numbers of rows, the most frequent first."""
    if not transitions:
        return
    missing = {"label": "(error)", "decision": "(none)"}[name]
    shown = [
        (missing if one is None else one, missing if other is None else other, f"{num:,}")
        for (one, other), num in transitions.most_common(_TRANSITIONS_SHOWN)
    ]
    num_more = transitions.total() - sum(num for _, num in transitions.most_common(_TRANSITIONS_SHOWN)) + num_further
    more = [("...", "", f"{num_more:,} more")] if num_more else []
    print_table((f"{name} in A", f"{name} in B", "images"), [*shown, *more])
    print_line()


def _in_words(answer: "Answer | None") -> str:
    if answer is None:
        return "-"
    said = answer.error_code or "" if answer.label is None else f"{answer.label} {answer.score:.4f}"
    return f"{said} {answer.decision}" if answer.decision else said


def _to_json(manifests: tuple["Published", "Published"], found: "Differences") -> dict[str, Any]:
    one, other = (published.summary for published in manifests)
    return {
        "equal": found.are_none,
        "manifests": [
            {"manifest": str(published.manifest), "job": published.summary["job"], "model": published.summary["model"]}
            for published in manifests
        ],
        "same_model": one["model"]["digest"] == other["model"]["digest"],
        "same_source": one.get("root") == other.get("root"),
        "num_equal": found.num_equal,
        "num_changed": found.num_changed,
        "num_other_scores": found.num_other_scores,
        "largest_step": found.largest_step,
        "num_removed": found.num_removed,
        "num_added": found.num_added,
        "labels": _transitions_to_json(found.labels),
        "num_in_further_transitions": found.num_in_further_transitions,
        "decisions": _transitions_to_json(found.decisions),
        "rows": [change.to_json() for change in found.first],
    }


def _transitions_to_json(transitions: "Counter[Transition]") -> list[dict[str, Any]]:
    return [{"from": one, "to": other, "num_images": num} for (one, other), num in transitions.most_common()]
