"""The load generator's client of a line: `LineClient`, as users have it."""

import time
from concurrent.futures import Future
from functools import partial
from queue import Empty, SimpleQueue

from benchmarks.lines.load import Finished, Load
from orchestrator.contract.lines.answers import Answer
from orchestrator.lines import LineClient


class LineTarget:
    """Pushes on one `LineClient`; futures that have ended are collected by the sending thread."""

    def __init__(self, load: Load) -> None:
        self._name = load.name
        self._ended: SimpleQueue[Finished] = SimpleQueue()
        self._client = LineClient(load.line, load.url, deadline=load.deadline_all_ms / 1000, fallback=load.fallback)

    def submit(self, number: int, image: bytes, deadline_ms: int, due: float) -> None:
        triggered_at = time.time() - (time.monotonic() - due)
        item = f"{self._name}-{number}"
        future = self._client.submit(image, item, 1, deadline=deadline_ms / 1000, triggered_at=triggered_at)
        future.add_done_callback(partial(self._end, number))

    def _end(self, number: int, future: "Future[Answer]") -> None:
        done = time.monotonic()
        if (err := future.exception()) is not None:
            self._ended.put(Finished(number, done, error=f"{type(err).__name__}: {err}", predicted=False))
            return
        answer = future.result()
        self._ended.put(
            Finished(number, done, answer.bin, answer.reason or "", answer.model or "", predicted=answer.predicted)
        )

    def wait(self, seconds: float) -> list[Finished]:
        found = []
        try:
            found.append(self._ended.get(timeout=seconds) if seconds > 0 else self._ended.get_nowait())
            while True:
                found.append(self._ended.get_nowait())
        except Empty:
            return found

    def close(self) -> None:
        self._client.close()
