"""Whole copies of files: shared blocks where the file system can, times and rights kept, never over another file."""

import contextlib
import errno
import hashlib
import os
from dataclasses import dataclass

from orchestrator.sorting.lines import Before, Reason

# Beside the file that a copy becomes. Two sorts out of one folder, or into one, must not write to one name.
TEMPORARY = ".pigeonhole-sort.{sort}.{row}.tmp"
_AT_ONCE = 1 << 26
_BLOCK = 1 << 20
# What file systems answer that cannot copy within themselves, or know no hard links: some FUSE and SMB mounts, FAT.
_NOT_WITHIN = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF}
_NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class UnfitError(Exception):
    """A file that is not copied: it was changed, or its copy would not be like it. reason: for the journal."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Copy:
    """A copy to be made, to a name that is free. expected: how the source is; given: what its copy gets of that.

    verified: read the copy again, and see that the target holds everything: the source is to be removed.
    """

    source: str
    target: str
    temporary: str
    expected: Before
    given: Before
    verified: bool = False


def copy_file(copy: Copy) -> os.stat_result:
    """Make a copy, on the disk when this returns; what the system says of it is returned.

    Raises:
        UnfitError: the source is not as expected, or the target cannot hold all of it.
        FileExistsError: the name is taken.
    """
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(copy.temporary)
        _write_copy(copy)
        name_once(copy.temporary, copy.target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(copy.temporary)
        raise
    return os.lstat(copy.target)


def temporary_of(target: str, sort: str, row: int) -> str:
    """The name of the copy of a row while it is not whole."""
    return f"{os.path.dirname(target)}/{TEMPORARY.format(sort=sort, row=row)}"


def name_once(temporary: str, target: str) -> None:
    """Give a file its name. Raises FileExistsError where that is taken, UnfitError where the file was replaced
    meanwhile; nothing is changed then.

    Without hard links the name is looked up and then taken: another program may win in between, and lose its file.
    """
    try:
        os.link(temporary, target, follow_symlinks=False)
    except FileExistsError:
        if not os.path.samestat(os.lstat(temporary), os.lstat(target)):  # else NFS lost the answer, and asked again
            raise
    except OSError as err:
        if err.errno not in _NO_HARD_LINKS:
            raise
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target) from err
        os.rename(temporary, target)
        return
    try:
        if not os.path.samestat(os.lstat(temporary), os.lstat(target)):
            raise UnfitError("changed")  # else what another program has put there would be lost
        os.unlink(temporary)
    except (UnfitError, OSError):
        os.unlink(target)
        raise


def same_content(first: str, second: str) -> bool:
    """Whether two files hold the same bytes; False where one cannot be read."""
    try:
        if os.path.getsize(first) != os.path.getsize(second):
            return False
        return _digest(first) == _digest(second)
    except OSError:
        return False


def _write_copy(copy: Copy) -> None:
    reading = os.open(copy.source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        writing = os.open(copy.temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _copy_bytes(reading, writing, copy.expected.size)
            _copy_facts(copy, writing)
            os.fsync(writing)
            if Before.of(os.fstat(reading)) != copy.expected:
                raise UnfitError("changed")
            if copy.verified:
                os.posix_fadvise(writing, 0, 0, os.POSIX_FADV_DONTNEED)  # so that the disk is read, not the memory
                _verify(copy)
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def _copy_bytes(reading: int, writing: int, size: int) -> None:
    """Copy up to the end. A file that has grown is not followed, as it may never end."""
    within, done = True, 0
    while done <= size:
        try:
            copied = os.copy_file_range(reading, writing, _AT_ONCE) if within else _copy_block(reading, writing)
        except OSError as err:
            if not within or err.errno not in _NOT_WITHIN:
                raise
            within = False
            continue
        if copied == 0 and within and done < size:
            within = False  # some file systems say so of files that they cannot copy
        elif copied == 0:
            return
        done += copied


def _copy_block(reading: int, writing: int) -> int:
    data = memoryview(os.read(reading, _BLOCK))
    rest = data
    while rest:
        rest = rest[os.write(writing, rest) :]
    return len(data)


def _copy_facts(copy: Copy, writing: int) -> None:
    """Attributes, owner, rights and time, as far as the target holds them and this user may give them."""
    for name, value in attributes(copy.source).items():
        with contextlib.suppress(OSError):
            os.setxattr(writing, name, value)
    given = copy.given
    with contextlib.suppress(OSError):
        os.fchown(writing, given.uid, given.gid)
    with contextlib.suppress(OSError):
        os.fchmod(writing, given.mode)  # after the owner, which takes some rights away
    os.utime(writing, ns=(os.stat(copy.source).st_atime_ns, given.mtime_ns))


def _verify(copy: Copy) -> None:
    if not same_content(copy.source, copy.temporary):
        raise UnfitError("copy differs")
    if attributes(copy.source) != attributes(copy.temporary):
        raise UnfitError("attributes")


def attributes(path: str) -> dict[str, bytes]:
    """What users have attached to a file, and its access list."""
    try:
        names = os.listxattr(path)
        return {name: os.getxattr(path, name) for name in names if name.startswith(("user.", "system.posix_acl"))}
    except OSError as err:
        if err.errno in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.EACCES):
            return {}
        raise


def _digest(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").digest()
