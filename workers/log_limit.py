"""Log lines about what anybody may cause as often as they like."""

import logging
import time
from collections.abc import Callable


class LogLimit:
    """Writes at most `num_lines` lines in `period_s`; a line after that counts those that were left out."""

    def __init__(
        self,
        logger: logging.Logger,
        *,
        num_lines: int = 10,
        period_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._num_lines = num_lines
        self._period_s = period_s
        self._clock = clock
        self._started = -period_s
        self._num_written = 0
        self._num_left_out = 0

    def warning(self, text: str, *values: object) -> None:
        """Log a warning, or count it."""
        self._write(logging.WARNING, text, values, None)

    def error(self, text: str, *values: object, exc_info: BaseException | None = None) -> None:
        """Log an error, or count it."""
        self._write(logging.ERROR, text, values, exc_info)

    def _write(self, level: int, text: str, values: tuple[object, ...], exc_info: BaseException | None) -> None:
        now = self._clock()
        if now - self._started >= self._period_s:
            if self._num_left_out:
                self._logger.warning("%d lines like the following were left out", self._num_left_out)
            self._started, self._num_written, self._num_left_out = now, 0, 0
        if self._num_written == self._num_lines:
            self._num_left_out += 1
            return
        self._num_written += 1
        self._logger.log(level, text, *values, exc_info=exc_info)
        if self._num_written == self._num_lines:
            self._logger.warning("further lines like this one are left out for %.0f s", self._period_s)
