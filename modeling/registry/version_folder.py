"""The folder of one model: which version numbers are taken, and how one is taken and given up.

A removed version leaves an empty folder `.removed-<number>`: what removal renames the version to. That one rename
hides the version as a whole, and keeps its number from being used again.
"""

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modeling.durable import sync

_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_REMOVED = ".removed-"
_TAKEN = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}


def is_number(text: str) -> bool:
    """Whether a version may have this number."""
    return _NUMBER.fullmatch(text) is not None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the model's lock, so that those who change it go one after another."""
    with open(folder / ".lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def version_numbers(folder: Path) -> list[int]:
    """Every entry that is named like a version, ascending; none where there is no such folder."""
    return _numbers(folder, "")


def removed_numbers(folder: Path) -> list[int]:
    """Numbers of the versions that were removed, ascending."""
    return _numbers(folder, _REMOVED)


def take_next_number(copy: Path, folder: Path) -> int:
    """Rename `copy`, a whole version, to the next number never used; where locks do not reach, others may be faster."""
    while True:
        number = max(version_numbers(folder) + removed_numbers(folder), default=0) + 1
        if _tombstone(folder, number).exists():
            continue  # removed between the two looks
        try:
            copy.rename(folder / str(number))
        except OSError as err:
            if err.errno not in _TAKEN:
                raise
            continue
        sync(folder)
        return number


def bury(folder: Path, number: int) -> None:
    """Take a version's name away, then delete its files, and those that a removal which died has left."""
    (folder / str(number)).rename(_tombstone(folder, number))
    sync(folder)
    for removed in removed_numbers(folder):
        for path in _tombstone(folder, removed).iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _tombstone(folder: Path, number: int) -> Path:
    return folder / f"{_REMOVED}{number}"


def _numbers(folder: Path, prefix: str) -> list[int]:
    try:
        names = [entry.removeprefix(prefix) for entry in os.listdir(folder) if entry.startswith(prefix)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(int(name) for name in names if is_number(name))
