"""`pigeonhole results show` and `results errors`."""

from collections import Counter
from collections.abc import Mapping
from itertools import islice
from typing import Any

import click

from modeling.images.remarks import describe_remark
from modeling.names import path_to_text
from orchestrator.cli.output import json_option, print_json, print_line, print_message, print_table
from orchestrator.cli.results.options import warn_of_changes, where_option
from orchestrator.cli.speaking import doing
from orchestrator.contract.errors import UsageError
from orchestrator.contract.jobs.rows import Row
from orchestrator.jobs.where import Where

_LIMIT = click.option(
    "--limit", type=click.IntRange(min=0), default=20, show_default=True, help="Rows to show; 0: all."
)
_LABELS_SHOWN = 50  # the summary has all


@click.command()
@click.argument("job")
@_LIMIT
@where_option
@click.option("--pictures", is_flag=True, help="Show each image above its row, in terminals that can.")
@json_option
def show(job: str, limit: int, where: Where | None, pictures: bool, as_json: bool) -> None:
    """Show the counts and the first rows of JOB's manifest.

    \b
    Examples:
      pigeonhole results show birds.csv --where label=robin --limit 0
      pigeonhole results show birds.csv --where decision=review
      pigeonhole results show c261123-143355-7f3a2b --where "score<0.6 and not path~march" --json
      pigeonhole results show birds.csv --where decision=review --pictures
    """
    from orchestrator.cli.results.pictures import print_pictures, way_to_show
    from orchestrator.contract.settings import get_settings
    from orchestrator.jobs.results import find_published

    if pictures and as_json:
        raise UsageError("--pictures are for people, --json is for programs; choose one")
    published = find_published(get_settings(), job)
    warn_of_changes(published)
    fitting = published.rows() if where is None else filter(where.fits, published.rows())
    with doing("reading rows"):
        rows = list(islice(fitting, limit or None))
    if as_json:
        print_json({"summary": published.summary, "rows": [_to_json(row) for row in rows]})
        return
    counts: dict[str, Any] = published.summary["counts"]
    print_message(f"{published.manifest}: {counts['num_images']} images by {published.summary['model']['ref']}")
    if decided := describe_decisions(counts):
        print_message(decided)
    for line in describe_remarks(counts):
        print_message(line)
    labels = Counter(counts["labels"]).most_common()
    more = [(f"... {len(labels) - _LABELS_SHOWN:,} more", "")] if len(labels) > _LABELS_SHOWN else []
    print_table(("label", "images"), [*labels[:_LABELS_SHOWN], *more])
    print_line()
    if where is not None and not rows:
        print_message("no row fits")
    if pictures and (way := way_to_show()):
        print_pictures(published, rows, way)
    else:
        _print_rows(rows)


@click.command()
@click.argument("job")
@_LIMIT
@json_option
def errors(job: str, limit: int, as_json: bool) -> None:
    """Show which images of JOB failed, and why.

    \b
    Example:
      pigeonhole results errors birds.csv --limit 0
    """
    from orchestrator.contract.settings import get_settings
    from orchestrator.jobs.results import find_published

    published = find_published(get_settings(), job)
    warn_of_changes(published)
    rows = list(islice((row for row in published.rows() if not row.prediction.ok), limit or None))
    if as_json:
        codes = published.summary["counts"]["error_codes"]
        print_json({"error_codes": codes, "rows": [_to_json(row) for row in rows]})
        return
    counts = published.summary["counts"]
    print_message(f"{counts['num_failed']} of {counts['num_images']} images failed")
    print_table(
        ("path", "error code", "error"),
        [(path_to_text(row.path), row.prediction.error_code, row.prediction.error) for row in rows],
    )


def describe_decisions(counts: Mapping[str, Any]) -> str:
    """A summary's counts by decision in words; empty if the model has no calibration."""
    decisions = counts.get("decisions")  # a summary of an earlier release has none
    if not decisions:
        return ""
    words = {"accept": "accepted", "review": "to review", "reject": "rejected"}
    num_images = counts["num_images"] or 1
    shares = [f"{num:,} {words.get(name, name)} ({num / num_images:.1%})" for name, num in decisions.items()]
    return ", ".join(shares)


def describe_remarks(counts: Mapping[str, Any]) -> list[str]:
    """What a summary says that decoders remarked about images, a sentence each."""
    remarks = counts.get("remarks") or {}  # a summary of an earlier release has none
    return [describe_remark(remark, num_images) for remark, num_images in remarks.items()]


def _print_rows(rows: list[Row]) -> None:
    print_table(
        ("path", "status", "decision", "label", "score", "error"),
        [
            (
                path_to_text(row.path),
                row.status,
                row.prediction.decision or "",
                row.prediction.labels[0] if row.prediction.ok else "",
                f"{row.prediction.scores[0]:.4f}" if row.prediction.ok else "",
                row.prediction.error_code or "",
            )
            for row in rows
        ],
    )


def _to_json(row: Row) -> dict[str, object]:
    prediction = row.prediction
    return {
        "path": path_to_text(row.path),
        "status": row.status,
        "decision": prediction.decision,
        "top_k": [
            {"label": label, "score": score} for label, score in zip(prediction.labels, prediction.scores, strict=True)
        ],
        "error_code": prediction.error_code,
        "error": prediction.error,
    }
