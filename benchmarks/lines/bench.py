"""What the parts of the benchmark share: the system, the library, the load, and how a part says what it found."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.lines.ideal import poisson_arrivals_ms
from benchmarks.lines.load import Load, read_images
from benchmarks.lines.runs import Outcome, Place
from benchmarks.lines.system import FALLBACK, LINE, System

if TYPE_CHECKING:
    from benchmarks.lines.library import Library

WINDOW = 64  # requests in flight that saturate any of the systems here
WARM_UP = 200
PAUSE_S = 0.05  # between single images, on an idle line and with the library


@dataclass(frozen=True)
class Options:
    """seconds: of each load. repeats: of each comparison; medians count."""

    seconds: float
    repeats: int
    seed: int


@dataclass
class Row:
    """One row of the table. met: whether `value` is what is required; None: it is stated, no more."""

    what: str
    required: str
    value: str
    met: bool | None = None
    figures: dict[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        mark = {True: "yes", False: "NO", None: ""}[self.met]
        return f"| {self.what} | {self.required} | {self.value} | {mark} |"


@dataclass
class Cost:
    """Processor seconds that were spent in a block."""

    server_s: float = 0.0
    workers_s: float = 0.0


@dataclass
class Bench:
    """The running system and what it is measured with."""

    system: System
    options: Options

    @cached_property
    def library(self) -> "Library":
        from benchmarks.lines.library import Library  # torch

        return Library(self.system.versions[0], read_images(self.system.images))

    @cached_property
    def place(self) -> Place:
        scratch = self.system.folder / "runs"
        scratch.mkdir(exist_ok=True)
        load = Load("line", self.system.url, str(self.system.images), "", "push", line=LINE, fallback=FALLBACK)
        return Place(load, scratch)

    @cached_property
    def _first_rate(self) -> float:
        self.place.closed(WINDOW, WARM_UP)
        return self.place.closed(WINDOW, 2 * WARM_UP).rate()

    def saturate(self, seconds: float, place: Place | None = None) -> Outcome:
        """A closed loop for about so many seconds; place: another way in than the line's own client."""
        outcome = (place or self.place).closed(WINDOW, max(WARM_UP, round(seconds * self._first_rate)))
        self.require(outcome)
        return outcome

    def capacity(self, place: Place | None = None) -> float:
        """Pushes per second that the system answers when it is saturated, beside the load generator."""
        return self.saturate(self.options.seconds / 2, place).rate()

    def arrivals(self, per_second: float, repeat: int, seconds: float | None = None) -> NDArray[np.float64]:
        """Poisson arrivals, in ms."""
        count = max(20, round(per_second * (seconds or self.options.seconds)))
        return poisson_arrivals_ms(per_second, count, self.options.seed + repeat)

    @contextmanager
    def cost(self) -> Iterator[Cost]:
        """Processor time of server and workers in the block."""
        cost, (server_before, workers_before) = Cost(), self._processor_seconds()
        yield cost
        server_after, workers_after = self._processor_seconds()
        cost.server_s, cost.workers_s = server_after - server_before, workers_after - workers_before

    def _processor_seconds(self) -> tuple[float, float]:
        server, workers = self.system.server.cpu_times(), [p.cpu_times() for p in self.system.worker_processes()]
        return server.user + server.system, sum(times.user + times.system for times in workers)

    def require(self, outcome: Outcome) -> None:
        """Raises RuntimeError where the outcome is none to measure with."""
        problems = outcome.problems()
        if problems or not outcome.predicted.any():
            raise RuntimeError(f"{'; '.join(problems) or 'nothing was predicted'}; reasons: {outcome.reasons()}")


Part = Callable[[Bench], list[Row]]


def median(values: list[float], digits: int = 3) -> float:
    return round(statistics.median(values), digits)


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = 60.0) -> float:
    """Seconds until the condition holds. Raises TimeoutError."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > timeout_s:
            raise TimeoutError(f"waited {timeout_s:.0f} s in vain until {what}")
        time.sleep(0.005)
    return time.monotonic() - started
