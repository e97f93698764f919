"""Answers on their way to one controller, over as many connections as it has."""

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.telegrams.spool import Facts


@dataclass(eq=False, slots=True)
class PendingItem:
    """An item that is not finished.

    values: of its answer, once there is one. again: it may have been sent before. pushing: as long as the line's client
    has not taken it.
    """

    number: int
    facts: Facts
    size: int = 0
    values: Mapping[str, Any] | None = None
    again: bool = False
    pushing: asyncio.Task[None] | None = None


class Outbox:
    """The answers that a controller has not acknowledged; each is with one connection at a time."""

    def __init__(self) -> None:
        self._waiting: deque[PendingItem] = deque()
        self._changed = asyncio.Event()
        self.num_users = 0  # connections

    def put(self, entry: PendingItem) -> None:
        """An answer has come."""
        self._waiting.append(entry)
        self._changed.set()

    def put_back(self, entry: PendingItem) -> None:
        """A connection ended before the answer was acknowledged: it is the next to be sent."""
        entry.again = True
        self._waiting.appendleft(entry)
        self._changed.set()

    async def take(self, wait_s: float) -> PendingItem | None:
        """The next answer, which the caller acknowledges or puts back; None where none comes in so long."""
        try:
            async with asyncio.timeout(wait_s):
                while not self._waiting:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return None
        return self._waiting.popleft()
