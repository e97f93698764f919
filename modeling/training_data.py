"""A data set as pixels in memory: its preprocessing chosen, every image decoded, and split into parts."""

# Shapes: N images, H height, W width, C channels.
import io
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from modeling.datasets import Dataset, Split, Targets, split_indices
from modeling.decode import decode_image
from modeling.errors import DataError, ImageError
from modeling.formats import MAX_PIXELS, READABLE_FORMATS
from modeling.pixels import Pixels, fit, to_mode
from modeling.preprocessing import Preprocessing
from modeling.train_request import MIN_IMAGE_SIZE, TrainRequest

MAX_TENSOR_BYTES = 8 << 30  # all pixels are held in memory
_SAMPLE = 200  # images looked at to choose size and mode
_SMALL = 64  # px: the side up to which images keep their own size, and the default side of larger ones
_MAX_LISTED = 20  # skipped images named in events and card; all are counted
_PROGRESS_S = 0.5

Emit = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True, eq=False)
class TrainingData:
    """Decoded images, their classes and their split. `skipped`: files that cannot be read, and why."""

    pixels_NHWC: Pixels  # noqa: N815
    targets: Targets
    labels: tuple[str, ...]
    split: Split
    preprocessing: Preprocessing
    skipped: list[tuple[str, str]]


def load_training_data(dataset: Dataset, request: TrainRequest, emit: Emit) -> TrainingData:
    """Decode and split a data set.

    Raises:
        DataError: too large for memory, or a class of which no image can be read.
    """
    preprocessing = choose_preprocessing(dataset, request.image_size)
    pixels_NHWC, errors = _decode_all(dataset, preprocessing, emit)
    kept = np.array([error is None for error in errors], dtype=bool)
    skipped = [
        (str(dataset.files[index].relative_to(dataset.path)), str(error))
        for index, error in enumerate(errors)
        if error is not None
    ]
    targets = dataset.targets[kept]
    _check_classes(dataset, targets, skipped)
    split = _split(dataset, targets, request)
    if skipped:  # the copy is made only where something is missing
        pixels_NHWC = pixels_NHWC[kept]
    mean, std = measure(pixels_NHWC, split.train)
    preprocessing = replace(preprocessing, mean=mean, std=std)
    return TrainingData(pixels_NHWC, targets, dataset.labels, split, preprocessing, skipped)


def choose_preprocessing(dataset: Dataset, image_size: int | None) -> Preprocessing:
    """Size and mode that suit the data; mean and std are yet to be measured.

    idx files: grey, their own size. Folders, by a sample: their own size where all have the same and it is
    small, grey where all are grey; else 64 x 64 RGB. `image_size` overrides the size.
    """
    mode: Literal["L", "RGB"]
    if dataset.pixels_NHW is not None:
        mode, (height, width) = "L", dataset.pixels_NHW.shape[1:]
        if min(height, width) < MIN_IMAGE_SIZE or max(height, width) > _SMALL:
            height = width = _SMALL
    else:
        sizes, grey = _sample(dataset.files)
        mode = "L" if grey else "RGB"
        width, height = next(iter(sizes)) if len(sizes) == 1 else (_SMALL, _SMALL)
        if min(height, width) < MIN_IMAGE_SIZE or max(height, width) > _SMALL:
            height = width = _SMALL
    return Preprocessing(mode, image_size or height, image_size or width)


