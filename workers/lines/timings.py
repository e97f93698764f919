"""Measured times that predict others.

Only the last seconds count: where the machine was slow for a while, so that nothing could be in time and nothing was
tried, the first estimate counts again, and something is tried. One slow step is no slow time: beside few others the
first estimate counts, too, or one large image would let an idle line refuse the next ones, and never learn better.
"""

import statistics
import threading
import time
from collections import deque
from collections.abc import Callable

RECENT_S = 10.0
_LATEST = 256
_TYPICAL = 31  # of the latest times, of which the median is expected: a hiccup changes nothing
_FEW = 3
_HIGH = 0.98
_STANDS_S = 0.2  # what was computed: it is asked for several times an image, and takes some 30 µs


class Timing:
    """Milliseconds that one kind of step took; safe to share between threads."""

    def __init__(self, first_ms: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        """first_ms: an estimate, as long as little was measured lately; 0: none, so that something is tried."""
        self._first_ms = first_ms
        self._clock = clock
        self._latest: deque[tuple[float, float]] = deque(maxlen=_LATEST)  # when, ms
        self._computed = (-1.0, first_ms, first_ms)  # when, expected, high

    def add(self, ms: float) -> None:
        """A step took so long."""
        self._latest.append((self._clock(), ms))

    @property
    def expected_ms(self) -> float:
        return self._now()[1]

    @property
    def high_ms(self) -> float:
        """What few steps exceed."""
        return self._now()[2]

    def _now(self) -> tuple[float, float, float]:
        now = self._clock()
        if now - self._computed[0] >= _STANDS_S:
            recent = [ms for at, ms in self._latest.copy() if at >= now - RECENT_S]
            if len(recent) < _FEW:
                recent.append(self._first_ms)
            expected = statistics.median_low(recent[-_TYPICAL:])
            if len(recent) >= _FEW:
                self._first_ms = min(self._first_ms, expected)  # it was made in a slow moment
            self._computed = (now, expected, sorted(recent)[int(_HIGH * (len(recent) - 1))])
        return self._computed


class BatchTimings:
    """How long a model takes for a batch of each size; safe to share between threads."""

    def __init__(self) -> None:
        self._by_size: dict[int, Timing] = {}
        self._lock = threading.Lock()

    def add(self, size: int, ms: float) -> None:
        with self._lock:
            self._by_size.setdefault(size, Timing(ms)).add(ms)

    def expected_ms(self, size: int) -> float:
        """Of this size, or the nearest that was measured."""
        return self._of(size).expected_ms

    def high_ms(self, size: int) -> float:
        return self._of(size).high_ms

    def all_expected_ms(self) -> dict[int, float]:
        """By batch size."""
        with self._lock:
            return {size: timing.expected_ms for size, timing in sorted(self._by_size.items())}

    def _of(self, size: int) -> Timing:
        with self._lock:
            nearest = min(self._by_size, key=lambda known: abs(known - size), default=None)
            return self._by_size[nearest] if nearest is not None else Timing()
