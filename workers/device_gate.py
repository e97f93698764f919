"""Who may use the worker's device next: pushed images go before the batches of shards.

Every predict call in a pool child takes slots of the gate. Nothing that runs is interrupted: a push waits at most for
the batches that are on the device when it comes. Trainings do not take slots. They run in a process of their own, and
only the operating system shares the device between them and this process: for them there is no bound.
"""

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from modeling.images.quotas import num_cores

LONGEST_SHARD_WAIT_S = 1.0  # then one batch goes before pushes: a job that finishes nothing looks as if it hung
_GPU_STREAMS = 2  # of `modeling.inference.engines.torch_engine.CudaGraphEngine`
_RECENT_BATCHES, _RECENT_S = 512, 30.0
_HIGH_QUANTILE = 0.99


def slots_of_device(device: str) -> int:
    """Batches that a device computes at the same time: one a core, or one a stream of a GPU."""
    return num_cores() if device == "cpu" else _GPU_STREAMS


@dataclass(slots=True, eq=False)
class _Waiter:
    """A thread that waits for slots. granted: how many it got. ready: locked until then."""

    slots: int
    at_least: int
    since: float = field(default_factory=time.monotonic)
    granted: int = 0
    ready: threading.Lock = field(default_factory=threading.Lock)


class DeviceGate:
    """Slots of one device: as many as batches that it computes at the same time, which are the cores of a CPU.

    Pushes are served in the order in which they came, and so are the batches of shards. A waiting push goes before all
    batches of shards, unless one of these has waited for `LONGEST_SHARD_WAIT_S`.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._lock = threading.Lock()
        self._free = slots
        self._pushes: deque[_Waiter] = deque()
        self._batches: deque[_Waiter] = deque()
        self._batch_s: deque[tuple[float, float]] = deque(maxlen=_RECENT_BATCHES)  # when it ended, its seconds
        self._num_lines = 0

    def slots_of(self, num_streams: int) -> int:
        """The slots of one predict call by an engine with that number of streams."""
        return max(1, self.slots // num_streams)

    @contextmanager
    def push(self, slots: int = 1, *, at_least: int = 0) -> Iterator[int]:
        """Hold the device for pushed images; yields the number of slots.

        slots: how many are wanted. at_least: with so many free it goes on, and gets what is free; 0: only with all.
        """
        taken = self._take(self._pushes, min(slots, self.slots), min(at_least or slots, self.slots))
        try:
            yield taken
        finally:
            self._give_back(taken)

    @contextmanager
    def shard(self, slots: int = 1) -> Iterator[None]:
        """Hold the device for one batch of a shard."""
        taken = self._take(self._batches, min(slots, self.slots), min(slots, self.slots))
        started = time.perf_counter()
        try:
            yield
        finally:
            ended = time.perf_counter()
            self._batch_s.append((ended, ended - started))
            self._give_back(taken)

    # Lines

    def line_opened(self) -> None:
        """A line takes requests on this worker from now on."""
        with self._lock:
            self._num_lines += 1

    def line_closed(self) -> None:
        """A line takes no more requests on this worker."""
        with self._lock:
            assert self._num_lines, "more lines were closed than opened"
            self._num_lines -= 1

    @property
    def line_open(self) -> bool:
        """Whether a line is open on this worker."""
        return self._num_lines > 0

    @property
    def bound_ms(self) -> float:
        """How long a push waits for the device at most: the longest recent batch of a shard, but for one in 100.

        0 while no shard is predicted.
        """
        since = time.perf_counter() - _RECENT_S
        recent = sorted(spent_s for ended, spent_s in self._batch_s.copy() if ended > since)
        return 1000 * recent[int(_HIGH_QUANTILE * (len(recent) - 1))] if recent else 0.0

    # Slots

    def _take(self, queue: deque[_Waiter], slots: int, at_least: int) -> int:
        with self._lock:
            if self._free >= at_least and not queue and not self._goes_first(queue):
                return self._grant(slots)
            waiter = _Waiter(slots, at_least)
            waiter.ready.acquire()
            queue.append(waiter)
        try:
            waiter.ready.acquire()
        except BaseException:  # a signal's handler raised in the main thread
            self._leave(queue, waiter)
            raise
        return waiter.granted

    def _goes_first(self, queue: deque[_Waiter]) -> bool:
        """Whether somebody waits who goes before a newcomer to this queue."""
        return bool(self._pushes) if queue is self._batches else self._has_old_batch()

    def _has_old_batch(self) -> bool:
        return bool(self._batches) and time.monotonic() - self._batches[0].since > LONGEST_SHARD_WAIT_S

    def _grant(self, slots: int) -> int:
        granted = min(slots, self._free)
        self._free -= granted
        return granted

    def _give_back(self, slots: int) -> None:
        with self._lock:
            self._free += slots
            if self._pushes or self._batches:
                self._wake()

    def _leave(self, queue: deque[_Waiter], waiter: _Waiter) -> None:
        """Stop waiting; the slots may have been granted already."""
        with self._lock:
            if waiter in queue:
                queue.remove(waiter)
            self._free += waiter.granted
            self._wake()

    def _wake(self) -> None:
        """Grant the free slots to those who are next, in order; the lock is held."""
        while self._free and (self._pushes or self._batches):
            queue = self._pushes if self._pushes and not self._has_old_batch() else self._batches
            if queue[0].at_least > self._free:
                return
            waiter = queue.popleft()
            waiter.granted = self._grant(waiter.slots)
            waiter.ready.release()
