"""Opens MNIST's idx files, which are untrusted input: the header is checked before memory is allocated."""

# Shapes: N images, H height, W width, C channels (1).
import gzip
import math
import zlib
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from modeling.data.dataset import TEST, TRAIN, Dataset
from modeling.errors import DataError

MAX_BYTES = 4 << 30  # of one unpacked idx file: MNIST has 47 MB
_UINT8 = 0x08  # the only element type of images and labels
_SUFFIXES = ("", ".gz")

Files = tuple[Path, Path]
"""The images and the labels of one part."""


def find_idx_parts(path: Path) -> tuple[Path, dict[int, Files]] | None:
    """The folder with idx files (`path`, or torchvision's subfolder of it) and its parts; None if there are none."""
    for folder in (path, path / "raw", path / "MNIST" / "raw"):
        found = {
            part: (images, labels)
            for part, stem in ((TRAIN, "train"), (TEST, "t10k"))
            if (images := _find(folder, stem, "images-idx3")) and (labels := _find(folder, stem, "labels-idx1"))
        }
        if found:
            return folder, found
    return None


def open_idx(path: Path, parts: dict[int, Files]) -> Dataset:
    """The data set of idx files; with a single part, there are no official test images.

    Raises:
        DataError: a file's content does not match its header, or two files do not match each other.
    """
    loaded = {part: read_part(*files) for part, files in sorted(parts.items())}
    sizes = [pixels_NHW.shape[1:] for pixels_NHW, _ in loaded.values()]
    if len(set(sizes)) > 1:
        raise DataError(f"{path}: training images are {sizes[0]}, test images {sizes[1]}")
    values, targets_N = np.unique(np.concatenate([labels_N for _, labels_N in loaded.values()]), return_inverse=True)
    labels = tuple(str(value) for value in values)
    counts = [len(pixels_NHW) for pixels_NHW, _ in loaded.values()]
    return Dataset(
        kind="idx",
        path=path,
        labels=labels,
        targets_N=targets_N.astype(np.int64),
        pixels_NHWC=np.concatenate([pixels_NHW for pixels_NHW, _ in loaded.values()])[..., np.newaxis],
        parts_N=np.repeat(np.array(list(loaded), dtype=np.int8), counts) if len(loaded) > 1 else None,
    )


def _find(folder: Path, stem: str, kind: str) -> Path | None:
    """The idx file of a part (train, t10k) and `kind` (images-idx3, labels-idx1) in `folder`, or None."""
    stem = f"{stem}-{kind}-ubyte"
    paths = (folder / (name + suffix) for name in (stem, stem.replace("-idx", ".idx")) for suffix in _SUFFIXES)
    return next((path for path in paths if path.is_file()), None)


def read_part(images: Path, labels: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images NHW and labels N of one part.

    Raises:
        DataError: a file's content does not match its header, or the two files do not match each other.
    """
    pixels_NHW, targets_N = read_idx(images, num_dims=3), read_idx(labels, num_dims=1)
    if len(pixels_NHW) != len(targets_N):
        raise DataError(f"{images} has {len(pixels_NHW)} images, {labels} {len(targets_N)} labels")
    return pixels_NHW, targets_N


def read_idx(path: Path, num_dims: int) -> NDArray[np.uint8]:
    """The array of bytes in an idx file, gzipped or not.

    Raises:
        DataError: not an idx file, or its size does not match its header.
    """
    try:
        with _open(path) as file:
            shape = _read_shape(file, path, num_dims)
            size_bytes = math.prod(shape)
            data = file.read(size_bytes + 1)
    except (OSError, EOFError, zlib.error) as err:
        raise DataError(f"{path}: cannot be read ({err})") from err
    if len(data) != size_bytes:
        found = "more" if len(data) > size_bytes else f"{len(data)}"
        raise DataError(f"{path}: the header says {shape}, {size_bytes} bytes; the file holds {found}")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)


def _open(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path, "rb")) if path.suffix == ".gz" else open(path, "rb")


def _read_shape(file: IO[bytes], path: Path, num_dims: int) -> tuple[int, ...]:
    magic = file.read(4)
    if magic != bytes((0, 0, _UINT8, num_dims)):
        raise DataError(f"{path}: not an idx file of bytes in {num_dims} dimensions (begins {magic.hex() or 'empty'})")
    header = file.read(4 * num_dims)
    if len(header) != 4 * num_dims:
        raise DataError(f"{path}: ends within its header")
    shape = tuple(int.from_bytes(header[i : i + 4], "big") for i in range(0, len(header), 4))
    if not 0 < math.prod(shape) <= MAX_BYTES:
        raise DataError(f"{path}: the header says {shape}, which is not 1 to {MAX_BYTES} bytes")
    return shape
