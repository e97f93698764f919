"""What the file system of a folder keeps as it is: names, cases, forms of Unicode, symbolic links. Found by trying."""

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from orchestrator.sorting.names import is_harmless

PROBE = ".pigeonhole-sort.probe"  # a folder in the target, while a sort runs
# One of each kind that some file system refuses, changes, or takes for another.
_NAMES = (
    "a:b", '"<>|?*\\', "end.", "end ", " start", "CON", "con.jpg", "\x01", "line\nend", "\xe9", "e\u0301", "x", "X",
    os.fsdecode(b"\xe9"), "\U0001f426", "n" * 255,
)  # fmt: skip
_REFUSED_NAME = {errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG, errno.ENOENT, errno.EEXIST, errno.EOPNOTSUPP}
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EACCES, errno.EIO}


@dataclass(frozen=True)
class Target:
    """A folder to sort into.

    is_faithful: every name that Linux knows is kept as it is, so none needs to be tried. holds: whether a file of a
    name appears under that name. link_refusal: what the system says to a symbolic link; None where it makes one.
    """

    is_faithful: bool
    holds: Callable[[str], bool]
    link_refusal: str | None


FAITHFUL = Target(True, lambda name: True, None)  # what a dry run takes for granted


@contextlib.contextmanager
def probed(folder: str) -> Iterator[Target]:
    """The target `folder`; in this block it has a hidden folder for trying. What a kill has left is removed first."""
    remove_probe(folder)
    probe = f"{folder}/{PROBE}"
    os.mkdir(probe, 0o700)
    try:
        is_faithful = _keeps(probe, _NAMES)

        @lru_cache(maxsize=1 << 14)
        def holds(name: str) -> bool:
            return is_faithful or is_harmless(name) or _keeps(probe, (name,))

        yield Target(is_faithful, holds, _link_refusal(probe))
    finally:
        shutil.rmtree(probe, ignore_errors=True)


def remove_probe(folder: str) -> None:
    """Remove what a kill has left."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(f"{folder}/{PROBE}")


def _keeps(probe: str, names: tuple[str, ...]) -> bool:
    """Whether files of these names appear under them, beside each other."""
    folder = f"{probe}/names"
    os.mkdir(folder)
    try:
        for name in names:
            os.close(os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        return set(os.listdir(folder)) == set(names)
    except OSError as err:
        if err.errno not in _REFUSED_NAME:
            raise
        return False
    finally:
        shutil.rmtree(folder)


def _link_refusal(probe: str) -> str | None:
    link = f"{probe}/link"
    try:
        os.symlink("/nothing", link)
        kept = os.readlink(link)
        os.unlink(link)
    except OSError as err:
        if err.errno not in _NO_LINKS:
            raise
        return err.strerror or str(err)
    return None if kept == "/nothing" else "it changes them"