def _sample(files: Sequence[Path]) -> tuple[set[tuple[int, int]], bool]:
    """Sizes (width, height) of some files spread over all, and whether all of those are grey."""
    sizes: set[tuple[int, int]] = set()
    grey = True
    for path in files[:: max(1, len(files) // _SAMPLE)]:
        try:
            with Image.open(io.BytesIO(path.read_bytes()), formats=READABLE_FORMATS) as image:
                sizes.add(image.size)
                grey = grey and _is_grey(image)
        except Exception:  # noqa: S112  # broken files raise anything; decoding will say what it is
            continue
    return sizes, grey and bool(sizes)


def _is_grey(image: Image.Image) -> bool:
    if image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I"):
        return True
    if max(image.size) > _SMALL * 16:
        return False  # a large colour mode is not worth decoding here
    red, green, blue = image.convert("RGB").split()
    return red.tobytes() == green.tobytes() == blue.tobytes()


def _decode_all(dataset: Dataset, preprocessing: Preprocessing, emit: Emit) -> tuple[Pixels, list[ImageError | None]]:
    """Pixels of every image (zeros where it failed), and why it failed."""
    size_bytes = dataset.num_images * int(np.prod(preprocessing.shape))
    if size_bytes > MAX_TENSOR_BYTES:
        raise DataError(
            f"{dataset.num_images} images of {preprocessing.shape} take {size_bytes >> 20} MiB, more than "
            f"{MAX_TENSOR_BYTES >> 20}; give a smaller image size or fewer images"
        )
    if dataset.pixels_NHW is not None and dataset.pixels_NHW.shape[1:] == preprocessing.shape[:2]:
        return dataset.pixels_NHW[..., np.newaxis], [None] * dataset.num_images
    pixels_NHWC = np.zeros((dataset.num_images, *preprocessing.shape), dtype=np.uint8)

    def decode(index: int) -> ImageError | None:
        try:
            pixels_NHWC[index] = _load_image(dataset, index, preprocessing)
        except ImageError as err:
            return err
        return None

    errors: list[ImageError | None] = []
    reported = time.monotonic()
    with ThreadPoolExecutor(min(8, len(os.sched_getaffinity(0)))) as pool:
        for error in pool.map(decode, range(dataset.num_images)):
            errors.append(error)
            if time.monotonic() - reported >= _PROGRESS_S:
                reported = time.monotonic()
                emit({"event": "decode", "num_done": len(errors), "num_images": dataset.num_images})
    emit({"event": "decode", "num_done": len(errors), "num_images": dataset.num_images})
    return pixels_NHWC, errors


def _load_image(dataset: Dataset, index: int, preprocessing: Preprocessing) -> Pixels:
    if dataset.pixels_NHW is not None:
        return fit(to_mode(Image.fromarray(dataset.pixels_NHW[index]), preprocessing), preprocessing)
    try:
        data = dataset.files[index].read_bytes()
    except OSError as err:
        raise ImageError("unreadable", err.strerror or type(err).__name__) from err
    return decode_image(data, preprocessing, max_pixels=MAX_PIXELS)


def _check_classes(dataset: Dataset, targets: Targets, skipped: Sequence[tuple[str, str]]) -> None:
    empty = [label for index, label in enumerate(dataset.labels) if not (targets == index).any()]
    if empty:
        example = f"; for one, {skipped[0][0]}: {skipped[0][1]}" if skipped else ""
        raise DataError(f"no image of class {', '.join(empty)} in {dataset.path} can be read{example}")


def _split(dataset: Dataset, targets: Targets, request: TrainRequest) -> Split:
    if dataset.num_train_part is None:
        return split_indices(targets, seed=request.seed, validation=request.validation, test=request.test)
    official = np.arange(dataset.num_train_part, len(targets), dtype=np.int64)
    rest = split_indices(targets[: dataset.num_train_part], seed=request.seed, validation=request.validation, test=0.0)
    return replace(rest, test=official)


def measure(pixels_NHWC: Pixels, indices: NDArray[np.int64]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over the chosen images, for pixels in [0, 1]; exact."""
    levels = np.arange(256) / 255.0
    means, stds = [], []
    for channel in range(pixels_NHWC.shape[3]):
        counts = np.zeros(256, dtype=np.int64)
        for start in range(0, len(indices), 1024):
            chosen = pixels_NHWC[indices[start : start + 1024], :, :, channel]
            counts += np.bincount(chosen.ravel(), minlength=256)
        shares = counts / counts.sum()
        mean = float(shares @ levels)
        means.append(round(mean, 6))
        stds.append(round(max(float(np.sqrt(shares @ (levels - mean) ** 2)), 1 / 255), 6))
    return tuple(means), tuple(stds)


def describe(data: TrainingData, dataset: Dataset) -> dict[str, Any]:
    """What the data are, for the `data` event and the model's card."""
    counts = np.bincount(data.targets, minlength=len(data.labels)).tolist()
    return {
        "path": str(dataset.path),
        "kind": dataset.kind,
        "classes": dict(zip(data.labels, counts, strict=True)),
        "num_images": len(data.targets),
        "num_skipped": len(data.skipped),
        "skipped": [list(entry) for entry in data.skipped[:_MAX_LISTED]],
        "num_ignored": dataset.num_ignored,
        "num_train": len(data.split.train),
        "num_validation": len(data.split.validation),
        "num_test": len(data.split.test),
    }
