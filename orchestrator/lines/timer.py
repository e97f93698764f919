"""The thread that sees to it that every push is decided by its deadline, whatever the server does."""

import heapq
import itertools
import threading
import time
from collections.abc import Callable

from orchestrator.contract.lines.store import LineStore
from orchestrator.lines.line_server import SERVER_FAULTS, LineServer
from orchestrator.lines.pushes import Pushes
from orchestrator.lines.request import PushRequest

SETTLE_TIMEOUT_S = 0.012  # of each step; a decision is there 20 ms after the deadline, also where the server is frozen
KEEP_ALIVE_S = 1.0
MOST_AT_ONCE = 100
MOST_DECIDED = 1_000  # kept in the heap until their deadline
MOST_LATE_S = 0.015  # what is so late is not asked for behind others


class Timer:
    """A heap of deadlines. At a deadline the server's record decides; where it says nothing in time, the client."""

    def __init__(self, pushes: Pushes, server: LineServer, client_id: str) -> None:
        self._pushes = pushes
        self._server = server
        self._client_id = client_id
        self._store: LineStore | None = None
        self._heap: list[tuple[float, int, PushRequest]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._stopping = False
        self.on_alone: Callable[[], None] = lambda: None  # called when the client has decided alone
        self.thread = threading.Thread(target=self._run, name="line-timer", daemon=True)

    def add(self, request: PushRequest) -> None:
        """See to a push from now on; its deadline is known."""
        assert request.due is not None
        with self._changed:
            heapq.heappush(self._heap, (request.due, next(self._numbers), request))
            if self._heap[0][2] is request:
                self._changed.notify()
            if len(self._heap) > MOST_DECIDED + 2 * len(self._pushes):  # of long deadlines
                self._heap = [entry for entry in self._heap if not entry[2].future.done()]
                heapq.heapify(self._heap)

    def stop(self) -> None:
        """Let the thread end when every push is decided."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def _run(self) -> None:
        while not self._ended:
            if due := self._wait():
                self._decide(due)
            else:
                self._keep_alive()

    @property
    def _ended(self) -> bool:
        return self._stopping and not len(self._pushes)

    def _wait(self) -> list[PushRequest]:
        """Wait for the next deadline: the pushes that have reached theirs; none after a while without any."""
        with self._changed:
            until = time.monotonic() + KEEP_ALIVE_S
            while not self._ended:
                now = time.monotonic()
                if (due := self._pop(now)) or now >= until:
                    return due
                self._changed.wait(min(self._heap[0][0] if self._heap else until, until) - now)
        return []

    def _keep_alive(self) -> None:
        """Open the connection before it is needed, and notice one that died."""
        if self._pushes.line is not None and not self._ended:
            try:
                self._open().client.ping()
                self._server.health.answered()
            except SERVER_FAULTS:
                self._server.health.failed()

    def _open(self) -> LineStore:
        if self._store is None:
            self._store = self._server.open(SETTLE_TIMEOUT_S)
        return self._store

    def _pop(self, now: float) -> list[PushRequest]:
        due: list[PushRequest] = []
        while self._heap and (self._heap[0][0] <= now or self._heap[0][2].future.done()):
            request = heapq.heappop(self._heap)[2]
            if not request.future.done():
                due.append(request)
        return due

    def _decide(self, all_due: list[PushRequest]) -> None:
        asked_at = time.monotonic()
        first: dict[str, PushRequest] = {}  # of each key: the record decides all
        for request in all_due:
            if not self._pushes.decide_before_others(request):
                first.setdefault(request.key, request)
        due = list(first.values())
        for begin in range(0, len(due), MOST_AT_ONCE):
            some = due[begin : begin + MOST_AT_ONCE]
            in_time = begin == 0 or time.monotonic() - asked_at < MOST_LATE_S
            answers = not self._server.health.known_dead
            if in_time and answers and self._settle(some):
                continue
            for request in some:
                self._pushes.decide_alone(request, reachable=answers and not in_time)
            self.on_alone()

    def _settle(self, due: list[PushRequest]) -> bool:
        """Let the server decide; whether it did."""
        if self._pushes.line is None:
            return False
        try:
            decided = [self._pushes.verdict(request, reachable=True) for request in due]
            records = self._open().settle(decided, self._client_id)
        except SERVER_FAULTS:
            self._server.health.failed()
            return False
        self._server.health.answered()
        for request, record in zip(due, records, strict=False):  # none where the server was emptied
            self._pushes.resolve(request.key, record)
        return bool(records)
