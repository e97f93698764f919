"""Images that a training loses: read by the scan, and gone, unreadable or of another content when they are read again.

A training goes on without them, names them, and fails if they are too many for that. An image is known by its content:
one that was only touched, moved back or copied again is not lost.
"""

# Shapes: N images of the data set, M chosen images.
import threading
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from modeling.data.dataset import Dataset, Finding, abbreviate
from modeling.data.images import Indices, load_image
from modeling.data.splits import Split
from modeling.errors import DataError, ImageError
from modeling.images.pixels import Pixels
from modeling.images.preprocessing import Preprocessing
from modeling.images.progress import Emit

MOST_LOST = 0.01  # of the images in use; a training that loses more fails
_NAMED = 10  # in a warning; the split lists all


@dataclass(frozen=True, slots=True)
class LostImage:
    """A lost image: its index in the data set, its name, and why it is lost."""

    index: int
    name: str
    reason: str


@dataclass(slots=True, eq=False)
class LostImages:
    """Reads the images of a training, and keeps those that are lost; threads may use it concurrently.

    split: as it was drawn. digests: sha256 of each image's bytes, as the scan read them. most: the number that may be
    lost; None: MOST_LOST of the images in use.
    """

    dataset: Dataset
    split: Split
    digests: tuple[str, ...]
    most: int | None = None
    _lost: dict[int, LostImage] = field(default_factory=dict)
    _by_class: dict[int, Indices] = field(default_factory=dict)
    _num_reported: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, index: int, preprocessing: Preprocessing) -> Pixels | None:
        """Pixels HWC of an image; None if it is lost.

        Raises:
            DataError: too many are lost, or the last training image of a class is.
        """
        if index in self._lost:
            return None
        try:
            return load_image(self.dataset, index, preprocessing, digest=self.digests[index])
        except ImageError as err:
            self.add(index, str(err))
            return None

    def pixels(self, index: int, preprocessing: Preprocessing) -> Pixels:
        """Pixels HWC of an image; for a lost training image those of the next one of its class, for others black.

        A batch thus keeps its size and its targets; what was lost of a held-out part is left out by `mask`.

        Raises:
            DataError: as `read`.
        """
        pixels_HWC = self.read(index, preprocessing)
        while pixels_HWC is None:
            stand_in = self._stand_in(index)
            if stand_in is None:
                return np.zeros(preprocessing.shape, dtype=np.uint8)
            pixels_HWC = self.read(stand_in, preprocessing)
        return pixels_HWC

    def _stand_in(self, index: int) -> int | None:
        """The next training image of the same class that is not lost; None for an image that is not trained on."""
        same = self._trained_on(int(self.dataset.targets_N[index]))
        place = int(np.searchsorted(same, index))
        if place == len(same) or same[place] != index:
            return None
        following = (int(other) for part in (same[place + 1 :], same[:place]) for other in part)
        return next((other for other in following if other not in self._lost), None)  # none left: `add` has failed

    def _trained_on(self, target: int) -> Indices:
        """The training images of a class, as the split was drawn."""
        with self._lock:
            if target not in self._by_class:
                train = self.split.train
                self._by_class[target] = train[self.dataset.targets_N[train] == target]
            return self._by_class[target]

    def add(self, index: int, reason: str) -> None:
        """Note that an image is lost.

        Raises:
            DataError: as `read`.
        """
        with self._lock:
            self._lost.setdefault(index, LostImage(index, self.dataset.name(index), reason))
            lost = list(self._lost.values())
        in_use = len(self.split.train) + len(self.split.validation) + len(self.split.test)
        if len(lost) > (MOST_LOST * in_use if self.most is None else self.most):
            raise DataError(
                f"{len(lost):,} of {in_use:,} images are gone or have changed since they were scanned, more than "
                f"{MOST_LOST:.0%}: {_names(lost, 3)}; leave the images as they are and train again"
            )
        target = int(self.dataset.targets_N[index])
        if self.mask(self._trained_on(target)).all():
            label = self.dataset.labels[target]
            raise DataError(
                f"the last training image of class {label} is gone or has changed since it was scanned: "
                f"{_names([self._lost[index]], 1)}; leave the images as they are and train again"
            )

    def mask(self, indices_M: Indices) -> NDArray[np.bool_]:
        """Which of these images are lost."""
        if not self._lost:
            return np.zeros(len(indices_M), dtype=bool)
        with self._lock:
            lost = list(self._lost)
        return np.isin(indices_M, lost)

    def kept(self, indices_M: Indices) -> Indices:
        """Those of these images that are not lost."""
        return indices_M if not self._lost else indices_M[~self.mask(indices_M)]

    def left(self) -> Split:
        """The split without the lost images, which it lists."""
        if not self._lost:
            return self.split
        split, lost = self.split, np.array(sorted(self._lost), dtype=np.int64)
        train, validation, test = (self.kept(part) for part in (split.train, split.validation, split.test))
        return replace(split, train=train, validation=validation, test=test, lost=lost)

    def report(self, emit: Emit) -> None:
        """Emit a warning that names the images lost since the last call."""
        with self._lock:
            new = list(self._lost.values())[self._num_reported :]
            self._num_reported += len(new)
        if new:
            emit({"event": "warning", "text": _left_out(new)})

    def images(self) -> list[LostImage]:
        """The lost images, in the order of the data set."""
        return sorted(self._lost.values(), key=lambda image: image.index)

    def finding(self) -> Finding | None:
        """The finding of a data report that names the lost images; None without any."""
        lost = self.images()
        return Finding("warning", "lost", _left_out(lost)) if lost else None


def _left_out(lost: list[LostImage]) -> str:
    images = "1 image was" if len(lost) == 1 else f"{len(lost):,} images were"
    return f"{images} left out, gone or changed since the scan: {_names(lost, _NAMED)}"


def _names(lost: list[LostImage], limit: int) -> str:
    """Names of lost images, the first with its reason."""
    first, *others = lost
    return abbreviate([f"{first.name} ({first.reason})", *(image.name for image in others)], limit)
