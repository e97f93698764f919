"""Log files of the local stack: bounded in size and number whatever writes to them, and no line is lost.

A worker's parent and its pool child append to one file, and so do libraries below Python, through the descriptors 1 and
2. A file that has grown is renamed (`NAME.log.1`, the newest of the old ones), which changes no open descriptor: what a
process still writes is in the renamed file. Each process then moves its own descriptors to the new file. Pipes through
one writer would be simpler, but a writer that is frozen or killed would block its worker or lose its last words.

Only `up` names a log file. Elsewhere logs go to standard error, which a supervisor keeps and bounds.
"""

import contextlib
import fcntl
import logging
import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

from orchestrator.contract.ledger.periodic_call import PeriodicCall

logger = logging.getLogger(__name__)

LOG_ENVIRONMENT = "PIGEONHOLE_LOG_FILE"  # set by `up` for the processes that it starts; not for operators
SERVER_LOG = "server.log"  # its server opens it for each line, so somebody else may rename it
MAX_BYTES = 10 << 20
NUM_OLD = 4
CHECK_S = 2.0  # a file grows by what is written in this time beyond its bound
_OUTPUT = (1, 2)


def keep_log_bounded() -> PeriodicCall | None:
    """Start the thread that keeps this process's log file bounded, and its server's; None where `up` started neither.

    It looks as long as the process lives.
    """
    name = os.environ.get(LOG_ENVIRONMENT)
    if not name:
        return None
    log = Path(name)
    bounded = BoundedLog(log, others=(log.with_name(SERVER_LOG),))
    thread = PeriodicCall(bounded.check, CHECK_S, "log file")
    thread.start()
    return thread


class BoundedLog:
    """A log file that descriptors of this process append to, and perhaps those of other processes."""

    def __init__(
        self, path: Path, *, others: Sequence[Path] = (), max_bytes: int = MAX_BYTES, num_old: int = NUM_OLD,
        descriptors: Sequence[int] = _OUTPUT,
    ) -> None:  # fmt: skip
        """others: log files that are only renamed, since their writers open them for each line."""
        self._path, self._others = path, others
        self._max_bytes, self._num_old = max_bytes, num_old
        self._descriptors = [number for number in descriptors if stat.S_ISREG(os.fstat(number).st_mode)]

    def check(self) -> None:
        """Rename files that have grown too large, and write to the file that has the name now."""
        for path in (self._path, *self._others):
            rotate(path, max_bytes=self._max_bytes, num_old=self._num_old)
        self._follow()

    def _follow(self) -> None:
        """Move the descriptors to the file of the name, which is made if it is missing."""
        there = _identity(self._path)
        behind = [number for number in self._descriptors if _identity(number) != there]
        if not behind:
            return
        opened = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            for number in behind:
                os.dup2(opened, number)
        finally:
            os.close(opened)


def rotate(path: Path, *, max_bytes: int = MAX_BYTES, num_old: int = NUM_OLD) -> None:
    """Rename a log file that is too large, and those before it; the oldest goes.

    Several processes may do this at once: one of them holds the lock of the file, and the others leave it alone.
    """
    try:
        if path.stat().st_size <= max_bytes:
            return
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _identity(descriptor) == _identity(path):  # not renamed meanwhile
            for number in range(num_old, 0, -1):
                with contextlib.suppress(FileNotFoundError):
                    _numbered(path, number - 1).rename(_numbered(path, number))
    except BlockingIOError:
        pass
    finally:
        os.close(descriptor)


def cut(path: Path, *, max_bytes: int = MAX_BYTES) -> None:
    """Move what a log file that is too large holds to `NAME.log.1`, and leave the file, which others append to, empty.

    For writers that cannot be moved to another file: what they write in the moment of the cut is lost. Where the disk
    is full, so is what the file held.
    """
    try:
        if path.stat().st_size > max_bytes:
            try:
                shutil.copyfile(path, _numbered(path, 1))
            finally:
                os.truncate(path, 0)
    except OSError as err:
        logger.warning("the log %s cannot be cut: %s", path, err)


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}") if number else path


def _identity(file: Path | int) -> tuple[int, int] | None:
    """What tells a file from others; None where there is none."""
    try:
        facts = os.fstat(file) if isinstance(file, int) else file.stat()
    except FileNotFoundError:
        return None
    return facts.st_dev, facts.st_ino
