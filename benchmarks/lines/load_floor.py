"""The load generator's client of the floor: an entry of a stream for each image, and answers that are published.

What is pushed at once is sent in one round trip.
"""

import os
import time
from typing import Any

import redis

from benchmarks.lines.load import Finished

STREAM, GROUP, ANSWERS = "floor", "workers", "floor:answers:"


class FloorTarget:
    """No deadline, no record, and nothing is pushed twice."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url)
        self._unsent: list[dict[str, bytes | str | int]] = []
        self._answers = ANSWERS + os.urandom(8).hex()
        self._published: Any = self._client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
        self._published.subscribe(self._answers)
        self._published.get_message(timeout=5.0)

    def submit(self, number: int, image: bytes, deadline_ms: int, due: float) -> None:
        self._unsent.append({"number": number, "image": image, "to": self._answers})

    def wait(self, seconds: float) -> list[Finished]:
        self._send()
        found = []
        message = self._published.get_message(timeout=seconds)
        while message is not None:
            found.append(Finished(int(message["data"]), time.monotonic()))
            message = self._published.get_message(timeout=0.0)
        return found

    def _send(self) -> None:
        if not self._unsent:
            return
        with self._client.pipeline(transaction=False) as pipeline:
            for entry in self._unsent:
                pipeline.xadd(STREAM, entry)  # type: ignore[arg-type]
            pipeline.execute()
        self._unsent.clear()

    def close(self) -> None:
        self._client.close()
