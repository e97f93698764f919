"""Where large arrays of a computation are kept: in memory, or in an unnamed file that the system may write out."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

Keep = Callable[[Iterator[NDArray[Any]]], NDArray[Any]]
"""Makes one array of the chunks of its rows."""


def in_memory(chunks: Iterator[NDArray[Any]]) -> NDArray[Any]:
    """The rows of all chunks."""
    return np.concatenate(list(chunks))


class ScratchFile:
    """Rows of one width, written one after another to a file without a name: nothing is left of it, also after a kill.

    What is written is written before it is mapped: a full disk is an OSError here, not the death of the process later.
    """

    def __init__(self, folder: Path, dtype: type[np.generic], width: int) -> None:
        self._folder = folder
        self._file: IO[bytes] = TemporaryFile(dir=folder)  # noqa: SIM115 its life is that of this object
        self._dtype, self._width = np.dtype(dtype), width

    def write(self, row: bytes) -> None:
        """Add rows, as bytes. Raises OSError with the name of the folder."""
        with self._named_errors():
            self._file.write(row)

    def __len__(self) -> int:
        """The number of rows."""
        return self._file.tell() // (self._width * self._dtype.itemsize)

    def mapped(self) -> NDArray[Any]:
        """All rows, as the file holds them; they take no memory that the system cannot have back."""
        with self._named_errors():
            self._file.flush()
        if not len(self):
            return np.empty((0, self._width), dtype=self._dtype)
        return np.memmap(self._file, dtype=self._dtype, mode="r", shape=(len(self), self._width))

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as err:
            err.filename = str(self._folder)  # of a file without a name the system gives none
            raise


def in_file(folder: Path) -> Keep:
    """A `Keep` that keeps arrays in files of that folder."""

    def keep(chunks: Iterator[NDArray[Any]]) -> NDArray[Any]:
        first = next(chunks)
        file = ScratchFile(folder, first.dtype.type, first.shape[1])
        file.write(first.tobytes())
        for chunk in chunks:
            file.write(chunk.tobytes())
        return file.mapped()

    return keep
