"""Locks that the processes of the local stack hold as long as they live: they tell what runs.

`up` takes a lock and the process that it starts inherits the descriptor, so the system frees the lock when that process
ends, and not before. Unlike a pid and a start time, that holds in every pid namespace and survives a set clock.
"""

import contextlib
import errno
import fcntl
import os
import time
from pathlib import Path

import psutil

_POLL_S = 0.05
_FILE_IN_FOLDER = "lock"  # for file systems, such as NFS, that lock files only


def take_lock(path: Path) -> int | None:
    """A descriptor that holds the lock of a folder, or of a file that is made; None where a process holds it."""
    folder = path.is_dir()
    flags = os.O_RDONLY | os.O_DIRECTORY if folder else os.O_RDWR | os.O_CREAT
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as err:
        os.close(descriptor)
        if folder and err.errno == errno.EBADF:
            return take_lock(path / _FILE_IN_FOLDER)
        if isinstance(err, BlockingIOError):
            return None
        raise
    return descriptor


def is_locked(path: Path) -> bool:
    """Whether a process, of any namespace, holds the lock."""
    if not path.exists():
        return False
    descriptor = take_lock(path)
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is None


def wait_until_free(paths: list[Path], timeout_s: float) -> None:
    """Wait until nobody holds these locks; returns at the latest after `timeout_s`.

    Helpers inherit a process's lock and end a moment later: multiprocessing's of a worker, a child of the server that
    rewrites its file.
    """
    deadline = time.monotonic() + timeout_s
    while any(map(is_locked, paths)) and time.monotonic() < deadline:
        time.sleep(_POLL_S)


def find_holders(path: Path) -> list[tuple[int, float]]:
    """Pid and start time of the processes that hold the lock, as far as this process may see them."""
    keys = [(facts.st_dev, facts.st_ino) for place in (path, path / _FILE_IN_FOLDER) if (facts := _stat(str(place)))]
    holders = []
    for process in psutil.process_iter() if keys else ():
        if process.pid != os.getpid() and _holds(process.pid, keys):
            with contextlib.suppress(psutil.NoSuchProcess):
                holders.append((process.pid, process.create_time()))
    return holders


def _holds(pid: int, keys: list[tuple[int, int]]) -> bool:
    """Whether a descriptor of this process holds a lock on one of the files, not only has it open."""
    try:
        numbers = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return False  # it has ended, or belongs to another user
    for number in numbers:
        facts = _stat(f"/proc/{pid}/fd/{number}")
        if facts and (facts.st_dev, facts.st_ino) in keys:
            try:
                if "FLOCK" in Path(f"/proc/{pid}/fdinfo/{number}").read_text(encoding="utf-8"):
                    return True
            except OSError:
                continue
    return False


def _stat(path: str) -> os.stat_result | None:
    try:
        return Path(path).stat()
    except OSError:
        return None
