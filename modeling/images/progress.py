"""Event and progress callbacks of a running computation, and the throttle for progress reports."""

import time
from collections.abc import Callable
from typing import Any

Emit = Callable[[dict[str, Any]], None]
"""Receives an event, a dict that JSON can represent; its key `event` names the kind."""

OnProgress = Callable[[int, int | None], None]
"""Receives the number of finished items and the total (None if unknown)."""

Report = Callable[[str], None]
"""Receives what takes seconds now, in words for people."""

_EVERY_S = 0.5


def unreported(words: str) -> None:
    """A `Report` that nobody reads."""


class Progress:
    """Reports progress at most every half second, and always at the end."""

    def __init__(self, report: OnProgress, *, report_first: bool = False) -> None:
        """report_first: also report the first call."""
        self._report = report
        self._reported_at = float("-inf") if report_first else time.monotonic()

    def update(self, num_done: int, total: int | None) -> None:
        """Report this, unless the last report is less than half a second old."""
        if num_done == total or time.monotonic() - self._reported_at >= _EVERY_S:
            self._report(num_done, total)
            self._reported_at = time.monotonic()
