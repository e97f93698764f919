"""Sends pushes: what is queued in one round trip while another is under way, and later where the line refuses."""

import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from orchestrator.contract.lines.answers import Reason
from orchestrator.contract.lines.channel import Channel
from orchestrator.contract.lines.commands import LineCommands, admissions
from orchestrator.contract.lines.requests import Admission, Push
from orchestrator.lines.pushes import Pushes, too_large
from orchestrator.lines.request import PushRequest

MOST_AT_ONCE = 64
BYTES_AT_ONCE = 1 << 20
SHORTEST_RETRY_S, LONGEST_RETRY_S = 0.01, 0.25  # after the line refused
PAUSED_RETRY_S = 1.0  # what a client gets where the line is paused, which says no time
UNKNOWN_RETRY_S = 0.05  # the server was emptied, and a worker fills it
NEVER = float("inf")


class Admissions:
    """The pushes of a client on their way to the server. `put` is safe between threads; the rest belongs to one."""

    def __init__(
        self, pushes: Pushes, commands: LineCommands, client_id: str, end_now: Callable[[PushRequest], None]
    ) -> None:
        """end_now: takes a push that is decided at once, since the line does not take it."""
        self._pushes = pushes
        self._commands = commands
        self._client_id = client_id
        self._end_now = end_now
        self._channel: Channel | None = None
        self._queue: deque[PushRequest] = deque()
        self._later: list[tuple[float, int, PushRequest]] = []
        self._numbers = itertools.count()
        self._under_way = False
        self._refuses = False  # the line's last word: ask before bytes travel
        self._lock = threading.Lock()

    def put(self, request: PushRequest) -> None:
        """Send a push: now, if none is under way."""
        with self._lock:
            self._queue.append(request)
            self._send()

    @property
    def next_s(self) -> float:
        """When a refused push is tried again, by the monotonic clock."""
        return self._later[0][0] if self._later and self._channel else NEVER

    def on_time(self, now: float) -> None:
        with self._lock:
            while self._later and self._later[0][0] <= now:
                self._queue.appendleft(heapq.heappop(self._later)[2])
            self._send()

    def connected(self, channel: Channel | None) -> None:
        """There is a new connection, or none."""
        with self._lock:
            self._channel, self._under_way = channel, False
        if channel:
            self.push_again()

    def push_again(self) -> None:
        """Everything that awaits its answer; first without the bytes, which the server may still have."""
        with self._lock:
            self._queue.clear()
            self._later.clear()
            for request in self._pushes.waiting():  # with the lock: else one that is put meanwhile would be cleared
                if request is self._pushes.first(request.key) and not request.unsendable:
                    request.ask = request.ask or request.sent
                    request.sent = False
                    self._queue.append(request)
            self._send()

    def _send(self) -> None:
        """With the lock."""
        if self._channel is None or self._under_way or not (batch := self._take_batch()):
            return
        self._under_way = True
        now = time.monotonic()
        pushes = [request.as_push(now) for request in batch]
        commands = self._commands.admit(pushes, self._client_id)
        self._channel.send(commands, partial(self._replied, self._channel, batch, pushes))

    def _take_batch(self) -> list[PushRequest]:
        """What is queued, within bounds; what is decided or due meanwhile is left out."""
        batch: list[PushRequest] = []
        size, now = 0, time.monotonic()
        while self._queue and len(batch) < MOST_AT_ONCE and size < BYTES_AT_ONCE:
            request = self._queue.popleft()
            if request.sent or request.unsendable or request.decided or request.due is None or request.due <= now:
                continue
            request.ask = request.ask or self._refuses
            size += 0 if request.ask else len(request.payload)
            batch.append(request)
        return batch

    def _replied(self, channel: Channel, batch: list[PushRequest], pushes: list[Push], replies: list[Any]) -> None:
        found = admissions(pushes, replies)
        for request, admission in zip(batch, found, strict=True):
            self._told(request, admission)
        with self._lock:
            if channel is self._channel:
                self._under_way = False
                self._send()

    def _told(self, request: PushRequest, admission: Admission) -> None:
        """What the line says to a push."""
        verdict = admission.verdict
        if admission.record:
            self._pushes.resolve(request.key, admission.record)
        elif verdict in ("admitted", "in_flight", "conflict"):
            request.conflict, request.reason = verdict == "conflict", None
            self._pushes.taken(request)
            self._refuses = self._refuses and verdict != "admitted"
        elif verdict == "welcome":
            request.ask = self._refuses = False
            self._queue.appendleft(request)
        elif verdict in ("busy", "paused"):
            self._refused(request, "busy" if verdict == "busy" else "paused", admission.retry_ms / 1000)
        elif verdict == "too_large":
            request.refuse("unreadable", too_large(request.size, admission.limit))
            self._end_now(request)
        elif verdict == "unknown":
            self._try_later(request, UNKNOWN_RETRY_S)

    def _refused(self, request: PushRequest, reason: Reason, told_s: float) -> None:
        self._refuses = True
        left = self._pushes.end_refused(request, reason, told_s or PAUSED_RETRY_S)
        if left:
            left.reason = reason
            self._try_later(left, _pause_before(left, told_s))

    def _try_later(self, request: PushRequest, wait_s: float) -> None:
        request.ask = True
        with self._lock:
            heapq.heappush(self._later, (time.monotonic() + wait_s, next(self._numbers), request))


def _pause_before(request: PushRequest, told_s: float) -> float:
    """How long to wait before asking again: a few times within a deadline, for asking costs time, too."""
    assert request.due is not None
    left_s = request.due - time.monotonic()
    return min(max(told_s, left_s / 3, SHORTEST_RETRY_S), LONGEST_RETRY_S)
