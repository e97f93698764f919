"""A clock that takes no time, and a client of a line that answers by a rule."""

import threading
from collections.abc import Callable
from concurrent.futures import Future

from orchestrator.contract.lines.answers import Answer
from orchestrator.lines.simulate.belt import Clock


class FakeClock(Clock):
    """Time passes only when somebody waits; `lateness` maps a moment of waking to seconds that pass in addition."""

    def __init__(self, lateness: dict[float, float] | None = None) -> None:
        self.moment = 100.0
        self._lateness = lateness or {}

    def now(self) -> float:
        return self.moment

    def wait(self, seconds: float, stopping: threading.Event) -> None:
        self.moment += seconds
        self.moment += self._lateness.get(round(self.moment - 100, 6), 0.0)


class FakePusher:
    """Answers at once by a rule, or keeps the futures for the test. Each push may take time on the clock."""

    def __init__(
        self, rule: Callable[[str], Answer | None], clock: FakeClock | None = None, push_s: float = 0.0
    ) -> None:
        """rule: the answer of an item; None: it is not answered."""
        self.pushed: list[tuple[str, bytes, float, float]] = []
        self._rule = rule
        self._clock = clock
        self._push_s = push_s

    def submit(self, item: str, image: bytes, *, deadline_ms: float, due: float) -> "Future[Answer]":
        self.pushed.append((item, image, deadline_ms, due))
        if self._clock is not None:
            self._clock.moment += self._push_s
        future: Future[Answer] = Future()
        if (answer := self._rule(item)) is not None:
            future.set_result(answer)
        return future


def accepted(item: str) -> Answer:
    """A plain accept."""
    return Answer(item, 1, "bin-1", label="a", score=0.9, decision="accept", model="m@1")
