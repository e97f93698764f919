"""Deletes kept images of a line that are too old, and the oldest of those that are too many.

Bytes are summed from the indexes, of which only what was appended is read each time; no image is looked at.
"""

import heapq
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from workers.lines.kept_images import INDEX_PREFIX

_FILE = re.compile(r"[0-9a-f]{32}\.image")
_BLOCK = 4096  # of a file system: what a small file takes


class _Kept(NamedTuple):
    """One image of an index. size: in whole blocks."""

    file: str
    size: int
    kept_ms: int


@dataclass(slots=True)
class _Index:
    """One index as far as it was read. counted_to, removed_to: offsets in the file. size: bytes between the two.

    inode: of the file: somebody may move a day away, and a worker makes the file of that name again.
    """

    path: Path
    inode: int
    counted_to: int = 0
    removed_to: int = 0
    size: int = 0


class ImageBounds:
    """The kept images of one line. Two workers may enforce the bounds in turns, or at the same time."""

    def __init__(self, folder: Path) -> None:
        """folder: of the line's images; it may not exist yet."""
        self._folder = folder
        self._indexes: dict[Path, _Index] = {}

    def enforce(self, keep_s: int, most_bytes: int, now: datetime) -> int:
        """Delete what is over the bounds; returns bytes that are left, in blocks of 4 KiB.

        A day's images go when the whole day is too old.
        """
        today = now.astimezone(UTC).date()
        last_kept = (now - timedelta(seconds=keep_s)).astimezone(UTC).date()
        days = self._days()
        for day in [day for day in days if day < last_kept]:
            self._remove_day(days.pop(day))
        present = {path: facts for folder in days.values() for path, facts in _index_files(folder)}
        self._forget_all_but(present)
        for path, facts in present.items():
            self._read(path, facts.st_ino)
        excess = self.size - most_bytes
        for day, folder in days.items():
            if excess <= 0:
                break
            excess -= self._remove_oldest(folder, excess)
            if excess > 0 and day < today:
                self._remove_day(folder)
        return self.size

    @property
    def size(self) -> int:
        """Bytes of all images, as of the last call."""
        return sum(index.size for index in self._indexes.values())

    def _days(self) -> dict[date, Path]:
        """The folders by day, oldest first; others are left alone."""
        found = {}
        for path in self._folder.iterdir() if self._folder.is_dir() else ():
            try:
                found[date.fromisoformat(path.name)] = path
            except ValueError:
                continue
        return dict(sorted(found.items()))

    def _remove_day(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        for path in [path for path in self._indexes if path.parent == folder]:
            del self._indexes[path]

    def _forget_all_but(self, present: Mapping[Path, os.stat_result]) -> None:
        """Forget the indexes that somebody else has removed or replaced: their images count no more."""
        for path, index in list(self._indexes.items()):
            facts = present.get(path)
            if facts is None or facts.st_ino != index.inode or facts.st_size < index.counted_to:
                del self._indexes[path]

    def _read(self, path: Path, inode: int) -> None:
        """Count what was appended to an index."""
        is_new = path not in self._indexes
        index = self._indexes.setdefault(path, _Index(path, inode))
        at_start = is_new  # another worker may have deleted the first ones
        for offset, kept in _lines(path, index.counted_to):
            index.counted_to = offset
            if at_start and not (path.parent / kept.file).exists():
                index.removed_to = offset
            else:
                at_start = False
                index.size += kept.size

    def _remove_oldest(self, folder: Path, excess: int) -> int:
        """Delete images of a day, oldest first, until so many bytes are gone; returns how many are."""
        indexes = [index for index in self._indexes.values() if index.path.parent == folder]
        removed = 0
        for _, offset, number, kept in heapq.merge(*(_counted(number, index) for number, index in enumerate(indexes))):
            if removed >= excess:
                break
            (folder / kept.file).unlink(missing_ok=True)
            indexes[number].removed_to = offset
            indexes[number].size -= kept.size
            removed += kept.size
        return removed


def _index_files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The indexes of a day."""
    for path in folder.glob(f"{INDEX_PREFIX}*.jsonl"):
        with suppress(FileNotFoundError):  # removed just now
            yield path, path.stat()


def _counted(number: int, index: _Index) -> Iterator[tuple[int, int, int, _Kept]]:
    for offset, kept in _lines(index.path, index.removed_to):
        if offset > index.counted_to:
            return
        yield kept.kept_ms, offset, number, kept


def _lines(path: Path, start: int) -> Iterator[tuple[int, _Kept]]:
    """The whole lines of an index from an offset on, each with the offset after it; what is none of ours is skipped."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return  # somebody removed the day just now
    with file:
        file.seek(start)
        for line in file:
            if not line.endswith(b"\n"):
                return  # it is being written
            start += len(line)
            if kept := _kept(line):
                yield start, kept


def _kept(line: bytes) -> _Kept | None:
    """What the bounds need of a line; None where a process died while it wrote it."""
    try:
        value = json.loads(line)  # not by pydantic: a line an image, and half a line counts as none
        kept = _Kept(str(value["file"]), -(-int(value["size"]) // _BLOCK) * _BLOCK, int(value["kept_ms"]))
    except (ValueError, TypeError, KeyError):
        return None
    return kept if _FILE.fullmatch(kept.file) else None
