"""The thread that sends pushes: what is queued in one round trip, again after the server was away, and later where
the line refuses.
"""

import heapq
import itertools
import logging
import threading
import time
from collections import deque

from orchestrator.contract.errors import PigeonholeError
from orchestrator.contract.lines.answers import Reason, request_key
from orchestrator.contract.lines.requests import Admission
from orchestrator.contract.lines.store import LineStore
from orchestrator.lines.line_server import SERVER_FAULTS, LineServer
from orchestrator.lines.pushes import Pushes, too_large
from orchestrator.lines.request import PushRequest
from orchestrator.lines.timer import Timer

logger = logging.getLogger(__name__)

TIMEOUT_S = 2.0
MOST_AT_ONCE = 64
BYTES_AT_ONCE = 1 << 20
CHECK_S = 0.1  # how often the line's epoch is compared while answers are awaited
REFRESH_S = 1.0  # how often the line's settings are read, and what is late is answered
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.02, 0.2  # between two tries to connect
SHORTEST_RETRY_S, LONGEST_RETRY_S = 0.01, 0.25  # after the line refused
MAIN_SERVER_AGAIN_S = 30.0  # the line's own server answers, the one with its settings does not
REPORT_AGAIN_S = 0.2
PAUSED_RETRY_S = 1.0  # what is told where the line is paused, which says no time
UNKNOWN_RETRY_S = 0.05  # the server was emptied, and a worker fills it
MOST_REPORTS = 100
MOST_DISCHARGES = 100_000


