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

    def __init__(
        self, report: OnProgress, *, report_first: bool = False, report_last: bool = True, every_s: float = _EVERY_S
    ) -> None:
        """report_first, report_last: also report the first call, and always the last. every_s: at most so often."""
        self._report = report
        self._report_last = report_last
        self._every_s = every_s
        self._reported_at = float("-inf") if report_first else time.monotonic()

    def update(self, num_done: int, total: int | None) -> None:
        """Report this, unless the last report is too recent."""
        is_last = self._report_last and num_done == total
        if is_last or time.monotonic() - self._reported_at >= self._every_s:
            self._report(num_done, total)
            self._reported_at = time.monotonic()


_SIGN_OF_LIFE_S = 5.0


def signs_of_life(emit: Emit, event: str, **facts: Any) -> Progress:
    """Emits an event with `num_done` and `num_images` every few seconds, of work that nobody else reports.

    The worker ends the process when it has been silent for long.
    """

    def report(num_done: int, num_images: int | None) -> None:
        emit({"event": event, **facts, "num_done": num_done, "num_images": num_images})

    return Progress(report, report_last=False, every_s=_SIGN_OF_LIFE_S)


QUIET_S = 2 * 3600.0


def quiet_phase(emit: Emit, text: str) -> None:
    """Emits that something begins which may take long without a further event: not to be taken for a hang."""
    emit({"event": "phase", "text": text, "quiet_s": QUIET_S})
