"""The manifest that is sorted: proven against its summary, and read beside its sidecar."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

from modeling.names import path_to_text, text_to_path
from orchestrator.contract.errors import IntegrityError, NotFoundError, UsageError
from orchestrator.contract.jobs.base import sha256_of
from orchestrator.contract.jobs.rows import Row
from orchestrator.contract.jobs.sidecar import sidecar_path
from orchestrator.jobs.results import Published
from orchestrator.sorting.plan import Sources, Wanted

_LOOKED_AT = 100  # rows, before anything is done


@dataclass(frozen=True)
class SortedManifest:
    """A manifest that is what its summary says; root: the folder of its source. sidecar: None where it is missing."""

    published: Published
    path: Path
    root: str
    sidecar: Path | None

    @property
    def num_rows(self) -> int:
        num_images: int = self.published.summary["counts"]["num_images"]
        return num_images

    @property
    def sha256(self) -> str:
        digest: str = self.published.summary["manifest"]["sha256"]
        return digest

    @property
    def labels(self) -> list[str]:
        return list(self.published.summary["counts"]["labels"])

    @property
    def error_codes(self) -> list[str]:
        return list(self.published.summary["counts"]["error_codes"])

    def rows(self) -> Iterator[tuple[int, Row, bytes | None]]:
        """Every row with its number, from 1, and its line of the sidecar."""
        if self.sidecar is None:
            yield from zip(range(1, self.num_rows + 1), self.published.rows(), repeat(None), strict=False)
            return
        with self.sidecar.open("rb") as lines:
            for number, row in enumerate(self.published.rows(), start=1):
                yield number, row, lines.readline()

    def check_decisions(self) -> None:
        """Raises UsageError where no row has a decision."""
        if not self.published.summary["counts"].get("decisions"):
            model = self.published.summary["model"]["ref"]
            raise UsageError(f"{model} has no calibration, so {str(self.path)!r} has no decisions; sort --by label")

    def check_source(self, wanted: Wanted) -> None:
        """Raises NotFoundError where the source is away, or none of the first images is there."""
        shown = path_to_text(self.root)
        if not os.path.isdir(self.root):
            raise NotFoundError(f"the source {shown!r} is not there; mount it, or put the folder back")
        sources = Sources(wanted)
        found = [sources.look(row, line) for _, row, line in self._first() if row.prediction.ok]
        if found and all(each == "missing" for each in found):
            raise NotFoundError(
                f"none of the first {len(found)} images of {str(self.path)!r} is in {shown!r}; is it mounted, "
                "or were they moved by another sort?"
            )

    def _first(self) -> Iterator[tuple[int, Row, bytes | None]]:
        for number, row, line in self.rows():
            if number > _LOOKED_AT:
                return
            yield number, row, line


def open_to_sort(published: Published) -> SortedManifest:
    """The manifest, checked. Raises IntegrityError where it or its sidecar is not what the summary says."""
    path = Path(os.path.abspath(published.manifest))
    sidecar: Path | None = sidecar_path(path)
    if not published.is_unchanged():
        _raise_changed(path)
    if sidecar is not None and not sidecar.exists():
        sidecar = None
    if sidecar is not None and sha256_of(sidecar) != published.summary["sidecar"]["sha256"]:
        _raise_changed(sidecar)
    root = published.summary.get("root")
    if not isinstance(root, str) or not root.startswith("/"):
        raise UsageError(f"the summary of {path} names no root, so its images cannot be found")
    return SortedManifest(published, path, text_to_path(root), sidecar)


def _raise_changed(path: Path) -> None:
    raise IntegrityError(
        f"{path} was changed after it was published (its sha256 is not the one in its summary); "
        "sort an unchanged copy, or classify again"
    )
