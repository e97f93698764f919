"""From a manifest to a contact sheet: the rows that are shown, their pictures, and the page."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import IO

from modeling.images.progress import OnProgress
from modeling.names import path_to_text
from orchestrator.contract.jobs.rows import Row
from orchestrator.jobs.results import Published
from orchestrator.sheets.page import Page, PageGroup, SheetCard, write_page
from orchestrator.sheets.select import Group, SheetRows, Wanted, select
from orchestrator.sheets.thumbnails import ImageSource, Shown, show_rows

SIDE_PX = 240  # of a picture: sharp on a phone, where one is 120 to 180 px wide


@dataclass
class SheetFacts:
    """What a sheet shows. without_picture: rows by the code that says why they have none."""

    num_shown: int
    num_fitting: int
    groups: dict[str, int]
    without_picture: Counter[str] = field(default_factory=Counter)


def write_sheet(
    published: Published, wanted: Wanted, source: ImageSource, file: IO[bytes], on_picture: OnProgress
) -> SheetFacts:
    """Write the sheet of a manifest's rows."""
    selection = select(published.rows(), published.summary["counts"]["num_images"], wanted)
    facts = SheetFacts(
        selection.num_shown, selection.num_fitting, {group.name: group.num_fitting for group in selection.groups}
    )
    rows = (row for group in selection.groups for row in group.rows)
    pictures = _counted(show_rows(source, rows, SIDE_PX), facts, on_picture)
    write_page(_page(published, wanted, selection, pictures), file)
    return facts


def _counted(pictures: Iterator[Shown], facts: SheetFacts, on_picture: OnProgress) -> Iterator[Shown]:
    for number, shown in enumerate(pictures, start=1):
        if shown.thumbnail is None:
            facts.without_picture[shown.code] += 1
        on_picture(number, facts.num_shown)
        yield shown


def _page(published: Published, wanted: Wanted, selection: SheetRows, pictures: Iterator[Shown]) -> Page:
    summary = published.summary
    facts = [("Model", summary["model"]["ref"]), ("Source", str(summary.get("source", "")))]
    facts += [("Filter", wanted.where.text)] if wanted.where else []
    facts += [("Shown", _shown_of(selection.num_shown, selection.num_fitting))]
    groups = (_page_group(group, wanted, pictures) for group in selection.groups)
    index = [(_heading(group, wanted), group.num_fitting) for group in selection.groups] if wanted.by else []
    num_left_out = selection.num_groups - len(selection.groups)
    left_out = selection.num_fitting - sum(group.num_fitting for group in selection.groups)
    more = f"{num_left_out:,} more groups with {left_out:,} images are not shown." if num_left_out else ""
    return Page(path_to_text(published.manifest.name), facts, groups, index, more)


def _page_group(group: Group, wanted: Wanted, pictures: Iterator[Shown]) -> PageGroup:
    note = _shown_of(len(group.rows), group.num_fitting)
    cards = (card_of(row, shown) for row, shown in zip(group.rows, islice(pictures, len(group.rows)), strict=True))
    return PageGroup(_heading(group, wanted), note, cards)


def _heading(group: Group, wanted: Wanted) -> str:
    if wanted.by is None:
        return "Images"
    return group.name or {"label": "no label: not read", "decision": "no decision"}[wanted.by]


def _shown_of(num_shown: int, num_fitting: int) -> str:
    if num_shown == num_fitting:
        return f"{num_fitting:,} {'image' if num_fitting == 1 else 'images'}"
    return f"the first {num_shown:,} of {num_fitting:,} images"


def card_of(row: Row, shown: Shown) -> SheetCard:
    """What the sheet says of a row."""
    prediction, path = row.prediction, path_to_text(row.path)
    if not prediction.ok:
        return SheetCard(path, "", "", "error", prediction.error_code or "error", shown)
    decision = prediction.decision or ""
    return SheetCard(path, prediction.labels[0], f"{prediction.scores[0]:.4f}", decision, decision, shown)
