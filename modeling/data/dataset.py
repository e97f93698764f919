"""A data set: images with their classes, listed but not opened yet, or held as pixels."""

# Shapes: N images, H height, W width, C channels (1 or 3).
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from modeling.data.findings import Finding
from modeling.names import path_to_text

FREE, TRAIN, VALIDATION, TEST = -1, 0, 1, 2
"""Values of `parts_N`: an image's official part; FREE where it has none."""

PART_NAMES = ("train", "validation", "test")
"""Names of the parts TRAIN, VALIDATION and TEST."""

Kind = Literal["folders", "part_folders", "idx", "cifar10", "list", "manifest"]
Targets = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Images with their classes: `files`, or `pixels_NHWC` where the format holds pixels.

    path: what was opened.
    targets_N: index into `labels` of each image.
    files: the images, in an order that depends on names alone; empty where there are pixels.
    pixels_NHWC: the images, C is 1 or 3; None where there are files.
    parts_N: TRAIN, VALIDATION, TEST or FREE of each image; None where the data set has no official parts.
        Those of pixels are ascending.
    num_ignored: files, folders and rows passed over (hidden, no image, ...).
    root: the folder that names are relative to; None where that is `path`.
    findings: what opening it brought to light.
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
        """How many images, readable or not."""
        return len(self.targets_N)

    def name(self, index: int) -> str:
        r"""What an image is called: its path below the data set, or its part and number in it (`test/17`).

        Valid UTF-8: a byte of a file name that is not is written as `\xNN`, as in a manifest.
        """
        if self.pixels_NHWC is None:
            path = self.files[index]
            root = self.root or self.path
            return path_to_text(str(path.relative_to(root) if path.is_relative_to(root) else path))
        if self.parts_N is None:
            return f"image/{index}"
        part = self.parts_N[index]  # stays int8: searching for an int would convert the whole array
        return f"{PART_NAMES[part]}/{index - int(np.searchsorted(self.parts_N, part))}"
