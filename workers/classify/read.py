"""Reads the files of a source: up to a size limit, inside the root, without blocking on pipes or devices."""

import errno
import hashlib
import os
import stat
import time
from collections.abc import Callable
from functools import partial

from modeling.data.lists.faults import MISSING, hint
from modeling.errors import ImageError, trouble_of
from modeling.names import text_to_path
from orchestrator.contract.jobs.sidecar import AsRead

_CODES = {
    errno.ENOENT: ("missing", "there is no such file"),
    errno.ENOTDIR: ("missing", "there is no such file"),
    errno.ENXIO: ("not_a_file", "it is a socket or a device, not a file"),
    errno.ENAMETOOLONG: ("missing", "no file can have a name that long"),
    errno.EACCES: ("permission", "the worker may not read this file"),
    errno.EPERM: ("permission", "the worker may not read this file"),
}


# Pauses before an image is tried again, after an error that says nothing about the image.
PAUSES_S = {"storage": (0.1, 0.3, 1.0), "worker": (0.1, 0.3, 1.0, 2.0)}


class ImageReader:
    """Reads images below `root`; a path or a symlink that leads out of it is an error unless links are followed.

    last_read: the image that was read last of each device, by its number.
    """

    def __init__(
        self,
        root: str,
        *,
        follow_symlinks: bool,
        max_file_bytes: int,
        checksum: bool = False,
        on_storage_error: Callable[[], None] = lambda: None,
    ) -> None:
        """checksum: whether `read_state` gives a digest.

        on_storage_error: called where the storage still fails after pauses; what it raises ends the reading.
        """
        self.last_read: dict[int, str] = {}
        self._checksum = checksum
        self._on_storage_error = on_storage_error
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

        Errors of the storage and of the worker are tried again; `modeling.errors` says which these are.

        Raises:
            ImageError: missing, permission, outside_root, not_a_file, too_large or unreadable.
            OSError: this process cannot open files now; that is no error of the image.
        """
        return self.read_state(path)[0]

    def read_state(self, path: str) -> tuple[bytes, AsRead]:
        """The bytes of the file as `read` gives them, and its size and time just before they were read.

        A file that changes meanwhile has another time afterwards, so it is seen to have changed since.
        """
        try:
            return self._read(path)
        except (OSError, ValueError) as err:
            return self._read_again(path, err)

    def _read(self, path: str) -> tuple[bytes, AsRead]:
        descriptor = self._open(os.path.join(self._root, path))  # noqa: PTH118 a str keeps the bytes of a name
        try:
            facts = os.fstat(descriptor)
            self._check(facts)
            data = _read_whole(descriptor, facts.st_size)
        finally:
            os.close(descriptor)
        self.last_read[facts.st_dev] = path
        digest = hashlib.sha256(data).hexdigest() if self._checksum else None
        return data, (facts.st_size, facts.st_mtime_ns, digest)

    def _read_again(self, path: str, err: OSError | ValueError) -> tuple[bytes, AsRead]:
        """Try an image again that gave `err`, as long as that can be another's trouble."""
        num_pauses = 0
        while (trouble := trouble_of(err)) and num_pauses < len(PAUSES_S[trouble]):
            time.sleep(PAUSES_S[trouble][num_pauses])
            num_pauses += 1
            try:
                return self._read(path)
            except (OSError, ValueError) as again:
                err = again
        if trouble == "worker":
            raise err
        if trouble == "storage":
            self._on_storage_error()
        error = _image_error(err)
        raise self._explained(error, path) if error.code == MISSING else error from err

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


def read_noted(reader: ImageReader, path: str, as_read: list[AsRead | None], index: int) -> bytes:
    """The bytes of an image, whose size and time go into `as_read`."""
    data, as_read[index] = reader.read_state(path)
    return data


def read_code(reader: ImageReader, path: str) -> str | None:
    """The error code that reading an image gives; None if it can be read."""
    try:
        reader.read(path)
    except ImageError as err:
        return err.code
    return None


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
    return ImageError("unreadable", f"the file cannot be read: {err.strerror or err}")


def _kind(mode: int) -> str:
    """The kind of a path that is not a regular file."""
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")
