"""The rows of a manifest that are exported, one after another, and what must be known before the first is written."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from modeling.images.progress import OnProgress, Progress
from modeling.names import escape_bytes
from orchestrator.contract.jobs.rows import Row
from orchestrator.jobs.results import Published
from orchestrator.jobs.where import Where

_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # in XML 1.0, also as a reference


@dataclass(frozen=True)
class RowSelection:
    """Rows of a manifest: those that fit."""

    published: Published
    where: Where | None = None

    @property
    def num_listed(self) -> int:
        """Rows of the whole manifest, as its summary says."""
        num_images: int = self.published.summary["counts"]["num_images"]
        return num_images

    def rows(self, progress: OnProgress | None = None) -> Iterator[Row]:
        """The rows; progress: receives how many of the manifest's were read, of how many."""
        shown = Progress(progress) if progress is not None else None
        for number, row in enumerate(self.published.rows(), start=1):
            if shown is not None:
                shown.update(number, self.num_listed)
            if self.where is None or self.where.fits(row):
                yield row

    def answered(self, progress: OnProgress | None = None) -> Iterator[Row]:
        """The rows that have an answer."""
        return (row for row in self.rows(progress) if row.prediction.ok)

    def survey(self) -> "Survey":
        """Read all rows once."""
        survey, labels = Survey(), set[str]()
        for row in self.rows():
            survey.num_rows += 1
            if row.prediction.ok:
                survey.num_answered += 1
                labels.add(row.prediction.labels[0])
                survey.num_altered += plain(row.path) != row.path
        survey.labels = sorted(labels)
        return survey


@dataclass
class Survey:
    """What the rows of a selection have in common.

    labels: the best ones, sorted. num_altered: answered images whose names `plain` changes.
    """

    num_rows: int = 0
    num_answered: int = 0
    num_altered: int = 0
    labels: list[str] = field(default_factory=list)


def plain(name: str) -> str:
    r"""A path or a label as text that JSON and XML can hold: what they cannot is `\xNN`, which nothing turns back."""
    return _ILLEGAL.sub(lambda match: escape_bytes(match[0]), name)
