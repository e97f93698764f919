"""What lies in `in/`, and what of it is complete: unchanged in two polls. Polling works on every file system.

Events of the system would not: none come for what another machine writes to an NFS or SMB share.
"""

import hashlib
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from modeling.names import is_junk
from orchestrator.hot_folder.folders import MARKER

Kind = Literal["image", "zip", "folder", "other"]
Snapshot = tuple[int, ...]
UNFINISHED = (".tmp", ".part", ".partial", ".filepart", ".crdownload")  # of programs that copy; they rename at the end
FOLDER_SETTLES_S = 5.0  # a folder grows file by file, with pauses
SMALL_SETTLES_S = 60.0  # a file below the least size may be one that is about to be written
DEEPEST = 64  # folders within one another


@dataclass(frozen=True, slots=True)
class Ready:
    """Something in `in/` that is complete. snapshot: how it looked."""

    name: str
    kind: Kind
    snapshot: Snapshot = field(default=(), compare=False)


@dataclass(slots=True)
class _Seen:
    snapshot: Snapshot
    since: float  # of the monotonic clock: unchanged since then
    given: bool = False


class _HotFolderInsideError(Exception):
    """A folder in `in/` holds a hot folder, whose files would go round."""


class Watcher:
    """Polls `in/`. What was given once is given again only if it changed, or after `forget`."""

    def __init__(self, incoming: Path, min_bytes: int, now: Callable[[], float] = time.monotonic) -> None:
        self._incoming = incoming
        self._min_bytes = min_bytes
        self._now = now
        self._seen: dict[str, _Seen] = {}
        self._failed: dict[str, str] = {}  # what the last poll could not read, and why
        self.num_waiting = 0  # that are not complete yet
        self.unreadable: dict[str, str] = {}  # what two polls in a row could not read, and why

    def poll(self) -> list[Ready]:
        """What is complete since the last poll, the oldest first. Raises OSError where `in/` cannot be read."""
        seen: dict[str, _Seen] = {}
        failed: dict[str, str] = {}
        ready: list[tuple[int, Ready]] = []
        self.num_waiting = 0
        with os.scandir(self._incoming) as entries:
            for entry in entries:
                if is_left_alone(entry.name):
                    continue
                try:
                    facts = entry.stat(follow_symlinks=False)
                    snapshot = _snapshot(entry, facts)
                except (FileNotFoundError, _HotFolderInsideError):
                    continue
                except OSError as err:
                    failed[entry.name] = err.strerror or str(err)
                    continue
                if snapshot is None:
                    continue
                seen[entry.name] = self._look(entry.name, snapshot)
                if seen[entry.name].given:
                    continue
                if self._is_complete(seen[entry.name], facts):
                    seen[entry.name].given = True
                    ready.append((facts.st_mtime_ns, Ready(entry.name, _kind(entry.name, facts), snapshot)))
                else:
                    self.num_waiting += 1
        self._seen = seen
        self._note_failed(failed)
        return [found for _, found in sorted(ready, key=lambda pair: (pair[0], pair[1].name))]

    def _note_failed(self, failed: dict[str, str]) -> None:
        """What cannot be read for the first time counts as waiting: it may be a moment's trouble."""
        self.unreadable = {name: why for name, why in failed.items() if name in self._failed}
        self.num_waiting += len(failed) - len(self.unreadable)
        self._failed = failed

    def forget(self, name: str) -> None:
        """What was given is looked at anew, if it is in `in/`: it could not be claimed, or will come back."""
        self._seen.pop(name, None)

    def _look(self, name: str, snapshot: Snapshot) -> _Seen:
        before = self._seen.get(name)
        return before if before and before.snapshot == snapshot else _Seen(snapshot, self._now(), given=False)

    def _is_complete(self, seen: _Seen, facts: os.stat_result) -> bool:
        unchanged_s = self._now() - seen.since
        if stat.S_ISDIR(facts.st_mode):
            return unchanged_s >= FOLDER_SETTLES_S
        if stat.S_ISREG(facts.st_mode) and facts.st_size < self._min_bytes:
            return unchanged_s >= SMALL_SETTLES_S
        return unchanged_s > 0


def is_left_alone(name: str) -> bool:
    """Whether a name says that this is not a file of the user's, or not yet."""
    return name.startswith((".", "~$")) or name.lower().endswith(UNFINISHED) or is_junk(name)


def _kind(name: str, facts: os.stat_result) -> Kind:
    if stat.S_ISDIR(facts.st_mode):
        return "folder"
    if not stat.S_ISREG(facts.st_mode):
        return "other"
    return "zip" if name.lower().endswith(".zip") else "image"


def snapshot_of(path: Path) -> Snapshot | None:
    """Differs when a file, or anything in a folder, was changed; None where nothing is there."""
    try:
        facts = path.lstat()
        if stat.S_ISDIR(facts.st_mode):
            return _snapshot_of_tree(str(path))
    except (FileNotFoundError, _HotFolderInsideError):
        return None
    return facts.st_ino, facts.st_size, facts.st_mtime_ns


def _snapshot(entry: "os.DirEntry[str]", facts: os.stat_result) -> Snapshot | None:
    """Differs when anything was added or changed; None for an empty folder, which somebody is about to fill."""
    if not stat.S_ISDIR(facts.st_mode):
        return facts.st_ino, facts.st_size, facts.st_mtime_ns
    return _snapshot_of_tree(entry.path)


def _snapshot_of_tree(path: str, depth: int = 0) -> Snapshot | None:
    """Counts, bytes and the newest time below a folder, and its names and times in one number."""
    num_files = num_bytes = newest = folded = 0
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name == MARKER:
                raise _HotFolderInsideError
            facts = entry.stat(follow_symlinks=False)
            inner: Snapshot | None = (1, facts.st_size, facts.st_mtime_ns, 0)
            if stat.S_ISDIR(facts.st_mode):
                inner = _snapshot_of_tree(entry.path, depth + 1) if depth < DEEPEST else None
                if inner is None:
                    continue
            assert inner is not None
            num_files, num_bytes, newest = num_files + inner[0], num_bytes + inner[1], max(newest, inner[2])
            folded ^= _hash_of(entry.name, inner)
    return (num_files, num_bytes, newest, folded) if num_files else None


def _hash_of(name: str, snapshot: Snapshot) -> int:
    """The same in every process, as a snapshot is kept; the hashes of strings are not."""
    return int.from_bytes(hashlib.blake2b(os.fsencode(name) + repr(snapshot).encode(), digest_size=8).digest())
