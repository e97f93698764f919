"""Running the load generator, and what its requests became."""

import json
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.lines.load import Load

_NUMBERS = count()
REFUSED = ("busy", "paused")  # never admitted; what a client decided alone may have been
MARGIN_MS = 20.0  # after the deadline: by then every answer is with its caller


@dataclass(frozen=True)
class Outcome:
    """All requests of one run of the load generator; times in seconds of `time.monotonic()`, NaN where there is none.

    cpu_s: of the load generator's process, its client of the system included.
    """

    due: NDArray[np.float64]
    deadline_ms: NDArray[np.int64]
    sent: NDArray[np.float64]
    done: NDArray[np.float64]
    decisions: NDArray[np.int64]
    predicted: NDArray[np.bool_]
    bin: NDArray[np.str_]
    reason: NDArray[np.str_]
    model: NDArray[np.str_]
    error: NDArray[np.str_]
    cpu_s: float

    @property
    def was_sent(self) -> NDArray[np.bool_]:
        return ~np.isnan(self.sent)

    @property
    def num_sent(self) -> int:
        return int(self.was_sent.sum())

    @property
    def latency_ms(self) -> NDArray[np.float64]:
        """From the time that each was due; NaN where there was no answer."""
        return (self.done - self.due) * 1000

    @property
    def in_time(self) -> NDArray[np.bool_]:
        """Predicted, and with the caller before the deadline."""
        return self.predicted & (self.latency_ms <= self.deadline_ms)

    @property
    def admitted(self) -> NDArray[np.bool_]:
        """Those that the server took."""
        return self.was_sent & ~np.isin(self.reason, REFUSED)

    @property
    def lateness_ms(self) -> NDArray[np.float64]:
        """How long after its deadline each decision came."""
        return self.latency_ms - self.deadline_ms

    def between(self, start: float, end: float) -> NDArray[np.bool_]:
        """Those answered in a span of time."""
        return (self.done >= start) & (self.done < end)

    def rate(self) -> float:
        """Predicted requests per second, without the first and last tenth: a closed loop starts and ends idle."""
        done = np.sort(self.done[self.predicted])
        inner = done[len(done) // 10 : len(done) - len(done) // 10]
        return float((len(inner) - 1) / (inner[-1] - inner[0]))

    def percentile(self, share: float) -> float:
        """Of the latency in ms."""
        return float(np.nanpercentile(self.latency_ms[self.was_sent], share))

    def reasons(self) -> dict[str, int]:
        """How many of each reason; `accept` is none."""
        return dict(Counter(text or "accept" for text in self.reason[self.was_sent].tolist()).most_common())

    @property
    def later_than_margin(self) -> NDArray[np.bool_]:
        """Those decided later than the margin after their deadline."""
        return self.was_sent & (self.lateness_ms > MARGIN_MS)

    def late_reasons(self) -> dict[str, int]:
        """How many of those have each reason."""
        late = self.reason[self.later_than_margin].tolist()
        return dict(Counter(text or "accept" for text in late).most_common())

    def problems(self) -> list[str]:
        """What must never be: failures, requests without a decision, or with two."""
        sent = self.was_sent
        failed = Counter(text for text in self.error.tolist() if text)
        found = [f"{number} failed: {text}" for text, number in failed.most_common(3)]
        if missing := int((sent & (self.decisions == 0)).sum()):
            found.append(f"{missing} of {self.num_sent} without a decision")
        if doubled := int((self.decisions > 1).sum()):
            found.append(f"{doubled} with two decisions")
        return found


class Generator:
    """A running load generator."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.lines.load"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._write(load.to_json())
        self._read()

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(self) -> None:
        """Begin; it has read its images and imported what it needs."""
        self._write("go")

    def stop(self) -> None:
        """No more requests; what is in flight is waited for."""
        self._write("stop")

    @property
    def sending(self) -> bool:
        """Whether its last answer is still to come."""
        assert self._process.stdout is not None
        return not select.select([self._process.stdout], [], [], 0)[0]

    def outcome(self) -> Outcome:
        """Wait for its end. Raises RuntimeError if it failed."""
        cost = self._read()
        self.close()
        with np.load(self.load.output) as arrays:
            found = Outcome(**{name: arrays[name] for name in arrays.files}, cpu_s=cost["cpu_s"])
        Path(self.load.output).unlink()
        return found

    def close(self) -> None:
        """End it."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the load generator ended with {self._process.wait()}; its errors are above")
        answer: dict[str, Any] = json.loads(line)
        return answer


@dataclass(frozen=True)
class Place:
    """Where the load generator pushes to, and its files."""

    load: Load
    scratch: Path

    def closed(self, window: int, num_requests: int, deadline_ms: int = 60_000) -> Outcome:
        """A number of requests always in flight."""
        load = replace(self._next(), window=window, count=num_requests, deadline_all_ms=deadline_ms)
        with generator(load) as running:
            running.start()
            return running.outcome()

    def opened(self, due_ms: NDArray[np.floating[Any]], deadline_ms: int | NDArray[np.int64]) -> Outcome:
        """Requests at given times, in ms from the start."""
        with self.opening(due_ms, deadline_ms) as running:
            running.start()
            return running.outcome()

    @contextmanager
    def opening(self, due_ms: NDArray[np.floating[Any]], deadline_ms: int | NDArray[np.int64]) -> Iterator[Generator]:
        """A load generator that is ready to send at given times."""
        load = self._next()
        due_file, deadline_file = f"{load.output}.due.npy", f"{load.output}.deadlines.npy"
        np.save(due_file, due_ms / 1000)
        np.save(deadline_file, np.broadcast_to(np.asarray(deadline_ms, np.int64), due_ms.shape))
        most = int(np.max(deadline_ms))
        with generator(replace(load, due_s=due_file, deadline_ms=deadline_file, deadline_all_ms=most)) as running:
            yield running

    def _next(self) -> Load:
        name = f"{self.load.name}-{time.time_ns():x}-{next(_NUMBERS)}"
        return replace(self.load, name=name, output=str(self.scratch / f"{name}.npz"))


@contextmanager
def generator(load: Load) -> Iterator[Generator]:
    """A load generator, ended at the end of the block."""
    running = Generator(load)
    try:
        yield running
    finally:
        running.close()
