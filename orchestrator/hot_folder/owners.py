"""Which processes work on a hot folder, also on other machines: so that what a dead one had claimed is finished.

Each has a record in `working/`: a file whose count rises every few seconds. A record whose count stands still for
`LEASE_S`, by the observer's own clock, is a dead owner's. On one machine a lock on the record says so at once. The dead
owner's claims belong to the process that renames its record first.

An owner that was only frozen, or cut off, may wake up and finish a claim that another has taken: both do the same then,
and every step of finishing is made once (`claims.py`). So a lease that is wrong costs time, and no file is done twice.
"""

import contextlib
import fcntl
import json
import logging
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from modeling.durable import temporary_beside

logger = logging.getLogger(__name__)

HEARTBEAT_S = 3.0
LEASE_S = 15.0  # five heartbeats: a share may be slow
_PREFIX = ".owner-"
_JOINT = "+"  # `.owner-A+B`: B finishes what A had claimed


def new_owner() -> str:
    """Sorts by time, and is unique."""
    return f"{int(time.time()):08x}{secrets.token_hex(3)}"


@dataclass(slots=True)
class _Watched:
    content: bytes
    since: float


class Owner:
    """This process's record, and its view of the others."""

    def __init__(self, working: Path, now: Callable[[], float] = time.monotonic) -> None:
        self._working = working
        self._now = now
        self._count = 0
        self._boot = ""
        self._descriptor: int | None = None
        self._watched: dict[str, _Watched] = {}
        self.name = ""
        self._enter()

    def heartbeat(self) -> None:
        """Say that this process lives. Where others took it for dead it gets a new name."""
        try:
            self._write()
        except FileNotFoundError:
            logger.warning("hot folder %s: others took this process for dead; it goes on", self._working.parent)
            self._release()
            self._enter()

    def adopt(self) -> set[str]:
        """The names of dead owners whose claims are this process's to finish; also those adopted before."""
        records = self._records()
        known = {name for record in records for name in record}
        self._watched = {name: watched for name, watched in self._watched.items() if name in known}
        for dead, adopter in records:
            if adopter != self.name and dead != self.name and not self._lives(adopter or dead):
                with contextlib.suppress(FileNotFoundError):  # another was first
                    self._record_of(dead, adopter).rename(self._record_of(dead, self.name))
        return {dead for dead, adopter in self._records() if adopter == self.name}

    def adopt_unknown(self, owner: str) -> bool:
        """Make a record for an owner that has none, as if it had died; whether this process was the first to."""
        if any(self._working.glob(f"{_PREFIX}{owner}*")):
            return False
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self._record_of(owner, self.name), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
            return True
        return False

    def forget(self, dead: str) -> None:
        """All claims of a dead owner are finished."""
        self._record_of(dead, self.name).unlink(missing_ok=True)
        self._watched.pop(dead, None)

    def leave(self, *, claims_left: bool) -> None:
        """End; the record stays where claims are left, and without its lock others see at once that it is dead."""
        if not claims_left:
            self._record_of(self.name).unlink(missing_ok=True)
        self._release()

    def _enter(self) -> None:
        self.name = new_owner()
        record = self._record_of(self.name)
        with temporary_beside(record) as temporary:
            self._descriptor = os.open(temporary, os.O_RDWR)
            self._boot = _boot_id() if _locked(self._descriptor) else ""
            self._put(self._descriptor)
            temporary.rename(record)

    def _write(self) -> None:
        """Through the path, not the descriptor: a record that was renamed is this process's no longer."""
        self._count += 1
        descriptor = os.open(self._record_of(self.name), os.O_RDWR)
        try:
            self._put(descriptor)
        finally:
            os.close(descriptor)

    def _put(self, descriptor: int) -> None:
        os.pwrite(descriptor, json.dumps({"boot": self._boot, "count": f"{self._count:012d}"}).encode(), 0)

    def _release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _records(self) -> list[tuple[str, str]]:
        """All owners, each with its adopter; empty where it has none."""
        names = (path.name.removeprefix(_PREFIX) for path in self._working.glob(f"{_PREFIX}*"))
        return [(owner, adopter) for owner, _, adopter in (name.partition(_JOINT) for name in names)]

    def _record_of(self, owner: str, adopter: str = "") -> Path:
        return self._working / (_PREFIX + owner + (_JOINT + adopter if adopter else ""))

    def _lives(self, owner: str) -> bool:
        if owner == self.name:
            return True
        record = self._record_of(owner)
        try:
            content = record.read_bytes()  # opening a file asks the server of a share for its present content
        except FileNotFoundError:
            return False
        watched = self._watched.get(owner)
        if watched is None or watched.content != content:
            watched = self._watched[owner] = _Watched(content, self._now())
        if self._now() - watched.since > LEASE_S:
            return False
        return not (_boot_of(content) == _boot_id() and _is_free(record))


def _locked(descriptor: int) -> bool:
    """Whether the lock could be taken: not every file system has them."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_free(record: Path) -> bool:
    """Whether no process of this machine holds the lock of a record."""
    try:
        descriptor = os.open(record, os.O_RDWR)
    except OSError:
        return False
    try:
        return _locked(descriptor)
    finally:
        os.close(descriptor)


def _boot_of(content: bytes) -> str:
    """The machine and its start that a record names; empty where its lock says nothing."""
    with contextlib.suppress(ValueError, AttributeError):
        return str(json.loads(content).get("boot", ""))  # not by pydantic: half a record names no machine
    return ""


def _boot_id() -> str:
    """Of this machine since its last start: processes that share it share their locks. Never equal to an empty one."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"
