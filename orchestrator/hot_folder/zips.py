"""Unpacking a ZIP that anybody may have made: within bounds, and never outside of the folder that is given."""

import errno
import io
import os
import shutil
import stat
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from orchestrator.contract.errors import UsageError

MOST_FILES = 100_000
MOST_BYTES = 16 << 30
MOST_RATIO = 200  # unpacked bytes for each packed one; images gain next to nothing
ALWAYS_BYTES = 64 << 20  # within which no ratio counts: a drawing packs well
MOST_DIRECTORY_BYTES = 64 << 20  # of the list of its files, which is read at once
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others may take gigabytes of memory
_BAD_NAMES = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)  # that this disk cannot hold
_BLOCK = 1 << 20


class _Archive(io.BufferedReader):
    """A ZIP of which never more is read at once than a list of files may have."""

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, os.fstat(self.fileno()).st_size - self.tell())
        wanted = left if size is None or size < 0 else min(size, left)
        if wanted > MOST_DIRECTORY_BYTES:
            raise UsageError("the ZIP's list of files is too long; unpack it by hand, and give the folder")
        return super().read(wanted)


def unpack(archive: Path, target: Path) -> int:
    """Unpack into `target`, an empty folder; returns the number of files.

    Raises UsageError, which says why, where it is not a ZIP, is encrypted or damaged, holds a link or a path that leads
    elsewhere, or would become too large. OSError where the disk refuses.
    """
    try:
        with _Archive(io.FileIO(archive)) as file, zipfile.ZipFile(file) as opened:
            members = [member for member in opened.infolist() if not member.is_dir()]
            if len(members) > MOST_FILES:
                raise UsageError(f"the ZIP holds {len(members)} files, {MOST_FILES} are allowed; unpack it by hand")
            paths = [_checked(member) for member in members]
            if len(set(paths)) != len(paths):
                raise UsageError("the ZIP holds two files of one name")
            left = _bound(archive, target)
            for member, path in zip(members, paths, strict=True):
                left -= _write(opened, member, target.joinpath(*path), left)
            return len(members)
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        ValueError,
        OverflowError,
        struct.error,
    ) as err:
        raise UsageError(f"the ZIP cannot be read: {err or type(err).__name__}") from err
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as err:
        raise UsageError("a file of the ZIP has the name of one of its folders") from err
    except OSError as err:
        if err.errno in _BAD_NAMES:
            raise UsageError(f"the ZIP holds a name that this disk cannot hold: {err.strerror}") from err
        raise


def _checked(member: zipfile.ZipInfo) -> tuple[str, ...]:
    """The parts of a member's path. Raises UsageError where it is not a plain file below the target."""
    mode = member.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise UsageError(f"the ZIP holds {member.filename!r}, a link or no plain file")
    if member.flag_bits & 1:
        raise UsageError("the ZIP is encrypted")
    if member.compress_type not in _METHODS:
        raise UsageError("the ZIP is compressed by another method than Deflate; make it again, or give the folder")
    path = PurePosixPath(member.filename)
    has_drive = ":" in member.filename or "\\" in member.filename
    if path.is_absolute() or has_drive or ".." in path.parts or not path.parts or "\0" in member.orig_filename:
        raise UsageError(f"the ZIP holds the path {member.filename!r}, which leads out of its folder")
    if any(len(part.encode("utf-8", "surrogateescape")) > 255 for part in path.parts) or len(path.parts) > 64:
        raise UsageError(f"the ZIP holds a path that is too long: {member.filename[:80]!r}")
    return path.parts


def _bound(archive: Path, target: Path) -> int:
    """The bytes that may be written: the sizes in a ZIP are what its maker says."""
    by_ratio = max(ALWAYS_BYTES, archive.stat().st_size * MOST_RATIO)
    return min(MOST_BYTES, by_ratio, shutil.disk_usage(target).free // 2)


def _write(opened: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path, most: int) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with opened.open(member) as source, path.open("xb") as file:
        while block := source.read(_BLOCK):
            written += len(block)
            if written > most:
                raise UsageError(
                    f"the ZIP becomes too large: more than {MOST_RATIO} times its size, {MOST_BYTES >> 30} GiB, or "
                    "half of the free disk; unpack it by hand, and give the folder"
                )
            file.write(block)
    return written
