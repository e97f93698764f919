"""Files and folders that outlive a power cut, and are seen whole or not at all."""

import os
import shutil
import stat
import tempfile
from pathlib import Path

from modeling.errors import ModelFormatError


def sync(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Wait until all that lies in a folder is on the disk."""
    for inner, _, files in os.walk(folder):
        for name in files:
            sync(Path(inner, name))
        sync(Path(inner))


def replace_durably(path: Path, data: bytes) -> None:
    """Put `data` in the place of file `path`, on the disk when this returns."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o644)  # mkstemp keeps others out
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def check_plain(folder: Path) -> None:
    """See that a folder holds files and folders only, at any depth.

    Raises:
        ModelFormatError: it holds a link, a pipe, a device or a socket; none is followed or read.
    """
    for inner, folders, files in os.walk(folder):
        for name in (*folders, *files):
            mode = (path := Path(inner, name)).lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                kind = "a link" if stat.S_ISLNK(mode) else "no regular file"
                raise ModelFormatError(f"{path} is {kind}; only plain files and folders are published")


def copy_durably(source: Path, target: Path) -> None:
    """Copy what lies in folder `source` into the empty folder `target`, on the disk when this returns.

    Others may read the copies; links are copied as links, never followed.
    """
    for inner, folders, files in os.walk(source):
        copied = target / Path(inner).relative_to(source)
        for name in folders:
            (copied / name).mkdir()
        for name in files:
            shutil.copyfile(Path(inner, name), copied / name, follow_symlinks=False)
            sync(copied / name)
        copied.chmod(0o755)
        sync(copied)
