"""Decoded images by index: from memory, or from files that threads read and decode ahead."""

# Shapes: N images of the data set, M chosen images, B images of a batch, H height, W width, C channels.
import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from modeling.data.dataset import Dataset
from modeling.errors import ImageError
from modeling.images.decode import decode_image
from modeling.images.formats import MAX_PIXELS
from modeling.images.loader import load_batches_ahead, read_image_file
from modeling.images.pixels import Pixels, pixels_of, scale_to
from modeling.images.preprocessing import Preprocessing

Indices = NDArray[np.int64]

_AHEAD = 3  # batches that are decoded while one is used


class Images(Protocol):
    """The images of a data set, by index."""

    def batches(self, index_batches: Iterable[Indices]) -> Iterator[Pixels]:
        """uint8 BHWC of each batch of indices, in order."""
        ...


def rows_of(row_N: Indices, indices_B: Indices) -> Indices:
    """The rows of images in memory; `row_N` has -1 for an image that is not in memory.

    Raises:
        IndexError: an image is not in memory.
    """
    rows_B = row_N[indices_B]
    if (absent_B := rows_B < 0).any():
        raise IndexError(f"image {indices_B[absent_B][0]} is not among those in memory")
    return rows_B


class DecodedImages:
    """Images in memory: all images of a data set, or some of them."""

    def __init__(self, pixels_MHWC: Pixels, indices_M: Indices | None = None, num_images: int | None = None) -> None:
        """indices_M: the images' indices in a data set of `num_images`; None: all, in order."""
        self.pixels_MHWC = pixels_MHWC
        self.row_N = np.arange(len(pixels_MHWC), dtype=np.int64)
        if indices_M is not None:
            self.row_N = np.full(num_images or 0, -1, dtype=np.int64)
            self.row_N[indices_M] = np.arange(len(indices_M))

    def batches(self, index_batches: Iterable[Indices]) -> Iterator[Pixels]:
        """uint8 BHWC of each batch of indices, in order."""
        for indices_B in index_batches:
            yield self.pixels_MHWC[rows_of(self.row_N, indices_B)]


class ImageFiles:
    """Images in files: threads read and decode them on demand, a few batches ahead."""

    def __init__(self, load: Callable[[int], Pixels], preprocessing: Preprocessing) -> None:
        """load: pixels HWC of an image by its index, as the preprocessing makes them; called from threads."""
        self._load = load
        self._preprocessing = preprocessing

    def batches(self, index_batches: Iterable[Indices]) -> Iterator[Pixels]:
        """uint8 BHWC of each batch of indices, in order; at most a few batches are in memory."""
        indices = (indices_B.tolist() for indices_B in index_batches)
        for images in load_batches_ahead(indices, self._load, num_ahead=_AHEAD):
            yield np.stack(images) if images else np.zeros((0, *self._preprocessing.shape), dtype=np.uint8)


def load_image(dataset: Dataset, index: int, preprocessing: Preprocessing, *, digest: str | None = None) -> Pixels:
    """Pixels of one image of a data set, HWC.

    digest: sha256 that the file must have; None: any.

    Raises:
        ImageError: it cannot be read, or has another digest.
    """
    if dataset.pixels_NHWC is not None:
        pixels_HWC: Pixels = dataset.pixels_NHWC[index]
        if pixels_HWC.shape == preprocessing.shape and preprocessing.resize is None:
            return pixels_HWC
        picture = Image.fromarray(pixels_HWC[..., 0] if pixels_HWC.shape[2] == 1 else pixels_HWC)
        return scale_to(pixels_of(picture, preprocessing), preprocessing)
    data = read_image_file(dataset.files[index])
    if digest is not None and hashlib.sha256(data).hexdigest() != digest:
        raise ImageError("changed", "its content is not what it was when it was scanned")
    return decode_image(data, preprocessing, max_pixels=MAX_PIXELS)
