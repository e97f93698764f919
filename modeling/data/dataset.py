"""A data set: images with their classes, as a list of files or as pixels in memory; and findings about it."""

# Shapes: N images, H height, W width, C channels (1 or 3).
import os
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

Kind = Literal["folders", "part_folders", "idx", "cifar10", "list", "manifest", "joined"]
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


@dataclass(frozen=True, slots=True)
class Source:
    """One of several data sets that are joined: its path as text (modeling.names), and its form and images by itself.

    An image that several of them hold counts in each, though the joined data set has it once.
    """

    path: str
    kind: Kind
    num_images: int


def abbreviate(names: Sequence[str], limit: int = 5) -> str:
    """The first `limit` names, and the number of the others."""
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Images with their classes: `files`, or `pixels_NHWC` if the format stores pixels.

    path: the path that was opened; of joined data sets the first one's.
    targets_N: index into `labels` of each image.
    files: the images, in an order that depends only on their names; empty if there are pixels.
    pixels_NHWC: the images, C is 1 or 3; None if there are files.
    parts_N: TRAIN, VALIDATION, TEST or FREE for each image; None if the data set has no official parts. For pixels,
        they are ascending.
    num_ignored: ignored files, folders and rows (hidden, not an image, ...).
    root: the folder that names are relative to; None: `path`.
    sources: the data sets that are joined in it, in order; empty for a single one.
    corrected_N: for a manifest, whether a person gave the label of each image; else None.
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
    sources: tuple[Source, ...] = ()
    corrected_N: NDArray[np.bool_] | None = None

    @property
    def shown(self) -> str:
        """What messages call the data set: its path, or those of the data sets that are joined in it."""
        paths = [source.path for source in self.sources] or [path_to_text(str(self.path))]
        return " and ".join([", ".join(paths[:-1]), paths[-1]] if len(paths) > 1 else paths)

    @property
    def num_images(self) -> int:
        """The number of images, including unreadable ones."""
        return len(self.targets_N)

    def name(self, index: int) -> str:
        r"""An image's name: its path relative to the data set, or its part and its number in the part (`test/17`).

        In joined data sets, names are relative to the folder that holds them all.

        Valid UTF-8: an undecodable byte of a file name is written as `\xNN`, as in a manifest.
        """
        if self.pixels_NHWC is None:
            path = self.files[index]
            root = self.root or self.path
            return path_to_text(str(path.relative_to(root) if path.is_relative_to(root) else path))
        place, start, end = self._source_of(index)
        parts_N = None if self.parts_N is None else self.parts_N[start:end]
        if parts_N is None or (part := parts_N[index - start]) == FREE:
            return f"{place}image/{index - start}"
        # `part` stays int8: searching for an int would convert the whole array
        return f"{place}{PART_NAMES[part]}/{index - start - int(np.searchsorted(parts_N, part))}"

    def _source_of(self, index: int) -> tuple[str, int, int]:
        """For pixels: what the names of a source's images begin with, its first image and the one after its last."""
        start = 0
        for source in self.sources:
            end = start + source.num_images
            if index < end:
                return f"{os.path.relpath(source.path, path_to_text(str(self.root)))}/", start, end
            start = end
        return "", 0, self.num_images
