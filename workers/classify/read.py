"""Reads the files of a source: up to a size limit, inside the root, without blocking on pipes or devices."""

import errno
import os
import stat
from collections.abc import Callable
from functools import partial

from modeling.data.lists.faults import MISSING, hint
from modeling.errors import ImageError
from modeling.names import text_to_path

_CODES = {
    errno.ENOENT: ("missing", "there is no such file"),
    errno.ENOTDIR: ("missing", "there is no such file"),
    errno.ENXIO: ("not_a_file", "it is a socket or a device, not a file"),
    errno.ENAMETOOLONG: ("missing", "no file can have a name that long"),
    errno.EACCES: ("permission", "the worker may not read this file"),
    errno.EPERM: ("permission", "the worker may not read this file"),
}


class ImageReader:
    """Reads images below `root`; a path or a symlink that leads out of it is an error unless links are followed."""

    def __init__(self, root: str, *, follow_symlinks: bool, max_file_bytes: int) -> None:
        self._root = text_to_path(root)
        self._real_root = os.path.realpath(self._root)
        self._follow = follow_symlinks
        self._max_file_bytes = max_file_bytes
        self._inside: dict[str, bool] = {}  # folder -> whether its real path is below the root

    def source(self, path: str) -> Callable[[], bytes]:
        """A function that reads `path`; it raises ImageError."""
        return partial(self.read, path)

    def read(self, path: str) -> bytes:
        """The bytes of the file `path`, relative to the root.

        Raises ImageError: missing, permission, outside_root, not_a_file, too_large or unreadable.
        """
        try:
            descriptor = self._open(os.path.join(self._root, path))  # noqa: PTH118 a str keeps the bytes of a name
        except (OSError, ValueError) as err:
            error = _image_error(err)
            raise self._explained(error, path) if error.code == MISSING else error from err
        try:
            facts = os.fstat(descriptor)
            self._check(facts)
            return _read_whole(descriptor, facts.st_size)
        except OSError as err:
            raise _image_error(err) from err
        finally:
            os.close(descriptor)

    def _explained(self, error: ImageError, path: str) -> ImageError:
        """A missing file's error, with what the path suggests, such as another Unicode form of the name."""
        return ImageError(error.code, error.message + hint(self._root, path))

    def _check(self, facts: os.stat_result) -> None:
        """Raises ImageError if it is not a regular file, or too large."""
        if not stat.S_ISREG(facts.st_mode):
            raise ImageError("not_a_file", f"it is {_kind(facts.st_mode)}, not a file")
        if facts.st_size > self._max_file_bytes:
            limit = f"{self._max_file_bytes:,} bytes (PIGEONHOLE_MAX_FILE_BYTES)"
            raise ImageError("too_large", f"the file has {facts.st_size:,} bytes; the limit is {limit}")

    def _open(self, full: str) -> int:
        """Open without blocking (a pipe waits for a writer) and, unless links are followed, inside the root."""
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
        if self._follow:
            if not os.path.normpath(full).startswith(self._root.rstrip("/") + "/"):
                raise ImageError("outside_root", "the path itself leads out of the source folder")
            return os.open(full, flags)
        if not self._folder_is_inside(os.path.dirname(full)):  # noqa: PTH120
            raise ImageError("outside_root", "the path leads out of the source folder; --follow-symlinks allows it")
        try:
            return os.open(full, flags | os.O_NOFOLLOW)
        except OSError as err:
            if err.errno != errno.ELOOP:
                raise
        target = os.path.realpath(full)
        if not self._is_inside(target):
            raise ImageError("outside_root", "the symlink leads out of the source folder; --follow-symlinks allows it")
        return os.open(target, flags | os.O_NOFOLLOW)

    def _folder_is_inside(self, folder: str) -> bool:
        """Whether a folder is below the root after resolving links; computed once for each folder."""
        if folder not in self._inside:
            self._inside[folder] = self._is_inside(os.path.realpath(folder))
        return self._inside[folder]

    def _is_inside(self, real: str) -> bool:
        return real == self._real_root or real.startswith(self._real_root.rstrip("/") + "/")


def _read_whole(descriptor: int, size: int) -> bytes:
    """The bytes of a file of `size` bytes, in one system call for nearly every file."""
    data = os.read(descriptor, size)
    while 0 < len(data) < size and (more := os.read(descriptor, size - len(data))):
        data += more
    return data


def _image_error(err: OSError | ValueError) -> ImageError:
    """The row's error for an error of the operating system."""
    if isinstance(err, OSError) and err.errno in _CODES:
        return ImageError(*_CODES[err.errno])
    if isinstance(err, ValueError):
        return ImageError("missing", f"no file can have this name: {err}")
    return ImageError("unreadable", f"the file cannot be read: {err.strerror or err!r}")


def _kind(mode: int) -> str:
    """The kind of a path that is not a regular file."""
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")
