"""A belt: items reach the camera at their times, whatever has become of the items before.

The load is open: no answer is waited for before the next push. Answer times count from the moment at which an item was
due, not from when its push began, so that a late generator cannot make a line look fast (coordinated omission).
"""

import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Protocol

from orchestrator.contract.lines.answers import Answer

STOPPED_S = 2.0


class Pusher(Protocol):
    """What a belt needs of a client of the line."""

    def submit(self, item: str, image: bytes, *, deadline_ms: float, due: float) -> "Future[Answer]":
        """Push an image without waiting. due: `time.monotonic()` of the trigger, from which the deadline counts."""


class Clock:
    """The clock of a belt; tests have one that takes no time."""

    def now(self) -> float:
        return time.monotonic()

    def wait(self, seconds: float, stopping: threading.Event) -> None:
        """Wait, or until the belt is stopped."""
        stopping.wait(seconds)


@dataclass(frozen=True, slots=True)
class Sample:
    """One item. Seconds from the belt's start: when it was due, when its push began, when its answer came."""

    item: str
    due_s: float
    sent_s: float
    answered_s: float
    answer: Answer

    @property
    def ms(self) -> float:
        """From the moment when the item was due to its answer."""
        return 1000 * (self.answered_s - self.due_s)

    @property
    def late_send_ms(self) -> float:
        """By how much the generator was late."""
        return 1000 * (self.sent_s - self.due_s)


@dataclass(frozen=True, slots=True)
class BeltPlan:
    """prefix: of the items' names. deadline_ms: from the trigger. gate_ms: when the item reaches the gate."""

    prefix: str
    deadline_ms: float
    gate_ms: float


class Belt:
    """Pushes items at their times; `samples` fills while it runs."""

    def __init__(self, plan: BeltPlan, pusher: Pusher, clock: Clock | None = None) -> None:
        self.plan = plan
        self.samples: list[Sample] = []
        self.num_sent = 0
        self.elapsed_s = 0.0  # until the belt stopped, without the wait for the last answers
        self._pusher = pusher
        self._clock = clock or Clock()
        self._stopping = threading.Event()
        self._changed = threading.Condition()
        self._fault: BaseException | None = None
        self._pending: dict[str, tuple[float, float]] = {}  # by item: due, sent

    def run(self, arrivals: Iterable[float], images: Iterator[bytes]) -> None:
        """Push one image at each of these seconds from now; returns when the last was pushed or the belt stopped."""
        image = next(images)  # read before the belt starts, and each later one before its item is due
        start = self._clock.now()
        for number, due_s in enumerate(arrivals, start=1):
            self._wait_until(start + due_s)
            if self._stopping.is_set():
                break
            self._push(f"{self.plan.prefix}-{number}", image, start, due_s)
            image = next(images, b"")
        self.elapsed_s = self._clock.now() - start

    def stop(self) -> None:
        """Let `run` return; what was pushed may still be answered."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()

    def wait_for_answers(self, timeout_s: float, stopped_s: float = STOPPED_S) -> bool:
        """Wait until every item has its answer; False where some have none within the time.

        A stopped belt waits for `stopped_s` at most. Raises what the client raised instead of an answer.
        """

        def ended() -> bool:
            return not self._pending or self._fault is not None

        with self._changed:
            whole = self._changed.wait_for(lambda: ended() or self.stopped, timeout_s)
            if self.stopped:
                whole = self._changed.wait_for(ended, min(timeout_s, stopped_s))
        if self._fault is not None:
            raise self._fault
        return whole

    @property
    def stopped(self) -> bool:
        return self._stopping.is_set()

    @property
    def pending(self) -> dict[str, tuple[float, float]]:
        """The items without an answer: when each was due and sent, in seconds from the start."""
        with self._changed:
            return dict(self._pending)

    def _wait_until(self, moment: float) -> None:
        left_s = moment - self._clock.now()
        if left_s > 0:
            self._clock.wait(left_s, self._stopping)

    def _push(self, item: str, image: bytes, start: float, due_s: float) -> None:
        sent_s = self._clock.now() - start
        with self._changed:
            self._pending[item] = (due_s, sent_s)
        future = self._pusher.submit(item, image, deadline_ms=self.plan.deadline_ms, due=start + due_s)
        self.num_sent += 1
        future.add_done_callback(lambda done: self._answered(item, start, done))

    def _answered(self, item: str, start: float, done: "Future[Answer]") -> None:
        """Called by the client's thread, or at once where the answer was there already."""
        answered_s = self._clock.now() - start
        with self._changed:
            if (fault := done.exception()) is not None:
                self._fault = fault
                self._stopping.set()
            else:
                due_s, sent_s = self._pending.pop(item)
                answer = replace(done.result(), scores=(), stage_ms={})  # a belt may bring a million items
                self.samples.append(Sample(item, due_s, sent_s, answered_s, answer))
            self._changed.notify_all()
