"""A data set: images with their classes, as a list of files or as pixels in memory; and findings about it."""

# Shapes: N images, H height, W width, C channels (1 or 3).
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from modeling.names import path_to_text

FREE, TRAIN, VALIDATION, TEST = -1, 0, 1, 2
"""Values of `parts_N`: an image's official part; FREE if it has none."""

PART_NAMES = ("train", "validation", "test")
"""Names of the parts TRAIN, VALIDATION and TEST."""

Kind = Literal["folders", "part_folders", "idx", "cifar10", "list", "manifest"]
Targets = NDArray[np.int64]
Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding about a data set.

    severity: `error` if no model can be trained on it, `warning` if it harms the model, else `info`.
    code: a short, stable identifier, such as `near_duplicates`.
    message: one sentence for people, with figures and, for anything but `info`, what to do.
    """

    severity: Severity
    code: str
    message: str


def abbreviate(names: Sequence[str], limit: int = 5) -> str:
    """The first `limit` names, and the number of the others."""
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Images with their classes: `files`, or `pixels_NHWC` if the format stores pixels.

    path: the path that was opened.
    targets_N: index into `labels` of each image.
    files: the images, in an order that depends only on their names; empty if there are pixels.
    pixels_NHWC: the images, C is 1 or 3; None if there are files.
    parts_N: TRAIN, VALIDATION, TEST or FREE for each image; None if the data set has no official parts. For pixels,
        they are ascending.
    num_ignored: ignored files, folders and rows (hidden, not an image, ...).
    root: the folder that names are relative to; None: `path`.
    findings: the findings of opening the data set.
    """

    kind: Kind
    path: Path
    labels: tuple[str, ...]
    targets_N: Targets
    files: tuple[Path, ...] = ()
    pixels_NHWC: NDArray[np.uint8] | None = None
    parts_N: NDArray[np.int8] | None = None
    num_ignored: int = 0
    root: Path | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def num_images(self) -> int:
        """The number of images, including unreadable ones."""
        return len(self.targets_N)

    def name(self, index: int) -> str:
        r"""An image's name: its path relative to the data set, or its part and its number in the part (`test/17`).

        Valid UTF-8: an undecodable byte of a file name is written as `\xNN`, as in a manifest.
        """
        if self.pixels_NHWC is None:
            path = self.files[index]
            root = self.root or self.path
            return path_to_text(str(path.relative_to(root) if path.is_relative_to(root) else path))
        if self.parts_N is None:
            return f"image/{index}"
        part = self.parts_N[index]  # stays int8: searching for an int would convert the whole array
        return f"{PART_NAMES[part]}/{index - int(np.searchsorted(self.parts_N, part))}"
