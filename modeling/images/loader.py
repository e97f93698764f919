"""Reads image files, and processes images in threads, a bounded number ahead of the consumer."""

import errno
import os
import stat
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from modeling.errors import ImageError, trouble_of
from modeling.images.quotas import num_cores
from modeling.names import path_to_text

MAX_FILE_BYTES = 256 << 20  # as PIGEONHOLE_MAX_FILE_BYTES
PAUSES_S = (0.1, 0.3, 1.0)  # before a file is read again, after an error that says nothing about it
_CODES = {  # as rows of jobs have them
    errno.ENOENT: "missing",
    errno.ENOTDIR: "missing",
    errno.ENAMETOOLONG: "missing",
    errno.EISDIR: "not_a_file",
    errno.ENXIO: "not_a_file",
    errno.EACCES: "permission",
    errno.EPERM: "permission",
}
_NEIGHBOURS = 3  # files of a folder to try

T = TypeVar("T")
R = TypeVar("R")


def read_image_file(path: Path, *, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """The bytes of an image file; never blocks on a pipe. An error of the storage is tried again.

    Raises:
        ImageError: `missing`, `permission`, `not_a_file`, `unreadable` or `too_large`.
        OSError: this process cannot open files now, or the storage is away; that is no error of the image.
    """
    for pause_s in PAUSES_S:
        try:
            return _read(path, max_bytes)
        except OSError as err:
            if trouble_of(err) is None:
                raise _image_error(err, path) from err
        time.sleep(pause_s)
    try:
        return _read(path, max_bytes)
    except OSError as err:
        if trouble_of(err) == "worker" or (trouble_of(err) == "storage" and not _neighbour_can_be_read(path)):
            raise
        raise _image_error(err, path) from err


def _read(path: Path, max_bytes: int) -> bytes:
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("not_a_file", "not a file but a pipe, a socket or a device")
        if status.st_size > max_bytes:
            raise ImageError("too_large", f"{status.st_size} bytes are more than the limit of {max_bytes}")
        return file.read()


def _image_error(err: OSError, path: Path) -> ImageError:
    code = _CODES.get(err.errno or 0, "unreadable")
    if code == "missing" and os.path.islink(path):  # noqa: PTH114 pathlib raises where a name is too long
        return ImageError(
            code, f"a link to {path_to_text(str(path.readlink()))!r}, which is not there: fetch or mount it"
        )
    return ImageError(code, err.strerror or type(err).__name__)


def _neighbour_can_be_read(path: Path) -> bool:
    """Whether another file of the same folder can be read: then only this one cannot."""
    tried = 0
    with os.scandir(path.parent) as entries:
        for entry in entries:
            if entry.name == path.name or not entry.is_file():
                continue
            tried += 1
            with suppress(OSError), open(entry.path, "rb") as file:
                file.read(1)
                return True
            if tried == _NEIGHBOURS:
                break
    return False


def load_ahead(
    items: Iterable[T], call: Callable[[T], R], *, num_ahead: int, num_threads: int | None = None
) -> Iterator[R]:
    """`call(item)` for each item, in order, computed in threads for at most `num_ahead` items beyond the current one.

    num_threads: default: one per core. Exceptions of `items` or `call` are raised here, in order. Items that no thread
    has begun are dropped after an exception, and when the iterator is closed early.
    """
    batches = load_batches_ahead(([item] for item in items), call, num_ahead=num_ahead, num_threads=num_threads)
    return (result for [result] in batches)


def load_batches_ahead(
    batches: Iterable[Iterable[T]], call: Callable[[T], R], *, num_ahead: int, num_threads: int | None = None
) -> Iterator[list[R]]:
    """Like `load_ahead`, for batches of items: yields each batch's results as a list; `num_ahead` counts batches."""
    with ThreadPoolExecutor(num_threads or num_cores(), thread_name_prefix="ahead") as pool:
        waiting: deque[list[Future[R]]] = deque()
        try:
            for batch in batches:
                waiting.append([pool.submit(call, item) for item in batch])
                if len(waiting) > num_ahead:
                    yield _results(waiting.popleft())
            while waiting:
                yield _results(waiting.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _results(futures: list[Future[R]]) -> list[R]:
    return [future.result() for future in futures]
