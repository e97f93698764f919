"""The folder of one model: which version numbers are in use, and how versions are added and removed.

Removing a version renames it to `.removed-<number>` and empties that folder. The rename removes the version in one
step, and the folder that is left keeps the number from being used again.
"""

import errno
import fcntl
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from modeling.durable import copy_durably, rename_answered, staging_folder, sync, write_durable
from modeling.errors import ModelFormatError
from modeling.registry.card import CARD_FILE, REPORT_FILE

_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_REMOVED = ".removed-"
_PUBLISHING = ".publishing-"
_TITLE = re.compile(rb"<title>[^<]*( \xe2\x80\x93 Pigeonhole report</title>)")  # as modeling/report/templates has it
_HEADING = re.compile(rb"<h1>[^<]*</h1>")
DIGEST_FILE = ".sha256"
_TAKEN = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}


def is_number(text: str) -> bool:
    """Whether this text is a valid version number."""
    return _NUMBER.fullmatch(text) is not None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the model's lock, so that processes change the model one at a time."""
    with open(folder / ".lock", "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def check_plain(folder: Path) -> None:
    """See that a folder holds files and folders only, at any depth.

    Raises:
        ModelFormatError: it holds a link, a pipe, a device or a socket; none is followed or read.
    """
    for inner, folders, files in os.walk(folder):
        for name in (*folders, *files):
            mode = (path := Path(inner, name)).lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                kind = "a link" if stat.S_ISLNK(mode) else "not a regular file"
                raise ModelFormatError(f"{path} is {kind}; only plain files and folders are published")


def record_digest(version: Path, digest: str) -> None:
    """Write the digest of a version's card beside it, in the format of sha256sum: a change of the card is seen then."""
    write_durable(version / DIGEST_FILE, f"{digest}  {CARD_FILE}\n".encode())


def published_digest(version: Path) -> str | None:
    """The digest of the card when the version was published; None if it was not recorded."""
    try:
        return (version / DIGEST_FILE).read_text(encoding="utf-8").partition(" ")[0]
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
        return None


def version_numbers(folder: Path) -> list[int]:
    """Every entry whose name is a version number, ascending; empty if the folder does not exist."""
    return _numbers(folder, "")


def removed_numbers(folder: Path) -> list[int]:
    """Numbers of removed versions, ascending."""
    return _numbers(folder, _REMOVED)


def add_version(staged: Path, digest: str, folder: Path, *, confirm: Callable[[], None]) -> int:
    """Copy the model in folder `staged` to the next unused number of the model's folder, and return it.

    confirm: called just before the version becomes visible; may raise.
    """
    with staging_folder(folder, _PUBLISHING) as copy:
        copy_durably(staged, copy)
        record_digest(copy, digest)
        confirm()
        return _take_next_number(copy, folder)


def remove_unpublished(folder: Path, *, dry_run: bool, size_of: Callable[[Path], int]) -> Iterator[int]:
    """Remove the copies that killed publications have left; the size of each. dry_run: only find them."""
    if not any(folder.glob(f"{_PUBLISHING}*")):
        return
    with locked(folder):
        for copy in folder.glob(f"{_PUBLISHING}*"):
            yield size_of(copy)
            if not dry_run:
                shutil.rmtree(copy, ignore_errors=True)


def _take_next_number(copy: Path, folder: Path) -> int:
    """Rename `copy`, a complete version, to the next unused number; tries again if another machine takes it first.

    Its report is called by its name and number.
    """
    while True:
        number = max(version_numbers(folder) + removed_numbers(folder), default=0) + 1
        if _tombstone(folder, number).exists():
            continue  # removed since the numbers were read
        _name_report(copy / REPORT_FILE, f"{folder.name}@{number}")
        try:
            rename_answered(copy, folder / str(number))
        except OSError as err:
            if err.errno not in _TAKEN:
                raise
            continue
        sync(folder)
        return number


def _name_report(path: Path, ref: str) -> None:
    """Give a report of ours, if there is one, the title `ref`."""
    page = path.read_bytes() if path.is_file() else b""
    if _TITLE.search(page):
        page = _TITLE.sub(rb"<title>%s\1" % ref.encode(), page, count=1)
        write_durable(path, _HEADING.sub(b"<h1>%s</h1>" % ref.encode(), page, count=1))


def remove_version(folder: Path, number: int) -> None:
    """Rename a version away, then delete its files and those that interrupted removals left."""
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
