"""Measured times that predict others: running means, and high quantiles of the latest ones."""

import threading
from collections import deque
from dataclasses import dataclass, field

_WEIGHT = 0.1  # of a new time in a running mean
_LATEST = 256
_HIGH = 0.98


@dataclass(slots=True)
class Timing:
    """Milliseconds that one kind of step took, the latest ones."""

    mean_ms: float = 0.0
    _latest: deque[float] = field(default_factory=lambda: deque(maxlen=_LATEST))

    def add(self, ms: float) -> None:
        """A step took so long. The mean follows slowly, so one hiccup does not make everything late."""
        self.mean_ms = ms if not self._latest else self.mean_ms + _WEIGHT * (ms - self.mean_ms)
        self._latest.append(ms)

    @property
    def high_ms(self) -> float:
        """What few steps exceed; 0 before the first."""
        latest = sorted(self._latest)
        return latest[min(len(latest) - 1, int(_HIGH * len(latest)))] if latest else 0.0


class BatchTimings:
    """How long a model takes for a batch of each size; safe to share between threads."""

    def __init__(self) -> None:
        self._by_size: dict[int, Timing] = {}
        self._lock = threading.Lock()

    def add(self, size: int, ms: float) -> None:
        with self._lock:
            self._by_size.setdefault(size, Timing()).add(ms)

    def mean_ms(self, size: int) -> float:
        """Of this size, or the nearest that was measured."""
        return self._of(size).mean_ms

    def high_ms(self, size: int) -> float:
        return self._of(size).high_ms

    def means(self) -> dict[int, float]:
        """Mean milliseconds by batch size."""
        with self._lock:
            return {size: timing.mean_ms for size, timing in sorted(self._by_size.items())}

    def _of(self, size: int) -> Timing:
        with self._lock:
            nearest = min(self._by_size, key=lambda known: abs(known - size), default=None)
            return self._by_size[nearest] if nearest is not None else Timing()
