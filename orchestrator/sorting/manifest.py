"""The manifest that is sorted: proven against its summary, and read from the same open file."""

import contextlib
import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from modeling.names import path_to_text, text_to_path
from orchestrator.contract.errors import IntegrityError, NotFoundError, UsageError
from orchestrator.contract.jobs.rows import FORMATS, Row
from orchestrator.jobs.results import Published, check_sound
from orchestrator.jobs.row_pages import open_manifest
from orchestrator.sorting.plan import FileFacts, Sources, Wanted

_LOOKED_AT = 100  # rows, before anything is done


@dataclass
class SortedManifest:
    """An open manifest that is what its summary says."""

    path: Path
    summary: dict[str, Any]
    sha256: str
    root: str
    _file: BinaryIO

    @property
    def num_rows(self) -> int:
        num_images: int = self.summary["counts"]["num_images"]
        return num_images

    def rows(self) -> Iterator[tuple[int, Row, FileFacts | None]]:
        """Every row with its number, from 1, and its file as it was when it was classified, if that is known."""
        self._file.seek(0)
        rows = FORMATS[self.summary["manifest"]["format"]].read_on(self._file, self.path)
        for number, (_, row) in enumerate(rows, start=1):
            check_sound(row, self.path, number)
            yield number, row, None

    def check_decisions(self) -> None:
        """Raises UsageError where no row has a decision."""
        if not self.summary["counts"].get("decisions"):
            model = self.summary["model"]["ref"]
            raise UsageError(f"{model} has no calibration, so {str(self.path)!r} has no decisions; sort --by label")

    def check_source(self, wanted: Wanted, *, again: bool = False) -> None:
        """Raises NotFoundError where the source is away, or none of the first images is there.

        again: these may be sorted already.
        """
        shown = path_to_text(self.root)
        if not os.path.isdir(self.root):
            raise NotFoundError(f"the source {shown!r} is not there; mount it, or put the folder back")
        if again:
            return
        sources = Sources(wanted)
        found = [sources.look(row.path, facts) for _, row, facts in self._first() if row.prediction.ok]
        if found and all(each == "missing" for each in found):
            raise NotFoundError(
                f"none of the first {len(found)} images of {str(self.path)!r} is in {shown!r}; is it mounted, "
                "or were they moved by another sort?"
            )

    def _first(self) -> Iterator[tuple[int, Row, FileFacts | None]]:
        for number, row, facts in self.rows():
            if number > _LOOKED_AT:
                return
            yield number, row, facts


@contextlib.contextmanager
def open_to_sort(published: Published) -> Iterator[SortedManifest]:
    """Open a manifest. Raises IntegrityError where it is not what its summary says, UsageError without a root."""
    file, _, _ = open_manifest(published)
    with file:
        sha256 = hashlib.file_digest(cast(io.BufferedReader, file), "sha256").hexdigest()
        if sha256 != published.summary["manifest"]["sha256"]:
            raise IntegrityError(
                f"{published.manifest} was changed after it was published (its sha256 is not the one in its summary); "
                "sort an unchanged copy, or classify again"
            )
        root = published.summary.get("root")
        if not isinstance(root, str) or not root.startswith("/"):
            raise UsageError(f"the summary of {published.manifest} names no root, so its images cannot be found")
        yield SortedManifest(
            Path(os.path.abspath(published.manifest)), published.summary, sha256, text_to_path(root), file
        )
