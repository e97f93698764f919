"""The usual size of a data set's images, from the headers of a sample: nothing large is decoded."""

import os
import statistics
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from modeling.data.dataset import TRAIN, Dataset
from modeling.errors import ImageError
from modeling.images.cost import before_opening, for_opened
from modeling.images.formats import MAX_PIXELS
from modeling.images.heif import open_image
from modeling.images.loader import read_image_file

NUM_SAMPLED = 200
_SMALL_BYTES = 1 << 18  # what is read of a file at first: its header lies there, or it is small
_MOST_BYTES = 32 << 20  # of a file that is read whole, since its header is elsewhere
_SMALL_SIDE = 64  # px: up to here, colours are looked at, not only the mode
_GREY_MODES = ("1", "L", "LA", "La", "F")
_THREADS = 8  # files on a server come no faster one by one


@dataclass(frozen=True, slots=True)
class SampledImages:
    """What a sample of a data set's images has in common.

    median_side: px, of the longer sides; None: no image could be opened. channels: 1 if all are grey.
    """

    median_side: int | None
    channels: Literal[1, 3]


@dataclass(frozen=True, slots=True)
class _Header:
    side: int
    grey: bool


def sample_images(dataset: Dataset) -> SampledImages:
    """The usual size of the images; the sample is evenly spaced, so the same data give the same answer."""
    if dataset.pixels_NHWC is not None:
        _, height, width, channels = dataset.pixels_NHWC.shape
        return SampledImages(max(height, width), 1 if channels == 1 else 3)
    files = dataset.files[:: max(1, -(-len(dataset.files) // NUM_SAMPLED))]
    with ThreadPoolExecutor(_THREADS) as threads:
        headers = [header for header in threads.map(_header, files) if header is not None]
    if not headers:
        return SampledImages(None, 3)
    side = statistics.median_low(header.side for header in headers)
    return SampledImages(side, 1 if all(header.grey for header in headers) else 3)


def num_learnt(dataset: Dataset, held_out: float) -> int:
    """About how many images a training learns from, if this share of those without an official part is held out."""
    if dataset.parts_N is None:
        return round(dataset.num_images * (1 - held_out))
    return int((dataset.parts_N <= TRAIN).sum())


def _header(path: Path) -> _Header | None:
    """The header of an image; None where it cannot be read: the scan will say why."""
    try:
        size_bytes = path.stat().st_size
        if (found := _parsed(_start_of(path))) is not None or not _SMALL_BYTES < size_bytes <= _MOST_BYTES:
            return found
        return _parsed(read_image_file(path))
    except (OSError, ImageError):
        return None


def _start_of(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # never waits at a pipe
    try:
        return os.read(descriptor, _SMALL_BYTES)
    finally:
        os.close(descriptor)


def _parsed(data: bytes) -> _Header | None:
    try:
        with before_opening(data, MAX_PIXELS), open_image(data) as image:
            side = max(image.size)
            if side > _SMALL_SIDE or _is_grey_mode(image):
                return _Header(side, _is_grey_mode(image))
            with for_opened(image, data, MAX_PIXELS):
                red, green, blue = image.convert("RGB").split()
                return _Header(side, red.tobytes() == green.tobytes() == blue.tobytes())
    except Exception:  # broken files can raise anything; the scan reports them
        return None


def _is_grey_mode(image: Image.Image) -> bool:
    return image.mode in _GREY_MODES or image.mode.startswith("I")
