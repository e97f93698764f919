"""Events of a running computation, and how often it reports how far it is."""

import time
from collections.abc import Callable
from typing import Any

Emit = Callable[[dict[str, Any]], None]
"""Takes an event, which JSON can hold: its key `event` names the kind."""

OnProgress = Callable[[int, int | None], None]
"""Takes how much is done, and of how much, if that is known."""

_EVERY_S = 0.5


class Progress:
    """Passes progress on every half second at most, and always at the end."""

    def __init__(self, report: OnProgress, *, at_once: bool = False) -> None:
        """at_once: the first call is reported too, however early it is."""
        self._report = report
        self._reported_at = float("-inf") if at_once else time.monotonic()

    def update(self, num_done: int, total: int | None) -> None:
        """Report this, unless a report was made just before."""
        if num_done == total or time.monotonic() - self._reported_at >= _EVERY_S:
            self._report(num_done, total)
            self._reported_at = time.monotonic()
