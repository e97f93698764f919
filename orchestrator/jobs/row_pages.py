"""Pages of the rows of a manifest, filtered; a page reads on where the last one ended, and keeps nothing in memory."""

import os
import re
from dataclasses import dataclass
from typing import BinaryIO

from modeling.inference.prediction import Prediction
from modeling.metrics.decisions import Decision
from orchestrator.contract.errors import UsageError
from orchestrator.contract.jobs.rows import FORMATS, Row
from orchestrator.jobs.results import Published, check_sound

MOST_READ = 50_000  # rows for one page; a page of a rare label may then be shorter than its limit

_CURSOR = re.compile(r"([0-9a-f]{1,16}-[0-9a-f]{1,16})\.([0-9]{1,15})\.([0-9]{1,10})")


@dataclass(frozen=True)
class RowQuery:
    """Which rows of a manifest: all that is given must hold.

    cursor: of the page before. label: the best one. below: the best score is less. failed: whether the image failed.
    """

    limit: int
    cursor: str | None = None
    decision: Decision | None = None
    label: str | None = None
    below: float | None = None
    failed: bool | None = None
    error_code: str | None = None

    def fits(self, prediction: Prediction) -> bool:
        if self.failed is not None and self.failed == prediction.ok:
            return False
        if self.decision is not None and prediction.decision != self.decision:
            return False
        if self.error_code is not None and prediction.error_code != self.error_code:
            return False
        if self.label is not None and (not prediction.ok or prediction.labels[0] != self.label):
            return False
        return self.below is None or (prediction.ok and prediction.scores[0] < self.below)


@dataclass(frozen=True)
class RowsPage:
    """Rows with their numbers in the manifest, from 1; cursor: of the next page, None if all rows were looked at."""

    rows: list[tuple[int, Row]]
    cursor: str | None


@dataclass(frozen=True)
class _Place:
    """Between two rows: the byte where the next one begins, and the number of rows before."""

    offset: int = 0
    num_rows: int = 0


def read_page(published: Published, query: RowQuery) -> RowsPage:
    """The next rows that fit the query.

    Raises UsageError where the cursor is of another manifest, IntegrityError where the manifest is damaged.
    """
    file, _, version = open_manifest(published)
    with file:
        place = _parsed(query.cursor, version) if query.cursor is not None else _Place()
        file.seek(place.offset)
        found: list[tuple[int, Row]] = []
        number = place.num_rows
        for end, row in FORMATS[published.summary["manifest"]["format"]].read_on(file, published.manifest):
            number += 1
            check_sound(row, published.manifest, number)
            if query.fits(row.prediction):
                found.append((number, row))
            if len(found) == query.limit or number - place.num_rows == MOST_READ:
                return RowsPage(found, f"{version}.{end}.{number}" if _has_more(published, number) else None)
    return RowsPage(found, None)


def _has_more(published: Published, number: int) -> bool:
    num_images: int = published.summary["counts"]["num_images"]
    return number < num_images


def open_manifest(published: Published) -> tuple[BinaryIO, os.stat_result, str]:
    """The manifest's file, what the system says of it, and its version.

    The version changes when the manifest is replaced, and is the same on every machine that shares it.
    """
    file = published.manifest.open("rb")
    facts = os.fstat(file.fileno())
    return file, facts, f"{facts.st_mtime_ns:x}-{facts.st_size:x}"


def _parsed(cursor: str, version: str) -> _Place:
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise UsageError(f"cursor {cursor!r} is not the one of a page")
    if found[1] != version:
        raise UsageError(f"cursor {cursor!r} is of a manifest that was replaced; begin with the first page")
    return _Place(int(found[2]), int(found[3]))
