"""Errors of single lines: their keys on a server may be written by everybody who may push to them."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

import redis

from orchestrator.contract.server import SERVER_ERRORS

logger = logging.getLogger(__name__)

_AGAIN_S = 1.0


class LinesApart:
    """Keeps an error of one line from the others, and says it once; safe to share between threads.

    Errors of the server itself are those of all its lines, and go on as they are.
    """

    def __init__(self) -> None:
        self._failing: dict[tuple[str, str], tuple[float, str]] = {}  # by line and task: when it failed last, and how

    @contextmanager
    def only(self, line: str, task: str) -> Iterator[None]:
        """What fails in the block fails for this line only. task: what is done, as a noun."""
        try:
            yield
        except SERVER_ERRORS:
            raise
        except Exception as err:
            if (line, task) not in self._failing:
                unforeseen = None if isinstance(err, redis.ResponseError) else err
                logger.warning("line %s: %s fails, trying again: %s", line, task, err, exc_info=unforeseen)
            self._failing[line, task] = (time.monotonic(), f"{task} fails: {err}"[:300])
        else:
            if self._failing.pop((line, task), None):
                logger.info("line %s: %s works again", line, task)

    def rests(self, line: str, task: str) -> bool:
        """Whether a task has failed a moment ago, so that it should not be tried again yet."""
        failed = self._failing.get((line, task))
        return failed is not None and time.monotonic() - failed[0] < _AGAIN_S

    def trouble(self, line: str) -> str | None:
        """What fails of a line now."""
        return next((trouble for (name, _), (_, trouble) in self._failing.copy().items() if name == line), None)

    def forget(self, line: str) -> None:
        """A line is served no longer."""
        for key in [key for key in self._failing.copy() if key[0] == line]:
            self._failing.pop(key, None)
