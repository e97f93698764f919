"""Paths of a list relative to its root, as a listing and a manifest have them."""

import os
from functools import lru_cache

_UNTIDY = ("", "/", ".")  # how a path may begin that is not as it should be
_FOLDERS_AT_ONCE = 4096  # whose place is remembered: the paths of a list mostly come folder by folder


class BelowRoot:
    """Writes the paths of a list as those of a walk, where their file is below the root: relative, and without `..`.

    Others stay as they are written, such as all that are outside of the root.
    """

    def __init__(self, root: str) -> None:
        """root: absolute, as the operator names it, so that links may be in it."""
        self._real = os.path.realpath(root)
        self._prefixes = tuple(f"{folder.rstrip('/')}/" for folder in (root, self._real))
        self._place = lru_cache(_FOLDERS_AT_ONCE)(self._find)

    def relative(self, path: str) -> str:
        """The path relative to the root, if its file is below it; `.` for the root itself."""
        below = self._without_prefix(path) if path.startswith("/") else path
        if not below.startswith("/") and (".." not in below or not _goes_up(below)):  # of a million paths nearly all
            return below
        folder, slash, name = os.path.join(self._prefixes[0], below).rpartition("/")  # noqa: PTH118
        place = self._place(folder or slash)
        return below if place is None else _tidy(f"{place}/{name}")

    def _without_prefix(self, path: str) -> str:
        for prefix in self._prefixes:
            if path.startswith(prefix):
                below = path.removeprefix(prefix)
                return _tidy(below) if below[:1] in _UNTIDY else below
        return path

    def _find(self, folder: str) -> str | None:
        """Where a folder is below the root once links are resolved; None where it is outside, or nobody can say."""
        try:
            real = os.path.realpath(folder, strict=_goes_up(folder))  # `gone/..` is no folder, whatever comes before
        except (OSError, ValueError):  # no such folder, or no folder can have this name
            return None
        if real == self._real:
            return ""
        prefix = self._prefixes[1]
        return real.removeprefix(prefix) if real.startswith(prefix) else None


def _goes_up(path: str) -> bool:
    return ".." in path.split("/")


def _tidy(path: str) -> str:
    """Without slashes and `.` at its start: with them it would be absolute, or another name for the same file."""
    while path.startswith(("/", "./")):
        path = path.lstrip("/").removeprefix("./")
    return path or "."


def file_below(prefix: str, path: str) -> str:
    """The file of a listed path. prefix: the root, with a slash behind it.

    Earlier releases listed the absolute paths of a list as they were written where its root was named by a link.
    """
    return path if path.startswith("/") else prefix + path
