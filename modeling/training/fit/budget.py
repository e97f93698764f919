"""The clock of a budget: the seconds that all attempts of a training have spent on fitting."""

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path

from modeling.durable import replace_durably
from modeling.training.attempt import attempt_number

_WRITE_EVERY_S = 5.0

logger = logging.getLogger(__name__)


class BudgetClock:
    """Runs from when it is made. Each attempt notes in a file of its own in the work folder what it has spent.

    What an attempt spent in the last seconds before it died is not counted, nor what it spent before its first step if
    it died before that.
    """

    def __init__(
        self,
        budget_s: float,
        work: Path | None = None,
        attempt: Path | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """work: None: nothing is noted. attempt: its file (see modeling.training.attempt)."""
        self._clock, self._started = clock, clock()
        self._file = None if work is None else work / f"spent.{attempt_number(attempt)}.json"
        self._own_before_s = 0.0 if self._file is None else _seconds_in(self._file)  # attempt 0 may begin again
        self._before_s = 0.0 if work is None else sum(map(_seconds_in, work.glob("spent.*.json")))
        self._budget_s = budget_s
        self._written_at = self._started

    @property
    def left_s(self) -> float:
        """Seconds that are left; negative when the budget is over."""
        return self._budget_s - self._before_s - (self._clock() - self._started)

    def is_over(self) -> bool:
        """Whether the budget is over; notes every few seconds what was spent."""
        if self._file is not None and self._clock() - self._written_at >= _WRITE_EVERY_S:
            self._written_at = self._clock()
            self._note(self._file)
        return self.left_s <= 0

    def _note(self, file: Path) -> None:
        spent = self._clock() - self._started + self._own_before_s
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            replace_durably(file, json.dumps({"spent_s": round(spent, 3)}).encode(), mode=None)
        except OSError as err:
            logger.warning("what this training has spent of its budget cannot be noted: %s", err)


def _seconds_in(path: Path) -> float:
    """What an earlier attempt has noted; 0 where that cannot be read."""
    try:
        return float(json.loads(path.read_bytes())["spent_s"])  # not by pydantic: half a note counts as none
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0
