"""Opens CIFAR-10's binary version, which is untrusted input; its pickles are never read.

A record is one byte of label and 3072 bytes of pixels: 32 x 32 of red, then green, then blue, row by row
(https://www.cs.toronto.edu/~kriz/cifar.html).
"""

# Shapes: N images, R records of one file, H and W 32, C 3 channels.
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modeling.data.dataset import TEST, TRAIN, Dataset, Finding
from modeling.errors import DataError

SIDE = 32
RECORD_BYTES = 1 + 3 * SIDE * SIDE
_MAX_RECORDS = 1_000_000  # in one file: the official ones have 10,000
_NUM_CLASSES = 10
_FOLDER, _PICKLES = "cifar-10-batches-bin", "cifar-10-batches-py"
_BATCHES = [f"data_batch_{number}" for number in range(1, 6)]
_TEST_BATCH = "test_batch"


def find_cifar10(path: Path) -> Path | None:
    """The folder with CIFAR-10's binary files, `path` or its subfolder, or None.

    Raises:
        DataError: the folder contains CIFAR-10's pickles instead.
    """
    for folder in (path, path / _FOLDER):
        if any((folder / f"{name}.bin").is_file() for name in (*_BATCHES, _TEST_BATCH)):
            return folder
    for folder in (path, path / _PICKLES):
        if any((folder / name).is_file() for name in (*_BATCHES, _TEST_BATCH)):
            raise DataError(
                f"{folder} holds CIFAR-10 as Python pickles, which are never read, as a pickle can run any program; "
                "give the binary version (cifar-10-binary.tar.gz, unpacked) or a folder per class"
            )
    return None


def open_cifar10(path: Path) -> Dataset:
    """The data set of a folder with `data_batch_1.bin` and so on.

    Raises:
        DataError: a file is missing or not in CIFAR-10's format.
    """
    files = [(TRAIN, file) for name in _BATCHES if (file := path / f"{name}.bin").is_file()]
    if not files:
        raise DataError(f"{path} holds {_TEST_BATCH}.bin and none of data_batch_1.bin to data_batch_5.bin; add them")
    missing = [name for name in _BATCHES if not (path / f"{name}.bin").is_file()]
    if (file := path / f"{_TEST_BATCH}.bin").is_file():
        files.append((TEST, file))
    counts = [_num_records(file) for _, file in files]
    pixels_NHWC = np.empty((sum(counts), SIDE, SIDE, 3), dtype=np.uint8)
    values_N = np.empty(sum(counts), dtype=np.uint8)
    start = 0
    for (_, file), count in zip(files, counts, strict=True):
        chosen = slice(start, start + count)
        _read_records(file, values_N[chosen], pixels_NHWC[chosen])
        start += count
    names = _class_names(path)
    present, targets_N = np.unique(values_N, return_inverse=True)
    parts_N = np.repeat(np.array([part for part, _ in files], dtype=np.int8), counts)
    return Dataset(
        kind="cifar10",
        path=path,
        labels=tuple(names[value] for value in present),
        targets_N=targets_N.astype(np.int64),
        pixels_NHWC=pixels_NHWC,
        parts_N=parts_N if files[-1][0] == TEST else None,
        findings=_missing(missing),
    )


def _missing(names: list[str]) -> tuple[Finding, ...]:
    if not names:
        return ()
    files = ", ".join(f"{name}.bin" for name in names)
    return (Finding("warning", "missing_files", f"{files} of CIFAR-10's five training files are missing; add them"),)


def _num_records(file: Path) -> int:
    """The number of records in a file, from its size."""
    size_bytes = file.stat().st_size
    if not 0 < size_bytes <= _MAX_RECORDS * RECORD_BYTES or size_bytes % RECORD_BYTES:
        raise DataError(f"{file}: {size_bytes} bytes are not records of {RECORD_BYTES}; unpack or fetch it again")
    return size_bytes // RECORD_BYTES


def _read_records(file: Path, values_R: NDArray[np.uint8], pixels_RHWC: NDArray[np.uint8]) -> None:
    """Read a file into the two arrays, whose lengths follow from its size."""
    records = np.fromfile(file, dtype=np.uint8, count=len(values_R) * RECORD_BYTES)
    if len(records) != len(values_R) * RECORD_BYTES:
        raise DataError(f"{file}: became shorter while it was read")
    records = records.reshape(len(values_R), RECORD_BYTES)
    if (largest := int(records[:, 0].max())) >= _NUM_CLASSES:
        raise DataError(f"{file}: a label is {largest}, and CIFAR-10's are 0 to 9; unpack or fetch it again")
    values_R[:] = records[:, 0]
    pixels_RHWC[:] = records[:, 1:].reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)


def _class_names(path: Path) -> list[str]:
    """The ten names of `batches.meta.txt`; numbers if the file does not exist."""
    file = path / "batches.meta.txt"
    if not file.is_file():
        return [str(value) for value in range(_NUM_CLASSES)]
    try:
        names = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as err:
        raise DataError(f"{file} is not UTF-8 text ({err.reason})") from err
    if len(names) != _NUM_CLASSES or len(set(names)) != _NUM_CLASSES:
        raise DataError(f"{file} names {len(set(names))} classes, and CIFAR-10 has {_NUM_CLASSES}")
    return names