class Sender:
    """Sends pushes, the decisions that were made alone, and discharge reports; notices an emptied server."""

    def __init__(self, pushes: Pushes, server: LineServer, timer: Timer, client_id: str) -> None:
        self._pushes = pushes
        self._server = server
        self._timer = timer
        self._client_id = client_id
        self._store: LineStore | None = None  # None: not connected
        self._epoch: str | None = None
        self._queue: deque[PushRequest] = deque()
        self._later: list[tuple[float, int, PushRequest]] = []
        self._numbers = itertools.count()
        self._discharges: deque[tuple[str, str]] = deque(maxlen=MOST_DISCHARGES)
        self._pause_s = SHORTEST_PAUSE_S
        self._next_try = self._next_check = self._next_refresh = self._next_report = 0.0
        self._refuses = False  # the line's last word: ask before bytes travel
        self._changed = threading.Condition()
        self._stopping = False
        self._lost_logged = False
        self.thread = threading.Thread(target=self._run, name="line-sender", daemon=True)

    # For other threads

    def put(self, request: PushRequest) -> None:
        with self._changed:
            self._queue.append(request)
            self._changed.notify_all()

    def discharged(self, item: str, pass_: int, bin_: str) -> None:
        with self._changed:
            self._discharges.append((request_key(item, pass_), bin_))
            self._changed.notify_all()

    def wake(self) -> None:
        """Decisions were made alone."""
        with self._changed:
            self._changed.notify_all()

    def stop(self) -> None:
        """Let the thread end when every push is decided."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def wait_for_reports(self, until: float) -> None:
        """Wait until the server has all reports, if it is there, and at most until a time of the monotonic clock."""
        with self._changed:
            self._changed.wait_for(self._nothing_to_report, max(0.0, until - time.monotonic()))

    def _nothing_to_report(self) -> bool:
        away = self._store is None and self._lost_logged
        return away or not (self._discharges or self._pushes.alone)

    # The thread

    def _run(self) -> None:
        while not self._ended:
            self._wait()
            try:
                self._step(time.monotonic())
            except PigeonholeError as err:
                self._no_such_line(err)
            except SERVER_FAULTS as err:
                self._lost(err)

    @property
    def _ended(self) -> bool:
        return self._stopping and not len(self._pushes)

    def _wait(self) -> None:
        """Wait until there is something to do."""
        with self._changed:
            now = time.monotonic()
            if self._store is None:
                self._changed.wait_for(lambda: self._ended, max(0.0, self._next_try - now))
                return
            times = [self._next_refresh]
            if len(self._pushes):
                times.append(self._next_check)
            if self._later:
                times.append(self._later[0][0])
            if self._pushes.alone:
                times.append(self._next_report)
            self._changed.wait_for(self._has_work, max(0.0, min(times) - now))

    def _has_work(self) -> bool:
        new = self._pushes.alone and self._next_report <= time.monotonic()
        return bool(self._ended or self._queue or self._discharges or new)

    def _step(self, now: float) -> None:
        if self._store is None:
            self._store = self._connect()
        if now >= self._next_refresh:
            self._refresh(self._store, now)
        if now >= self._next_check and len(self._pushes):
            self._check_epoch(self._store, now)
        while self._later and self._later[0][0] <= now:
            self._queue.appendleft(heapq.heappop(self._later)[2])
        self._send(self._store)
        self._report(self._store)

    def _connect(self) -> LineStore:
        self._see(self._server)
        store = self._server.open(TIMEOUT_S)
        store.load_scripts()
        self._epoch = store.epoch()
        self._server.health.answered()
        self._pause_s, self._lost_logged = SHORTEST_PAUSE_S, False
        self._next_refresh = time.monotonic() + REFRESH_S
        self._push_again()
        return store

    def _see(self, server: LineServer) -> None:
        """Read the line. One that was seen before stays as it was where it cannot be read now."""
        try:
            line = server.look(TIMEOUT_S)
        except PigeonholeError:  # it was removed, or a newer release wrote it
            if self._pushes.line is None:
                raise
            return
        except SERVER_FAULTS:
            if self._pushes.line is None or server.own_url is None:
                raise
            self._next_refresh = time.monotonic() + MAIN_SERVER_AGAIN_S
            return
        for request in self._pushes.saw(line):
            self._timer.add(request)

    def _refresh(self, store: LineStore, now: float) -> None:
        self._next_refresh = now + REFRESH_S
        self._see(self._server)
        store.sweep(1000)
        self._server.health.answered()

    def _check_epoch(self, store: LineStore, now: float) -> None:
        """An emptied server has lost the pushes."""
        self._next_check = now + CHECK_S
        epoch = store.epoch()
        if epoch != self._epoch:
            self._epoch = epoch
            self._push_again()

    def _push_again(self) -> None:
        """Everything that awaits its answer; first without the bytes, which the server may still have."""
        with self._changed:
            self._queue.clear()
            self._later.clear()
        for request in self._pushes.waiting():
            if request is self._pushes.first(request.key) and not request.unsendable:
                request.ask = request.ask or request.sent
                request.sent = False
                self._queue.append(request)

    def _send(self, store: LineStore) -> None:
        batch = self._take_batch()
        if not batch:
            return
        now = time.monotonic()
        admissions = store.admit([request.as_push(now) for request in batch], self._client_id)
        self._server.health.answered()
        for request, admission in zip(batch, admissions, strict=True):
            self._told(request, admission)

    def _take_batch(self) -> list[PushRequest]:
        """What is queued, within bounds; what is decided or due meanwhile is left out."""
        batch: list[PushRequest] = []
        size, now = 0, time.monotonic()
        with self._changed:
            while self._queue and len(batch) < MOST_AT_ONCE and size < BYTES_AT_ONCE:
                request = self._queue.popleft()
                if request.sent or request.unsendable or request.due is None or request.due <= now:
                    continue
                if request.future.done():
                    continue
                request.ask = request.ask or self._refuses
                size += 0 if request.ask else len(request.payload)
                batch.append(request)
        return batch

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
            request.due = request.called
            self._timer.add(request)
        elif verdict == "unknown":
            self._try_later(request, UNKNOWN_RETRY_S)

    def _refused(self, request: PushRequest, reason: Reason, told_s: float) -> None:
        self._refuses = True
        left = self._pushes.end_refused(request, reason, told_s or PAUSED_RETRY_S)
        if left:
            left.reason = reason
            self._try_later(left, self._pause_before(left, told_s))

    def _pause_before(self, request: PushRequest, told_s: float) -> float:
        """How long to wait before asking again: a few times within a deadline, for asking costs time, too."""
        assert request.due is not None
        left_s = request.due - time.monotonic()
        return min(max(told_s, left_s / 3, SHORTEST_RETRY_S), LONGEST_RETRY_S)

    def _try_later(self, request: PushRequest, wait_s: float) -> None:
        request.ask = True
        heapq.heappush(self._later, (time.monotonic() + wait_s, next(self._numbers), request))

    def _report(self, store: LineStore) -> None:
        """What was decided alone, and where items really went. Only what the server took is forgotten."""
        alone = self._pushes.alone
        if not alone and not self._discharges:
            return
        if some := [alone[place] for place in range(min(MOST_REPORTS, len(alone)))]:
            if store.deliver(some) is None:  # emptied
                self._next_report = time.monotonic() + REPORT_AGAIN_S
                return
            for _ in some:
                alone.popleft()
        if reports := [self._discharges[place] for place in range(min(MOST_REPORTS, len(self._discharges)))]:
            store.discharge_all(reports)
            for _ in reports:
                self._discharges.popleft()
        with self._changed:
            self._changed.notify_all()

    # Without a server

    def _no_such_line(self, err: PigeonholeError) -> None:
        self._pause()
        self._pushes.fail(self._pushes.waiting(), err)

    def _lost(self, err: BaseException) -> None:
        self._server.health.failed()
        if not self._lost_logged:
            self._lost_logged = True
            logger.warning("line %s: the server does not answer: %s", self._server.name, err)
        self._pause()
        unavailable = self._server.unavailable(err)
        self._pushes.fail([request for request in self._pushes.waiting() if request.due is None], unavailable)

    def _pause(self) -> None:
        if self._store:
            self._store.client.close()
        self._store = None
        self._next_try = time.monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
