"""Answers that have left the server: files of the home, found by key among millions.

`lines/NAME/answers/` holds segments, which never change; `archive_files.py` writes and merges them. A segment is the
records, one a line, then the sorted 64-bit hashes of their keys, where each record begins, and a footer. It is mapped
into memory, so a search reads some cache lines of it and costs no memory of the process.

A network file system may show a folder as it was up to a minute ago: so long after an answer has moved, another machine
may not find it, and a worker there answers the same item anew. The older record counts then.
"""

import json
import logging
import mmap
import os
import struct
import threading
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Self

from orchestrator.contract.errors import MessageError

logger = logging.getLogger(__name__)

SUFFIX = ".answers"
MAGIC = b"PHansw01"
# magic, number of records, where the hashes begin, bytes of the names of replaced segments, first and last time in ms
FOOTER = struct.Struct("<8sQQQQQ")
_TICK_NS, _COARSE_TICK_NS = 100_000_000, 2_000_000_000  # a folder's time may stay the same over two changes so near
_READ_AGAIN_NS = 30_000_000_000  # a file server's clock may be another


class DamagedSegmentError(MessageError):
    """A file of answers that is none, or not whole."""


def key_hash(key: str) -> int:
    """64 bits of a key. Two keys may share it: who finds a record compares the key."""
    return int.from_bytes(blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """A file of answers, mapped. first_ms, last_ms: when its answers were given. replaces: names of merged segments."""

    path: Path
    data: memoryview
    hashes: memoryview
    offsets: memoryview
    first_ms: int
    last_ms: int
    replaces: tuple[str, ...]

    @classmethod
    def open(cls, path: Path) -> Self:
        """Raises DamagedSegmentError, or FileNotFoundError where it was merged or has expired."""
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size < FOOTER.size:
                raise DamagedSegmentError(f"{path} is not a file of answers: it is too short")
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        view = memoryview(mapped)
        magic, num, hashes_at, names, first_ms, last_ms = FOOTER.unpack(view[-FOOTER.size :])
        offsets_at, names_at = hashes_at + 8 * num, hashes_at + 16 * num
        if magic != MAGIC or names_at + names + FOOTER.size != len(view):
            raise DamagedSegmentError(f"{path} is not a whole file of answers; its answers cannot be looked up")
        page = hashes_at // mmap.PAGESIZE * mmap.PAGESIZE
        mapped.madvise(mmap.MADV_WILLNEED, page, offsets_at - page)  # a search on a cold disk would read page by page
        replaces = tuple(json.loads(bytes(view[names_at : names_at + names])))
        hashes, offsets = view[hashes_at:offsets_at].cast("Q"), view[offsets_at:names_at].cast("Q")
        return cls(path, view[:hashes_at], hashes, offsets, first_ms, last_ms, replaces)

    def __len__(self) -> int:
        return len(self.hashes)

    def lines(self, wanted: int) -> Iterator[bytes]:
        """The records whose key has this hash, oldest first."""
        place = bisect_left(self.hashes, wanted)
        while place < len(self.hashes) and self.hashes[place] == wanted:
            yield self._line(self.offsets[place])
            place += 1

    def _line(self, start: int) -> bytes:
        found = self.data.obj
        assert isinstance(found, mmap.mmap)
        return found[start : found.find(b"\n", start)]


class AnswerArchive:
    """The answers of one line in its home; safe to share between threads, and cheap where a key is not there."""

    def __init__(self, folder: Path) -> None:
        """folder: of the line's answers; it may not exist yet."""
        self.folder = folder
        self._segments: list[Segment] = []
        self._damaged: set[str] = set()
        self._lock = threading.Lock()
        self._changed_ns = self._listed_ns = 0

    def find(self, key: str) -> bytes | None:
        """The record of a key with what was reported later; None where there is none. The oldest record counts."""
        return combined(self.entries(key))

    def find_seen(self, keys: Iterable[str]) -> dict[str, bytes]:
        """The records of those keys that have one in the files as `segments` saw them last: no folder is read."""
        segments = self._segments
        found = {key: combined(_entries(segments, key)) for key in keys}
        return {key: record for key, record in found.items() if record is not None}

    def entries(self, key: str) -> list[bytes]:
        """All that is known of a key, oldest first: records, and reports that came after a record had moved."""
        return _entries(self.segments(), key)

    def segments(self) -> list[Segment]:
        """Its files as they are now, oldest first."""
        with self._lock:
            self._refresh()
            return self._segments

    def _refresh(self) -> None:
        """Read the folder again, unless it cannot have changed since."""
        listed_ns = time.time_ns()
        try:
            changed_ns = self.folder.stat().st_mtime_ns
        except FileNotFoundError:
            self._segments, self._changed_ns = [], 0
            return
        tick_ns = _TICK_NS if changed_ns % 1_000_000_000 else _COARSE_TICK_NS
        listed_later = self._listed_ns - changed_ns > tick_ns
        if changed_ns == self._changed_ns and listed_later and listed_ns - self._listed_ns < _READ_AGAIN_NS:
            return
        known = {segment.path.name: segment for segment in self._segments}
        opened = [known.get(name) or self._open(name) for name in segment_names(self.folder)]
        self._segments = [segment for segment in opened if segment is not None]
        self._changed_ns, self._listed_ns = changed_ns, listed_ns

    def _open(self, name: str) -> Segment | None:
        """A segment; None where it is gone (its successor was there before) or damaged, which is logged once."""
        if name in self._damaged:
            return None
        try:
            return Segment.open(self.folder / name)
        except FileNotFoundError:
            return None
        except DamagedSegmentError as err:
            logger.warning("%s", err)
            self._damaged.add(name)
            return None


def _entries(segments: Sequence[Segment], key: str) -> list[bytes]:
    wanted = key_hash(key)
    found = [line for segment in segments for line in segment.lines(wanted)]
    return [line for line in found if _key_of(line) == key]


def segment_names(folder: Path) -> list[str]:
    """The names of a folder's segments, oldest first; none where there is no folder."""
    try:
        return sorted(name for name in os.listdir(folder) if name.endswith(SUFFIX) and not name.startswith("."))
    except FileNotFoundError:
        return []


# Records


def _key_of(line: bytes) -> str | None:
    """None where it is not a record: a client that is none of ours may have given half of it."""
    try:
        value = json.loads(line)  # not by pydantic: a line an item, and half a line counts as none
    except ValueError:
        return None
    return value.get("key") if isinstance(value, dict) else None


def combined(entries: Sequence[bytes]) -> bytes | None:
    """One record of all that is known of a key, oldest first: its oldest record with the latest reports.

    A later record is what a client was told where neither the server nor a worker knew the first any more: no worker
    lived, or it was refused until its deadline.
    """
    values = [json.loads(entry) for entry in entries]  # not by pydantic: what is not asked for here is kept as it is
    records = [place for place, value in enumerate(values) if "bin" in value]
    if not records:
        return None
    oldest = min(records, key=lambda place: values[place].get("answered_ms", 0))
    discharged = delivered = ""
    for value in values:
        discharged = value.get("discharged") or discharged
        delivered = value.get("delivered") or delivered
        if value.get("bin", values[oldest]["bin"]) != values[oldest]["bin"]:
            delivered = value["bin"]
    return with_reports(
        entries[oldest],
        discharged if discharged != values[oldest].get("discharged") else "",
        delivered if delivered != values[oldest].get("delivered") else "",
    )


def with_reports(record: bytes, discharged: str, delivered: str) -> bytes:
    """A record with reports added, '' for none. Its own bytes stay: scripts look for the digest in them.

    Of two keys of one name in JSON the last counts.
    """
    for name, report in (("discharged", discharged), ("delivered", delivered)):
        if report:
            record = record[:-1] + f",{json.dumps(name)}:{json.dumps(report)}}}".encode()
    return record
