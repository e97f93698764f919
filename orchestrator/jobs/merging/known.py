"""The images that a sidecar knows, looked up by their paths."""

import mmap
from array import array
from bisect import bisect_left
from pathlib import Path

from orchestrator.contract.jobs.row_bytes import row_offsets
from orchestrator.contract.jobs.sidecar import is_unchanged, line_start, parse_line

Known = tuple[int, bytes, bool]
"""An image's row, its line of the sidecar, and whether that begins as the image as it is now would have it."""

_ROW_BITS = 28  # of an entry of the index; the others are of the path's hash
_HASH_MASK = (1 << 64 - _ROW_BITS) - 1
_PATH_BEGINS, _PATH_ENDS = len(b'{"path": '), b', "size": '


class InOrder:
    """For paths that come in the order of names, as the sidecar has them: lines are read once, and nothing is kept.

    Paths in another order are not all found, and are then classified again: that costs time, and changes no row.
    """

    def __init__(self, sidecar: Path) -> None:
        self._file = sidecar.open("rb")
        self._row = -1
        self._num_passed = 0  # lines of images that are not in the source
        self._next()

    def _next(self) -> None:
        self._row += 1
        self._line = next(self._file, b"")
        self._parts: list[str] | None = None  # of the line's path, once it is needed

    def take_next(self, start: bytes) -> int | None:
        """The row of the next line, if it begins so."""
        if not is_unchanged(self._line, start):
            return None
        self._next()
        return self._row - 1

    def find(self, path: str, start: bytes) -> Known | None:
        """The image's row; `start` is how its line begins if it is unchanged."""
        while self._line:
            known = (self._row, self._line, True)
            if is_unchanged(self._line, start):
                self._next()
                return known
            if self._parts is None:
                self._parts = parse_line(self._line, f"{self._file.name}, line {self._row + 1}").path.split("/")
            parts = path.split("/")
            if self._parts == parts:
                self._next()
                return (*known[:2], False)
            if self._parts > parts:
                return None
            self._num_passed += 1
            self._next()
        return None

    def num_unused(self) -> int:
        """Lines of images that were not asked for; no other is found after this."""
        while self._line:
            self._num_passed += 1
            self._next()
        self._file.close()
        return self._num_passed


class Indexed:
    """For paths in any order: an index of 17 bytes for each line, which are read where they are needed."""

    def __init__(self, sidecar: Path) -> None:
        self._sidecar = sidecar
        self._offsets = row_offsets(sidecar, "jsonl")
        num_lines = len(self._offsets) - 1
        with sidecar.open("rb") as file:
            self._lines = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if num_lines else mmap.mmap(-1, 1)
            entries = [_hash_of(_path_in(line)) << _ROW_BITS | row for row, line in enumerate(file)]
        entries.sort()
        self._index = array("Q", entries)
        self._used = bytearray(num_lines)
        self._next_row = 0  # where the image is in a source that did not change

    def take_next(self, start: bytes) -> int | None:
        """The row behind that of the image before, if its line begins so."""
        row = self._next_row
        if row >= len(self._used) or not is_unchanged(line := self._line(row), start):
            return None
        self._found(row, line, True)
        return row

    def find(self, path: str, start: bytes) -> Known | None:
        """The image's row; `start` is how its line begins if it is unchanged."""
        wanted = _path_in(line_start(path, 0, 0))
        first = _hash_of(wanted) << _ROW_BITS
        for place in range(bisect_left(self._index, first), len(self._index)):
            entry = self._index[place]
            if entry >> _ROW_BITS != first >> _ROW_BITS:
                break
            row = entry & (1 << _ROW_BITS) - 1
            if _path_in(line := self._line(row)) == wanted:
                return self._found(row, line, is_unchanged(line, start))
        return None

    def num_unused(self) -> int:
        """Lines of images that were not asked for."""
        return self._used.count(0)

    def _found(self, row: int, line: bytes, same: bool) -> Known:
        self._used[row] = 1
        self._next_row = row + 1
        return row, line, same

    def _line(self, row: int) -> bytes:
        return self._lines[self._offsets[row] : self._offsets[row + 1]]


def _hash_of(path: bytes) -> int:
    return hash(path) & _HASH_MASK


def _path_in(line: bytes) -> bytes:
    """The path as JSON in a line of the sidecar."""
    return line.partition(_PATH_ENDS)[0][_PATH_BEGINS:]
