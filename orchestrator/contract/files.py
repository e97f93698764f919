"""Writing files so that a reader sees them whole or not at all, whenever the power goes."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

# What file systems without hard links answer to link(2): some FUSE and SMB mounts.
_NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}


def fsync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# Reading the process's file mode mask means setting it for an instant: once, before there are threads.
_UMASK = os.umask(0o077)
os.umask(_UMASK)


@contextlib.contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """An unused name in the folder of `path`, hidden and removed at the end if it is still there."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        temporary.chmod(0o666 & ~_UMASK)  # mkstemp's 0600 would hide results from colleagues
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes) -> None:
    """Replace `path` by `data`, durable when this returns."""
    with temporary_beside(path) as temporary:
        write_durable(temporary, data)
        temporary.replace(path)
    fsync_folder(path.parent)


def write_durable(path: Path, data: bytes) -> None:
    """Write `data` to `path` and wait until it is on the disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def link_once(temporary: Path, path: Path) -> bool:
    """Give the finished file `temporary` its name `path`; the first writer wins.

    Returns False where `path` exists already; nothing is changed then. Where the file system knows
    no hard links the name is checked, then taken by rename.
    """
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as err:
        if err.errno not in _NO_HARD_LINKS:
            # NFS may lose the answer to a link that was made: the link count knows (open(2), O_EXCL).
            if temporary.stat().st_nlink != 2:
                raise
        elif path.exists():
            return False
        else:
            temporary.rename(path)
    fsync_folder(path.parent)
    return True
