"""A sheet of pictures of duplicates: the images of each group beside each other."""

from itertools import islice
from typing import IO, BinaryIO

from modeling.images.progress import OnProgress
from modeling.names import path_to_text
from orchestrator.duplicates.groups import Found, Group, groups_of, groups_text
from orchestrator.jobs.results import Published
from orchestrator.sheets.page import Page, PageGroup, write_page
from orchestrator.sheets.sheet import SIDE_PX, card_of
from orchestrator.sheets.thumbnails import ImageSource, show_rows

MOST_GROUPS = 250
MOST_OF_GROUP = 8  # images


def write_sheet(
    published: Published, manifest: BinaryIO, found: Found, source: ImageSource, file: IO[bytes], progress: OnProgress
) -> None:
    """Write the sheet of the first groups."""
    counts = found.counts()
    num_groups = counts["num_exact_groups"] + counts["num_near_groups"]
    facts = [
        ("Exact duplicates", groups_text(counts["num_exact_groups"])),
        ("Near duplicates", groups_text(counts["num_near_groups"])),
        ("Images", f"{counts['num_images']:,}, {counts['num_redundant']:,} beyond the first of their group"),
    ]
    shown = min(num_groups, MOST_GROUPS)
    pages = (
        _page_group(group, source, number, shown, progress)
        for number, group in enumerate(islice(groups_of(published, manifest, found), MOST_GROUPS), start=1)
    )
    more = f"{num_groups - shown:,} more groups are not shown." if num_groups > shown else ""
    write_page(Page(f"Duplicates in {path_to_text(published.manifest.name)}", facts, pages, more=more), file)


def _page_group(group: Group, source: ImageSource, number: int, num_groups: int, progress: OnProgress) -> PageGroup:
    progress(number, num_groups)
    rows = group.rows[:MOST_OF_GROUP]
    pictures = zip(rows, show_rows(source, rows, SIDE_PX), strict=True)
    of = f"the first {len(rows)} of " if len(rows) < len(group.rows) else ""
    note = f"{of}{len(group.rows):,} images"
    return PageGroup(f"{group.number}: {group.kind}", note, (card_of(row, picture) for row, picture in pictures))
