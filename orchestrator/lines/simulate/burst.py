"""How many items a second the line's workers can take: measured by a short load that is closed.

A number of pushes is kept waiting; each answer is followed by the next push. The number doubles from step to step, as
long as that makes the line faster.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass

from orchestrator.contract.lines.answers import Answer
from orchestrator.contract.lines.settings import LineSettings
from orchestrator.lines.simulate.belt import Clock, Pusher

STEP_S = 1.0
FEWEST_STEPS = 3  # one step alone may be slow by chance
FIRST_IN_FLIGHT = 16
MOST_IN_FLIGHT = 512
PAYS = 1.05  # a step that is faster by less than this is the last
BUSY_CLIENT = 0.9  # of a core: this process was the limit, not the line
_DEADLINE_MS = 20_000.0  # nothing is late here; what waits is bounded by the number in flight
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Capacity:
    """in_flight: pushes that were waiting for answers. client_cpu: of a core, of this process, client included."""

    per_second: float
    duration_s: float
    in_flight: int
    client_cpu: float

    @property
    def client_bound(self) -> bool:
        """Whether the line might take more: this process was busy itself."""
        return self.client_cpu > BUSY_CLIENT


def most_in_flight(settings: LineSettings, image_bytes: int) -> int:
    """Pushes that may wait at a time: at most half of what the line's bounds allow, so that nothing is refused."""
    by_bytes = settings.max_bytes // 2 // max(image_bytes, 1)
    return max(1, min(MOST_IN_FLIGHT, settings.max_requests // 2, by_bytes))


class Burst:
    """Measures the capacity of a line; `run` returns None where nothing was predicted, or it was stopped before."""

    def __init__(
        self, prefix: str, pusher: Pusher, clock: Clock | None = None, cpu_s: Callable[[], float] = time.process_time
    ) -> None:
        self._prefix = prefix
        self._pusher = pusher
        self._clock = clock or Clock()
        self._cpu_s = cpu_s
        self._stopping = threading.Event()
        self._changed = threading.Condition()
        self._waiting = 0
        self._num_pushed = 0
        self._num_predicted = 0

    def run(self, images: Iterator[bytes], most_waiting: int) -> Capacity | None:
        start, best, num_steps = self._clock.now(), None, 0
        waiting = min(FIRST_IN_FLIGHT, most_waiting)
        while not self._stopping.is_set():
            per_second, cpu = self._step(images, waiting)
            num_steps += 1
            faster = best is None or per_second > best.per_second
            pays = best is None or per_second > PAYS * best.per_second
            if faster and per_second > 0:
                best = Capacity(per_second, 0.0, waiting, cpu)
            if (num_steps >= FEWEST_STEPS and (not pays or best is None)) or waiting >= most_waiting:
                break
            waiting = min(2 * waiting, most_waiting)
        self._drain()
        if best is None:
            return None
        return Capacity(best.per_second, self._clock.now() - start, best.in_flight, best.client_cpu)

    def stop(self) -> None:
        """Let `run` return."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()

    def _step(self, images: Iterator[bytes], waiting: int) -> tuple[float, float]:
        """Predicted items a second with so many pushes waiting, and this process's share of a core."""
        start, cpu, before = self._clock.now(), self._cpu_s(), self._num_predicted
        while (elapsed := self._clock.now() - start) < STEP_S and not self._stopping.is_set():
            with self._changed:
                free = self._changed.wait_for(lambda: self._waiting < waiting, min(_POLL_S, STEP_S - elapsed))
                self._waiting += free
            if free:
                self._push(next(images))
        elapsed = max(self._clock.now() - start, 1e-9)
        return (self._num_predicted - before) / elapsed, (self._cpu_s() - cpu) / elapsed

    def _push(self, image: bytes) -> None:
        self._num_pushed += 1
        item = f"{self._prefix}-{self._num_pushed}"
        future = self._pusher.submit(item, image, deadline_ms=_DEADLINE_MS, due=self._clock.now())
        future.add_done_callback(self._answered)

    def _answered(self, done: "Future[Answer]") -> None:
        with self._changed:
            self._waiting -= 1
            self._num_predicted += done.exception() is None and done.result().predicted
            self._changed.notify_all()

    def _drain(self) -> None:
        """Wait for what was pushed, so that it is not counted against what comes later."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting or self._stopping.is_set(), _DEADLINE_MS / 1000)
