"""The listing of a classify job: the path of every image in order, cut into shards.

`listing` holds one JSON string a line (a path may hold a newline, a JSON string cannot), relative to the
job's root. `listing.index` holds one record of fixed width a shard: offset, length and count, so that a
worker reads its shard and nothing else. Both only grow. `listing.json` appears when the listing is complete.
`source.json` keeps how the lister saw the source.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from json.encoder import encode_basestring_ascii
from pathlib import Path
from typing import IO, Self

from modeling.durable import replace_durably, sync_file
from modeling.names import path_to_text, text_to_path
from orchestrator.contract.errors import IntegrityError
from orchestrator.contract.messages import Versioned

_RECORD = "{offset:015d} {length:015d} {count:09d}\n"
_SOURCE_FILE = "source.json"
_RECORD_BYTES = len(_RECORD.format(offset=0, length=0, count=0))
_PATHS_AT_ONCE = 4096


class ListingFacts(Versioned):
    """The facts of a complete listing.

    skipped: files that were left out, by reason: hidden, `.txt`, ...; some dozens of reasons at most.
    """

    num_images: int
    num_shards: int
    sha256: str
    skipped: Mapping[str, int]


class SourceFacts(Versioned):
    """The source as the lister saw it.

    walked: its files were found by reading folders, so all were there; the paths of a list may name none.
    empty: nothing was in the root, as far as it could be read, though a list names files in it.
    mounts: folders below the root that other file systems were mounted at, relative to it.
    device: of the root, as `machine` numbers devices: other machines, and this one once it has started again or in
    another container, may number them otherwise.
    """

    walked: bool
    empty: bool
    mounts: tuple[str, ...]
    machine: str
    device: int

    @classmethod
    def of(cls, root: str, *, walked: bool) -> Self:
        return cls(
            walked=walked,
            empty=not walked and _is_empty(root),
            mounts=_mounts(root),
            machine=_machine(),
            device=_device(root),
        )

    def may_have_moved(self, root: str) -> bool:
        """Whether the root is on another device than it was for the lister, as far as this machine can tell."""
        return self.machine == _machine() and self.device != _device(root)

    def write(self, folder: Path) -> None:
        replace_durably(folder / _SOURCE_FILE, self.model_dump_json(indent=2).encode(), mode=None)


def read_source_facts(folder: Path) -> SourceFacts | None:
    """How the lister saw the source; None for a job of an earlier release."""
    return SourceFacts.read(folder / _SOURCE_FILE)


def _machine() -> str:
    """What devices are numbered by: the start of the system, and the mounts that this process sees."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    return f"{boot} {os.readlink('/proc/self/ns/mnt')}"  # noqa: PTH115


def _mounts(root: str) -> tuple[str, ...]:
    above = os.path.realpath(text_to_path(root)).rstrip("/") + "/"
    lines = os.fsdecode(Path("/proc/self/mountinfo").read_bytes()).splitlines()
    points = (re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), line.split(" ")[4]) for line in lines)
    return tuple(sorted({path_to_text(point.removeprefix(above)) for point in points if point.startswith(above)}))


def _is_empty(root: str) -> bool:
    try:
        with os.scandir(text_to_path(root)) as entries:
            return next(entries, None) is None
    except OSError:
        return False


def _device(root: str) -> int:
    """The number of the root's device; 0 if the root cannot be seen."""
    try:
        return os.stat(text_to_path(root)).st_dev  # noqa: PTH116 the name may not be UTF-8
    except OSError:
        return 0


class PathsDigest:
    """The sha256 of paths as a listing holds them, which is computed for many at once."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._lines: list[str] = []

    def add(self, path: str) -> None:
        """The next path."""
        self.add_line(encode_basestring_ascii(path))  # as json.dumps writes it

    def add_line(self, line: str) -> None:
        """The next path, as JSON."""
        self._lines.append(line)
        if len(self._lines) == _PATHS_AT_ONCE:
            self._flush()

    def hexdigest(self) -> str:
        """Of all paths so far."""
        self._flush()
        return self._sha256.hexdigest()

    def _flush(self) -> None:
        if self._lines:
            self._sha256.update(("\n".join(self._lines) + "\n").encode("ascii"))
            self._lines.clear()


class ListingWriter:
    """Appends paths to a job's listing and counts the shards that can be claimed."""

    def __init__(self, folder: Path, shard_size: int) -> None:
        self._folder = folder
        self._shard_size = shard_size
        self._listing: IO[bytes] = (folder / "listing").open("wb")
        self._index: IO[bytes] = (folder / "listing.index").open("wb")
        self._records: list[bytes] = []  # of shards cut since the last `publish`
        self._lines: list[str] = []
        self._offset = 0
        self._sha256 = hashlib.sha256()
        self.num_images = 0
        self.num_shards = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listing.close()
        self._index.close()

    def add(self, path: str) -> bool:
        """Append one path (as `os.fsdecode` gives it); True when that completed a shard."""
        self._lines.append(json.dumps(path))
        if len(self._lines) < self._shard_size:
            return False
        self._cut()
        return True

    def publish(self) -> None:
        """Make the shards so far durable; only then may they be entered into the ledger."""
        sync_file(self._listing)
        self._index.write(b"".join(self._records))  # last, so that it never refers to paths that are not on the disk
        self._records.clear()
        sync_file(self._index)

    def close(self, skipped: Mapping[str, int]) -> ListingFacts:
        """Cut the last shard and record that the listing is complete."""
        if self._lines:
            self._cut()
        self.publish()
        facts = ListingFacts(
            num_images=self.num_images,
            num_shards=self.num_shards,
            sha256=self._sha256.hexdigest(),
            skipped=dict(sorted(skipped.items())),
        )
        replace_durably(self._folder / "listing.json", facts.model_dump_json(indent=2).encode(), mode=None)
        return facts

    def _cut(self) -> None:
        """Append the collected paths as one shard."""
        data = ("\n".join(self._lines) + "\n").encode()
        self._listing.write(data)
        record = _RECORD.format(offset=self._offset, length=len(data), count=len(self._lines))
        self._records.append(record.encode())
        self._sha256.update(data)
        self._offset += len(data)
        self.num_images += len(self._lines)
        self.num_shards += 1
        self._lines.clear()


