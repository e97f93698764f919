"""Bytes that all threads of a process share while they decode: a large image waits until others have given back theirs.

What an image holds is estimated from its header. Waiting never decides what becomes of an image: `cost` does that by
limits that are fixed.

There is no limit by the operating system (RLIMIT_AS, RLIMIT_DATA) beneath: it would count the addresses that torch,
CUDA and OpenVINO reserve in the same process, and make allocations fail in their threads, which end the process.
"""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from modeling.images.formats import BYTES_PER_PIXEL, MAX_PIXELS
from modeling.images.quotas import memory_total

_SHARE = 4  # one part in so many of the allowed memory: the libraries, the model and the batches need the rest
SMALL_BYTES = 4 << 20  # smaller images hold nothing: all threads together need little for them


class ByteBudget:
    """A number of bytes that threads take and give back, in the order in which they ask."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._free = total
        self._lock = threading.Lock()
        self._waiting: deque[tuple[int, threading.Event]] = deque()

    def hold(self, num_bytes: int) -> AbstractContextManager[None]:
        """Hold so many bytes until the block ends; an image that needs more than there are is decoded alone."""
        return nullcontext() if num_bytes < SMALL_BYTES else self._holding(min(num_bytes, self.total))

    @contextmanager
    def _holding(self, num_bytes: int) -> Iterator[None]:
        self._take(num_bytes)
        try:
            yield
        finally:
            self._give_back(num_bytes)

    def _take(self, num_bytes: int) -> None:
        with self._lock:
            if not self._waiting and num_bytes <= self._free:
                self._free -= num_bytes
                return
            turn = threading.Event()
            self._waiting.append((num_bytes, turn))
        turn.wait()

    def _give_back(self, num_bytes: int) -> None:
        with self._lock:
            self._free += num_bytes
            while self._waiting and self._waiting[0][0] <= self._free:
                taken, turn = self._waiting.popleft()
                self._free -= taken
                turn.set()


def decode_bytes(allowed: int) -> int:
    """Bytes for decoding where a process may use `allowed`: what the largest image takes, or a share of little."""
    return min(BYTES_PER_PIXEL * MAX_PIXELS, allowed // _SHARE)


BUDGET = ByteBudget(decode_bytes(memory_total()))
