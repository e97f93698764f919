"""Reads image files, and processes images in threads, a bounded number ahead of the consumer."""

import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from modeling.errors import ImageError
from modeling.images.cores import num_cores

MAX_FILE_BYTES = 256 << 20  # as PIGEONHOLE_MAX_FILE_BYTES

T = TypeVar("T")
R = TypeVar("R")


def read_image_file(path: Path, *, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """The bytes of an image file; never blocks on a pipe.

    Raises:
        ImageError: `unreadable` or `too_large`.
    """
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ImageError("unreadable", "not a file but a pipe, a socket or a device")
            if status.st_size > max_bytes:
                raise ImageError("too_large", f"{status.st_size} bytes are more than the limit of {max_bytes}")
            return file.read()
    except OSError as err:
        raise ImageError("unreadable", err.strerror or type(err).__name__) from err


def load_ahead(
    items: Iterable[T], call: Callable[[T], R], *, num_ahead: int, num_threads: int | None = None
) -> Iterator[R]:
    """`call(item)` for each item, in order, computed in threads for at most `num_ahead` items beyond the current one.

    num_threads: default: one per core. Exceptions of `items` or `call` are raised here, in order. Items that no thread
    has begun are dropped after an exception, and when the iterator is closed early.
    """
    groups = load_groups_ahead(([item] for item in items), call, num_ahead=num_ahead, num_threads=num_threads)
    return (result for [result] in groups)


def load_groups_ahead(
    groups: Iterable[Iterable[T]], call: Callable[[T], R], *, num_ahead: int, num_threads: int | None = None
) -> Iterator[list[R]]:
    """Like `load_ahead`, for groups of items: yields each group's results as a list; `num_ahead` counts groups."""
    with ThreadPoolExecutor(num_threads or num_cores(), thread_name_prefix="ahead") as pool:
        waiting: deque[list[Future[R]]] = deque()
        try:
            for group in groups:
                waiting.append([pool.submit(call, item) for item in group])
                if len(waiting) > num_ahead:
                    yield _results(waiting.popleft())
            while waiting:
                yield _results(waiting.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _results(futures: list[Future[R]]) -> list[R]:
    return [future.result() for future in futures]
