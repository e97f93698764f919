"""Every push is decided by its deadline: by the server's record, or by the client where that does not come in time."""

import heapq
import itertools
import threading
import time
from collections import deque
from functools import partial
from typing import Any

from orchestrator.contract.lines.channel import Channel
from orchestrator.contract.lines.commands import LineCommands, require_all
from orchestrator.lines.admissions import NEVER
from orchestrator.lines.pushes import MOST_HELD, Pushes
from orchestrator.lines.request import PushRequest

SETTLE_TIMEOUT_S = 0.012  # a decision is there 20 ms after the deadline, also where the server is frozen
MOST_AT_ONCE = 100
MOST_DECIDED = 1_000  # kept in the heap until their deadline
MOST_LATE_S = 0.015  # what is so late is not asked for behind others


class Deadlines:
    """A heap of deadlines. `add` is safe between threads; the rest belongs to one."""

    def __init__(self, pushes: Pushes, commands: LineCommands, client_id: str) -> None:
        self._pushes = pushes
        self._commands = commands
        self._client_id = client_id
        self._channel: Channel | None = None
        self._heap: list[tuple[float, int, PushRequest]] = []
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._over: deque[PushRequest] = deque()  # their deadline is over, and the server was not asked yet
        self._asked: list[PushRequest] = []
        self.asked_until = NEVER
        self._silent = False  # the server did not answer in time when it was asked last

    def add(self, request: PushRequest) -> None:
        """See to a push from now on; its deadline is known."""
        assert request.due is not None
        with self._lock:
            heapq.heappush(self._heap, (request.due, next(self._numbers), request))
            if len(self._heap) > MOST_DECIDED + 2 * len(self._pushes):  # of long deadlines
                self._heap = [entry for entry in self._heap if not entry[2].decided]
                heapq.heapify(self._heap)

    def next_s(self) -> float:
        """When there is something to do, by the monotonic clock."""
        with self._lock:
            while self._heap and self._heap[0][2].decided:
                heapq.heappop(self._heap)
            due = self._heap[0][0] if self._heap else NEVER
        return min(due, self.asked_until)

    def connected(self, channel: Channel | None) -> None:
        """There is a new connection, or none: what was asked for is not answered any more."""
        self._channel, self._silent = channel, False
        self._give_up_asked()

    def heard(self) -> None:
        """The server said something."""
        self._silent = False

    def on_time(self, now: float) -> None:
        if now >= self.asked_until:
            self._silent = True
            self._give_up_asked()
        self._take_over(now)
        self._decide(now, behind_others=bool(self._asked))

    def _take_over(self, now: float) -> None:
        """What has reached its deadline; of several pushes of a key one, since the record decides all."""
        with self._lock:
            due = []
            while self._heap and (self._heap[0][0] <= now or self._heap[0][2].decided):
                request = heapq.heappop(self._heap)[2]
                if not request.decided:
                    due.append(request)
        keys = {request.key for request in self._over}
        for request in due:
            if request.key not in keys and not self._pushes.decide_before_others(request):
                keys.add(request.key)
                self._over.append(request)

    def _decide(self, now: float, *, behind_others: bool) -> None:
        """Ask the server, or decide alone where that takes too long."""
        if not self._over:
            return
        if self._channel is None or self._silent or self._pushes.line is None:
            self._decide_alone(self._pop_over(), reachable=False)
            return
        if behind_others:
            late = sum(request.due is not None and now - request.due >= MOST_LATE_S for request in self._over)
            self._decide_alone(self._pop_over(late), reachable=True)
        if self._asked or not (asked := self._pop_over(MOST_AT_ONCE)):
            return
        self._asked, self.asked_until = asked, now + SETTLE_TIMEOUT_S
        decided = [self._pushes.verdict(request, reachable=True) for request in self._asked]
        command = self._commands.settle(decided, self._client_id)
        self._channel.send([command], partial(self._settled, self._channel, self._asked))

    def _pop_over(self, most: int = MOST_HELD) -> list[PushRequest]:
        """Those that are not decided meanwhile."""
        popped = [self._over.popleft() for _ in range(min(most, len(self._over)))]
        return [request for request in popped if not request.decided]

    def _settled(self, channel: Channel, asked: list[PushRequest], replies: list[Any]) -> None:
        [records] = require_all(replies)
        for request, record in zip(asked, records, strict=False):  # none where the server was emptied
            self._pushes.resolve(request.key, record)
        if asked is self._asked and channel is self._channel:
            self._give_up_asked()
            now = time.monotonic()
            self._take_over(now)
            self._decide(now, behind_others=True)

    def _give_up_asked(self) -> None:
        """The server has answered, or does not: what has no decision now gets the client's."""
        asked, self._asked, self.asked_until = self._asked, [], NEVER
        self._decide_alone([request for request in asked if not request.decided], reachable=False)

    def _decide_alone(self, requests: list[PushRequest], *, reachable: bool) -> None:
        for request in requests:
            self._pushes.decide_alone(request, reachable=reachable)
