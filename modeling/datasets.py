"""Training data: a folder of images per class, or MNIST's idx files. Only ever read."""

# Shapes: N images, H height, W width.
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from modeling.errors import DataError
from modeling.formats import IMAGE_EXTENSIONS
from modeling.idx import find_idx, read_part

_EXPECTED = "expected a folder per class with images in it, or MNIST idx files (train-images-idx3-ubyte, ...)"
_PART_NAMES = {"train", "training", "test", "testing", "val", "valid", "validation"}

Targets = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Images with their classes: `files` of a folder per class, or `pixels_NHW` of idx files.

    targets: index into `labels` of each image.
    num_train_part: idx: images before this one are the official training part, the rest the test part; None
        where there are no official parts.
    num_ignored: hidden or other files and folders passed over.
    """

    kind: Literal["folders", "idx"]
    path: Path
    labels: tuple[str, ...]
    targets: Targets
    files: tuple[Path, ...] = ()
    pixels_NHW: NDArray[np.uint8] | None = None  # noqa: N815
    num_train_part: int | None = None
    num_ignored: int = 0

    @property
    def num_images(self) -> int:
        """How many images, readable or not."""
        return len(self.targets)


def open_dataset(path: Path) -> Dataset:
    """Look at `path` and list its images; those of a folder are not opened yet.

    Raises:
        DataError: what was found, and what is expected.
    """
    if not path.is_dir():
        raise DataError(f"{path} is {'not a folder' if path.exists() else 'missing'}; {_EXPECTED}")
    for folder in (path, path / "raw", path / "MNIST" / "raw"):  # the last two as torchvision lays it out
        parts = [
            (images, labels)
            for part in ("train", "t10k")
            if (images := find_idx(folder, part, "images-idx3")) and (labels := find_idx(folder, part, "labels-idx1"))
        ]
        if parts:
            return _open_idx(folder, parts)
    return _open_folders(path)


def _open_idx(path: Path, parts: list[tuple[Path, Path]]) -> Dataset:
    loaded = [read_part(images, labels) for images, labels in parts]
    sizes = [pixels_NHW.shape[1:] for pixels_NHW, _ in loaded]
    if len(set(sizes)) > 1:
        raise DataError(f"{path}: training images are {sizes[0]}, test images {sizes[1]}")
    values, targets = np.unique(np.concatenate([targets_N for _, targets_N in loaded]), return_inverse=True)
    labels = tuple(str(value) for value in values)
    _check_num_classes(path, labels)
    return Dataset(
        kind="idx",
        path=path,
        labels=labels,
        targets=targets.astype(np.int64),
        pixels_NHW=np.concatenate([pixels_NHW for pixels_NHW, _ in loaded]),
        num_train_part=len(loaded[0][0]) if len(loaded) == 2 else None,
    )


def _open_folders(path: Path) -> Dataset:
    classes, num_ignored = _class_folders(path)
    files: list[Path] = []
    targets: list[int] = []
    for index, name in enumerate(classes):
        images, ignored = _images_under(path / name)
        num_ignored += ignored
        if not images:
            raise DataError(f"class folder {path / name} holds no images ({ignored} other entries); remove or fill it")
        files += images
        targets += [index] * len(images)
    return Dataset(
        kind="folders",
        path=path,
        labels=classes,
        targets=np.array(targets, dtype=np.int64),
        files=tuple(files),
        num_ignored=num_ignored,
    )


def _class_folders(path: Path) -> tuple[tuple[str, ...], int]:
    """Names of the class folders in order, and how many other entries there are."""
    entries = sorted(entry.name for entry in path.iterdir())
    classes = tuple(name for name in entries if not name.startswith(".") and (path / name).is_dir())
    if classes and {name.lower() for name in classes} <= _PART_NAMES:
        raise DataError(f"{path} holds {', '.join(classes)}: parts, not classes; give one of them")
    _check_num_classes(path, classes)
    if odd := [name for name in classes if not _is_utf8(name)]:
        raise DataError(f"{path}: the name of the class folder {odd[0]!r} is not UTF-8; rename it")
    return classes, len(entries) - len(classes)


def _is_utf8(name: str) -> bool:
    """Whether a name can be a label; names that are no text reach us as lone surrogates (PEP 383)."""
    return not any("\udc80" <= char <= "\udcff" for char in name)


def _check_num_classes(path: Path, classes: tuple[str, ...]) -> None:
    if not classes:
        raise DataError(f"{path} holds no class folders; {_EXPECTED}")
    if len(classes) == 1:
        raise DataError(f"{path} holds one class only ({classes[0]}); training needs two or more; {_EXPECTED}")


def _images_under(folder: Path) -> tuple[list[Path], int]:
    """Image files anywhere under `folder` in a fixed order, and how many other entries were passed over."""
    images, num_ignored = [], 0
    for path in _walk(folder):
        if path.suffix.lower() in IMAGE_EXTENSIONS and not path.name.startswith("."):
            images.append(path)
        else:
            num_ignored += 1
    return images, num_ignored


def _walk(folder: Path) -> Iterator[Path]:
    """Files under `folder`, and the hidden folders that are not entered."""

    def fail(err: OSError) -> None:
        raise DataError(f"{err.filename}: cannot be read ({err.strerror})") from err

    for parent, folders, names in os.walk(folder, onerror=fail):
        folders.sort()
        yield from (Path(parent, name) for name in folders if name.startswith("."))
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in sorted(names))


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Indices of the images in each part, ascending."""

    train: Targets
    validation: Targets
    test: Targets


def split_indices(targets: Targets, *, seed: int, validation: float, test: float) -> Split:
    """A seeded split that gives every part the same share of each class.

    A class always keeps an image for training; from two images up it has one for validation, from three up one
    for the test too (where those shares are above 0).
    """
    generator = np.random.default_rng(seed)
    parts: tuple[list[Targets], ...] = ([], [], [])
    for target in np.unique(targets):
        indices = generator.permutation(np.flatnonzero(targets == target)).astype(np.int64)
        count = len(indices)
        num_test = min(_share(count, test), count - 1) if count >= 3 else 0
        num_validation = min(_share(count, validation), count - num_test - 1)
        bounds = (num_validation, num_validation + num_test)
        for part, chosen in zip(parts, np.split(indices, bounds), strict=True):
            part.append(chosen)
    validation_part, test_part, train_part = (np.sort(np.concatenate(part)) for part in parts)
    return Split(train=train_part, validation=validation_part, test=test_part)


def _share(count: int, fraction: float) -> int:
    return max(1, round(count * fraction)) if fraction > 0 else 0
