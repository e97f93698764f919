"""The load generator's client of a Celery task an image: sends it, and follows the results as Celery's own client does.

One thread sends and receives, so that subscribing and reading do not meet.
"""

import contextlib
import time
from typing import Any

from celery.result import AsyncResult

from benchmarks.lines.load import Finished
from benchmarks.peers.lines.celery_app import TASK, make_app


class CeleryTarget:
    """A task an image; results come by the result backend's subscription."""

    def __init__(self, url: str) -> None:
        self._app = make_app(url)
        self._backend: Any = self._app.backend
        self._numbers: dict[str, int] = {}
        self._ended: list[Finished] = []

    def submit(self, number: int, image: bytes, deadline_ms: int, due: float) -> None:
        result = self._app.send_task(TASK, args=(image,))
        self._numbers[result.id] = number
        result.then(self._end, on_error=self._end)

    def _end(self, result: "AsyncResult[Any]") -> None:
        number = self._numbers.pop(result.id)
        error = "" if result.state == "SUCCESS" else str(result.result)
        self._ended.append(Finished(number, time.monotonic(), error=error, predicted=not error))

    def wait(self, seconds: float) -> list[Finished]:
        end = time.monotonic() + seconds
        while not self._ended and self._numbers:
            with contextlib.suppress(TimeoutError):
                self._backend.result_consumer.drain_events(timeout=max(end - time.monotonic(), 0.0001))
            if time.monotonic() >= end:
                break
        if not self._ended and (left := end - time.monotonic()) > 0:
            time.sleep(left)
        ended, self._ended = self._ended, []
        return ended

    def close(self) -> None:
        self._app.close()
