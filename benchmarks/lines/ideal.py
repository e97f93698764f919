"""What a machine could do at best with the same arrivals: a queue without overhead, simulated event by event.

Nothing is sent, stored or waited for in it; only the measured times of batches pass. A line is compared with it.
"""

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Order = Literal["arrival", "deadline"]
Times = NDArray[np.float64]


@dataclass(frozen=True)
class Machine:
    """Servers that work at the same time, such as the streams of an engine.

    batch_ms: how long a server takes for 1, 2, 3, ... images, decoding included. alone_ms: how long one image takes
    that has all servers to itself; None: no image does.
    """

    servers: int
    batch_ms: tuple[float, ...]
    alone_ms: float | None = None

    @property
    def capacity(self) -> float:
        """Images per second if all servers always work."""
        return self.servers * max(1000 * size / spent_ms for size, spent_ms in enumerate(self.batch_ms, 1))


def simulate(
    arrivals_ms: Sequence[float] | Times,
    machine: Machine,
    *,
    deadlines_ms: Sequence[float] | Times | None = None,
    order: Order = "arrival",
    drop: bool = False,
) -> Times:
    """When each request is answered, in ms from its arrival; NaN: it was dropped.

    A server never rests while a request waits, and takes as many as a batch holds. arrivals_ms: rising.
    deadlines_ms: of each request, from its arrival. order: who is served first. drop: a request is not served that
    would be late by then; else late ones are served, too.
    """
    arrivals = np.asarray(arrivals_ms, np.float64)
    due = arrivals + (np.inf if deadlines_ms is None else np.asarray(deadlines_ms, np.float64))
    queue = _Queue(due if order == "deadline" else arrivals)
    free = [0.0] * machine.servers  # a heap: when each server is idle again
    answered = np.full(len(arrivals), np.nan)
    following, now = 0, 0.0
    while following < len(arrivals) or queue:
        now = max(now, free[0], 0.0 if queue else arrivals[following])
        while following < len(arrivals) and arrivals[following] <= now:
            queue.extend([following])
            following += 1
        taken = queue.pop(len(machine.batch_ms))
        alone_ms = machine.alone_ms if len(taken) == 1 and not queue and max(free) <= now else None
        end = now + (machine.batch_ms[len(taken) - 1] if alone_ms is None else alone_ms)
        if drop and (punctual := [number for number in taken if end <= due[number]]) != taken:
            queue.extend(punctual)
            continue
        answered[taken] = end
        if alone_ms is not None:
            free = [end] * machine.servers
        else:
            heapq.heapreplace(free, end)
    return answered - arrivals


def poisson_arrivals_ms(per_second: float, count: int, seed: int) -> Times:
    """The times of arrivals that know nothing of each other."""
    gaps = np.random.default_rng(seed).exponential(1000 / per_second, count)
    return np.cumsum(gaps)


class _Queue:
    """Requests that wait, by their place in an order."""

    def __init__(self, places: Times) -> None:
        self._places = places
        self._heap: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def extend(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            heapq.heappush(self._heap, (float(self._places[number]), number))

    def pop(self, most: int) -> list[int]:
        return [heapq.heappop(self._heap)[1] for _ in range(min(most, len(self._heap)))]
