"""Files that one process at a time works with: locked while they are open, and written without buffers."""

import fcntl
import os

from orchestrator.contract.errors import UsageError

NEW_FILE = os.O_RDWR | os.O_CREAT


class InUseError(UsageError):
    """Another process works with the file."""


def open_locked(path: str, flags: int, mode: int = 0o644) -> int:
    """A descriptor that holds the file's lock until it is closed.

    Raises InUseError where another process holds it, OSError where it cannot be opened.
    """
    while True:
        descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(descriptor, path):
                return descriptor
        except BlockingIOError as err:
            os.close(descriptor)
            raise InUseError(f"{path!r} is in use") from err
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # it was removed meanwhile; with O_CREAT there will be another


def write_whole(descriptor: int, data: bytes) -> None:
    """Write `data` at the place of the descriptor; on the disk when this returns."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    os.fsync(descriptor)


def _is_at(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False