def read_shard(folder: Path, shard: int) -> list[str]:
    """The paths of shard `shard`, in order. Raises IntegrityError if the listing does not hold all its paths."""
    data, count = read_lines_of_shard(folder, shard)
    paths = _parse_paths(data)
    if len(paths) != count:
        raise IntegrityError(f"{folder / 'listing'} does not hold the {count} paths of shard {shard}")
    return paths


def read_lines_of_shard(folder: Path, shard: int) -> tuple[bytes, int]:
    """The lines of the listing for shard `shard`, and the number of its paths. Raises IntegrityError, likewise."""
    offset, length, count = _read_record(folder, shard)
    with (folder / "listing").open("rb") as file:
        file.seek(offset)
        data = file.read(length)
    if len(data) != length:
        raise IntegrityError(f"{folder / 'listing'} does not hold the {count} paths of shard {shard}")
    return data, count


def count_shards(folder: Path) -> tuple[int, int]:
    """Number of shards and of images that the index has so far."""
    try:
        size = (folder / "listing.index").stat().st_size
    except FileNotFoundError:
        return 0, 0
    num_shards = size // _RECORD_BYTES
    if num_shards == 0:
        return 0, 0
    first, last = _read_record(folder, 0), _read_record(folder, num_shards - 1)
    return num_shards, first[2] * (num_shards - 1) + last[2]


def read_facts(folder: Path) -> ListingFacts | None:
    """The facts of a complete listing; None while it is being written."""
    return ListingFacts.read(folder / "listing.json")


def listing_is_whole(folder: Path) -> bool:
    """Whether the listing is complete, and what its facts say: read to its end, as its index is."""
    facts = read_facts(folder)
    if facts is None:
        return False
    try:
        with (folder / "listing").open("rb") as file:
            sha256, size = hashlib.file_digest(file, "sha256").hexdigest(), file.tell()
        return sha256 == facts.sha256 and _index_is_whole(folder, facts, size)
    except (FileNotFoundError, IntegrityError):
        return False


def _index_is_whole(folder: Path, facts: ListingFacts, size: int) -> bool:
    """Whether the shards of the index follow each other to the end of the listing, and are as many as its facts say."""
    data = (folder / "listing.index").read_bytes()
    end = num_images = 0
    for shard in range(facts.num_shards):
        offset, length, count = _parse_record(data[shard * _RECORD_BYTES : (shard + 1) * _RECORD_BYTES], folder, shard)
        if offset != end:
            return False
        end, num_images = end + length, num_images + count
    return (end, num_images, len(data)) == (size, facts.num_images, facts.num_shards * _RECORD_BYTES)


def _read_record(folder: Path, shard: int) -> tuple[int, int, int]:
    """Offset, length and count of a shard."""
    with (folder / "listing.index").open("rb") as file:
        file.seek(shard * _RECORD_BYTES)
        return _parse_record(file.read(_RECORD_BYTES), folder, shard)


def _parse_record(record: bytes, folder: Path, shard: int) -> tuple[int, int, int]:
    if len(record) != _RECORD_BYTES:
        raise IntegrityError(f"{folder / 'listing.index'} has no shard {shard}")
    try:
        offset, length, count = map(int, record.split())
    except ValueError as err:
        raise IntegrityError(f"{folder / 'listing.index'} is damaged at shard {shard}") from err
    return offset, length, count


def _parse_paths(data: bytes) -> list[str]:
    """The paths in lines of the listing; empty where the lines are damaged."""
    try:
        # Not by pydantic: there are millions, whose names need not be UTF-8.
        paths: list[str] = json.loads(b"[" + data.rstrip().replace(b"\n", b",") + b"]")
    except ValueError:
        return []
    return paths
