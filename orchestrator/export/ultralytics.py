"""A data set folder for Ultralytics: `train/LABEL/` and `val/LABEL/` with copies of the images.

Copies, not links: some releases of Ultralytics rewrite a damaged JPEG in its place, and through a link or a hard link
that would be the user's own file.
"""

import os
from collections import Counter
from pathlib import Path

from modeling.durable import staging_folder, sync, target_of
from modeling.errors import ImageError
from modeling.images.loader import load_ahead, read_image_file
from modeling.images.progress import OnProgress
from orchestrator.contract.jobs.rows import Row
from orchestrator.export.rows import RowSelection, Survey
from orchestrator.jobs.row_images import image_file, image_root
from orchestrator.sorting.names import FolderNames, portable

# What its classification data sets read, by name.
SUFFIXES = frozenset({
    ".avif", ".bmp", ".dng", ".heic", ".heif", ".jp2", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp",
})  # fmt: skip
VALIDATION_SHARE = 10  # every tenth image of a label, beginning with its second one
_LONGEST_STEM = 60  # characters; `portable` allows 100 bytes
_AHEAD = 64


def write_dataset(selection: RowSelection, survey: Survey, output: Path, progress: OnProgress) -> dict[str, int]:
    """Copy every answered image; the folder appears whole. Returns how many were left out, by reason.

    Raises NotFoundError if the source is away.
    """
    root = image_root(selection.published)
    output = target_of(output)
    with staging_folder(output.parent, f".{output.name}-") as staging:
        written = staging / output.name
        copies = _Copies(written, root, survey.labels)
        planned = map(copies.plan, selection.answered(progress))
        left_out = Counter(load_ahead(planned, _copy, num_ahead=_AHEAD))
        del left_out[""]
        os.sync()  # once, not for each of a million files
        written.rename(output)
        sync(output.parent)
    return dict(sorted(left_out.items()))


class _Copies:
    """Where the image of each row goes. All folders are made at once: both parts must have a folder for each label."""

    def __init__(self, folder: Path, root: str, labels: list[str]) -> None:
        self._folder, self._root, self._names = folder, root, FolderNames(labels)
        self._num_rows: Counter[str] = Counter()
        self._number = 0
        for label in labels:
            for part in ("train", "val"):
                (folder / part / self._names.of(label)).mkdir(parents=True)
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)

    def plan(self, row: Row) -> tuple[Row, str, Path]:
        """A row, the root of its image, and the name of the copy: a number, and what can be kept of its own name."""
        label = row.prediction.labels[0]
        self._number += 1
        self._num_rows[label] += 1
        part = "val" if self._num_rows[label] % VALIDATION_SHARE == 2 else "train"
        stem, suffix = os.path.splitext(os.path.basename(row.path))  # noqa: PTH119, PTH122 names may not be UTF-8
        name = f"{self._number:08}-{portable(stem)[:_LONGEST_STEM]}{suffix.lower()}"
        return row, self._root, self._folder / part / self._names.of(label) / name


def _copy(planned: tuple[Row, str, Path]) -> str:
    """Copy an image; the reason where it is left out, else empty."""
    row, root, target = planned
    if target.suffix not in SUFFIXES:
        return "another format"
    try:
        data = read_image_file(image_file(root, row.path))
    except ImageError as err:
        return err.code
    target.write_bytes(data)
    return ""
