"""One server and the lines on it: threads that take requests, send answers, and keep leases.

Each server has its own, so that one that is away holds up nothing of another.
"""

import logging
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue

import redis

from orchestrator.contract.lines.mover import restore_answer
from orchestrator.contract.lines.requests import GivenAnswer, Taken
from orchestrator.contract.server import SERVER_ERRORS, connect_raw
from workers.device_gate import DeviceGate
from workers.lines.apart import LinesApart
from workers.lines.capacity import capacity_of
from workers.lines.files import LineFiles
from workers.lines.leases import Leases
from workers.lines.predict import answer_unreadable
from workers.lines.requests import Done, OpenLine, Request
from workers.lines.scheduler import Scheduler

logger = logging.getLogger(__name__)

SOCKET_TIMEOUT_S = 2.0  # a frozen server
_BLOCK_S = 0.1  # of waiting for a wake token: after that the lines are asked anyway, since a token may be lost
_TAKE_BYTES = 64 << 20
_FULL_S = 0.01  # until lines with room are asked again while others have none
_AWAY_PAUSE_S = 0.1
_ANSWER_AGAIN_S = 10.0  # after its deadline an answer is of use for the record only
_TAKING = "taking requests"
_CAPACITY_S = 0.25
_COUNTS_S = 1.0


class ServerLink:
    """The lines of one server. `lines` is replaced whole."""

    def __init__(self, url: str, worker: str, scheduler: Scheduler, files: LineFiles, gate: DeviceGate) -> None:
        self.url = url
        self.lines: tuple[OpenLine, ...] = ()
        self.trouble: str | None = None
        self.draining = False  # the worker closes its lines as soon as others serve them
        self._worker = worker
        self._scheduler = scheduler
        self._files = files
        self._gate = gate
        self._apart = LinesApart()
        self.client = connect_raw(url, timeout_s=SOCKET_TIMEOUT_S)
        self._answers: SimpleQueue[Done | None] = SimpleQueue()
        self._leases = Leases(worker)
        self._all_taken = False  # when lines were asked last
        self._stopping = threading.Event()  # takes no more
        self._stopped = threading.Event()  # sends no more
        self._threads = [
            threading.Thread(target=target, name=f"lines-{name}", daemon=True)
            for name, target in (("take", self._take), ("answer", self._answer), ("lease", self._keep_leases))
        ]

    @property
    def num_held(self) -> int:
        """Requests whose leases it keeps."""
        return len(self._leases)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def drain(self) -> None:
        """Take no more requests."""
        self._stopping.set()

    def stop(self, *, wait_s: float) -> None:
        """End, once what is held has been answered, or after so long."""
        self._stopping.set()
        deadline = time.monotonic() + wait_s
        while self._leases and time.monotonic() < deadline and self.trouble is None:
            time.sleep(0.005)
        self._stopped.set()
        self._answers.put(None)
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._leave(self.lines)

    def leave(self, line: OpenLine) -> None:
        """This worker serves a line no longer."""
        self._leave([line])
        self._apart.forget(line.name)

    def answer(self, done: Iterable[Done]) -> None:
        """Send these answers soon."""
        for each in done:
            self._answers.put(each)

    def hand_back(self, requests: Sequence[Request]) -> None:
        """Give requests back that were not tried."""
        for line in {request.line for request in requests}:
            keys = [request.key for request in requests if request.line is line]
            try:
                line.store.hand_back(self._worker, keys)
            except (*SERVER_ERRORS, redis.ResponseError) as err:
                logger.warning(
                    "line %s: cannot hand back %d requests, their leases run out: %s", line.name, len(keys), err
                )
            self._leases.release(line, keys)

    # Taking

    def _take(self) -> None:
        while not self._stopping.is_set():
            try:
                self._take_once()
                self._recovered()
            except SERVER_ERRORS as err:
                self._away(err)
            except Exception:
                logger.exception("cannot take requests from %s, trying again", self.url)
                self._stopping.wait(1.0)

    def _take_once(self) -> None:
        able = [line for line in self.lines if line.model is not None and not line.closed]
        lines = [line for line in able if not self._apart.rests(line.name, _TAKING)]
        if not lines:
            self._stopping.wait(_BLOCK_S)
            return
        wanted = [(line, room) for line in lines if (room := self._scheduler.room(line))]
        if not wanted:
            self._scheduler.wait_for_room(lines, _BLOCK_S)
            return
        sleeps = self._all_taken and len(wanted) == len(lines)  # until something is pushed
        begun_s = time.monotonic()
        found = lines[0].store.take_for_each(
            self._worker,
            [(line.store, room, line.lease_ms, _TAKE_BYTES) for line, room in wanted],
            _BLOCK_S if sleeps else 0.0,
        )
        taken = [
            request
            for (line, _), each in zip(wanted, found, strict=True)
            for request in self._entered(line, each, begun_s)
        ]
        emptied = all(each.num < room for (_, room), each in zip(wanted, found, strict=True))
        self._all_taken = emptied and len(wanted) == len(lines)
        if taken and self._stopping.is_set():  # it was pushed while this thread waited in vain
            self.hand_back(taken)
        elif taken:
            self._pass_on(taken)
        elif emptied and not self._all_taken:  # the others are full
            wanting = dict(wanted)
            self._scheduler.wait_for_room([line for line in lines if line not in wanting], _FULL_S)

    def _entered(self, line: OpenLine, taken: Taken, begun_s: float) -> list[Request]:
        """The requests of new items among what was taken for a line."""
        if taken.unreadable:
            with suppress(*SERVER_ERRORS), self._apart.only(line.name, "answering what cannot be read"):
                answer_unreadable(line, taken.unreadable)
        requests: list[Request] = []
        with self._apart.only(line.name, _TAKING):
            if taken.error is not None:
                raise taken.error
            requests += self._without_answered(line, self._enter(line, taken, begun_s + taken.waited_s))
        return requests

    def _enter(self, line: OpenLine, taken: Taken, begun_s: float) -> list[Request]:
        """Requests for what was taken. begun_s: before the server looked at its clock, so no deadline is too late."""
        found = []
        for held in taken.held:
            request = Request(
                held,
                line,
                deadline_s=begun_s + (held.deadline_ms - taken.now_ms) / 1e3,
                taken_s=begun_s,
                waited_ms=float(taken.now_ms - held.admitted_ms),
                alone=held.deliveries > 1,
                leased_until_s=begun_s + line.lease_ms / 1e3,
                image=held.image,
            )
            if self._leases.add(request):
                found.append(request)
        return found

    def _without_answered(self, line: OpenLine, requests: list[Request]) -> list[Request]:
        """The requests of new items; an old one, which a client has pushed again, gets the answer that it got then."""
        records = self._files.answered(line.name, [request.key for request in requests])
        for key, record in records.items():
            self._leases.release(line, [key])
            try:
                restore_answer(line.store, key, record)
            except (*SERVER_ERRORS, redis.ResponseError, ValueError) as err:
                logger.warning("line %s: cannot give an older answer again, its lease runs out: %s", line.name, err)
        return [request for request in requests if request.key not in records]

    def _pass_on(self, taken: list[Request]) -> None:
        """Let requests be decoded and predicted; those of dead workers one by one, with nothing else at work."""
        risky = [request for request in taken if request.alone]
        self._scheduler.add(request for request in taken if not request.alone)
        if risky:
            self.hand_back(risky[1:])
            self._try_alone(risky[0])

    def _try_alone(self, request: Request) -> None:
        """What else is held when a worker dies counts as delivered, too: so nothing else is."""
        untried = self._scheduler.take_back_untried()
        mine = [each for each in untried if self._leases.has(each)]
        self.hand_back(mine)
        self._scheduler.add(each for each in untried if each not in mine)
        remaining_s = max(0.0, request.deadline_s - time.monotonic())
        if not self._scheduler.hold_alone(request, remaining_s):
            self.hand_back([request])
            return
        try:
            while not self._scheduler.wait_until_free(_BLOCK_S) or self._leases.holds(request):
                if self._stopped.wait(0.001):
                    break
        finally:
            self._scheduler.end_alone()

    # Answering

    def _answer(self) -> None:
        waiting: list[Done] = []
        while not (self._stopped.is_set() and not waiting):
            waiting += self._collect(block=not waiting)
            try:
                self._send(waiting)
                self._recovered()
            except SERVER_ERRORS as err:
                self._away(err)
                waiting = self._without_useless(waiting)
                if self._stopped.is_set():
                    return
            except Exception:
                logger.exception("cannot send answers to %s", self.url)
                self._release_all(waiting)
                waiting = []

    def _without_useless(self, waiting: list[Done]) -> list[Done]:
        """Those that are of use still; the requests of others are held no longer."""
        since_s = time.monotonic() - _ANSWER_AGAIN_S
        self._release_all(each for each in waiting if each.request.deadline_s <= since_s)
        return [each for each in waiting if each.request.deadline_s > since_s]

    def _collect(self, *, block: bool) -> list[Done]:
        found = [self._answers.get()] if block else []
        with suppress(Empty):
            while True:
                found.append(self._answers.get_nowait())
        return [each for each in found if each is not None]

    def _send(self, waiting: list[Done]) -> None:
        """Send all answers; those that were sent leave the list, also where those of another line cannot be."""
        while waiting:
            line = waiting[0].request.line
            given = [each for each in waiting if each.request.line is line]
            begun_s = time.perf_counter()
            stood = self._store(line, given)
            waiting[:] = [each for each in waiting if each.request.line is not line]
            line.answer.add((time.perf_counter() - begun_s) * 1e3)
            self._leases.release(line, [each.request.key for each in given])
            for each, stands in zip(given, stood, strict=True):
                if stands:
                    self._keep_safely(each)

    def _store(self, line: OpenLine, given: Sequence[Done]) -> list[bool]:
        """Whether each answer stands; one that cannot be stored costs the others of its line nothing."""
        stood: list[bool] = []
        with self._apart.only(line.name, "storing answers"):
            stood = line.store.answer(
                [GivenAnswer(each.request.key, each.verdict, each.late, each.rest) for each in given]
            )
        if stood or len(given) == 1:
            return stood or [False]
        return [stands for each in given for stands in self._store(line, [each])]

    def _keep_safely(self, done: Done) -> None:
        try:
            self._files.keep(done)
        except Exception:
            logger.exception("line %s: cannot keep the image of %s", done.request.line.name, done.request.key)

    def _release_all(self, waiting: Iterable[Done]) -> None:
        for each in waiting:
            self._leases.release(each.request.line, [each.request.key])

    def abandon(self, requests: Iterable[Request]) -> None:
        """Renew nothing more of these: their leases run out, as they do when a worker dies."""
        for request in requests:
            self._leases.release(request.line, [request.key])

    # Leases, capacity, counts

    def _keep_leases(self) -> None:
        """Not by `PeriodicCall`: how often depends on the lines, which change, and errors are this link's trouble."""
        last_capacity = last_counts = 0.0
        while not self._stopped.wait(min([_CAPACITY_S, *(line.lease_ms / 3e3 for line in self.lines)])):
            try:
                self._leases.renew(self._apart)
                now = time.monotonic()
                if now - last_capacity >= _CAPACITY_S and not self._stopping.is_set():
                    last_capacity = now
                    self._report_capacity()
                if now - last_counts >= _COUNTS_S:
                    last_counts = now
                    self._send_counts()
            except SERVER_ERRORS as err:
                self._away(err)
            except Exception:
                logger.exception("cannot keep the leases at %s, trying again", self.url)

    def _report_capacity(self) -> None:
        for line in self.lines:
            if line.closed:
                continue
            with self._apart.only(line.name, "reporting"):
                capacity, facts = capacity_of(line, self.lines, self._scheduler, self._gate)
                facts["trouble"] = facts["trouble"] or self._apart.trouble(line.name)
                line.store.report_capacity(
                    self._worker, capacity, facts | ({"draining": True} if self.draining else {})
                )

    def _send_counts(self) -> None:
        for line in self.lines:
            if num := self._files.take_not_kept(line.name):
                line.counts.image_not_kept(num)
            with self._apart.only(line.name, "counting"):
                line.store.count(line.counts.take())

    def _leave(self, lines: Iterable[OpenLine]) -> None:
        for line in lines:
            with suppress(*SERVER_ERRORS, redis.ResponseError):  # what it reported counts for a second and a half
                line.store.report_capacity(self._worker, "0 0 0 0", None)

    def _away(self, err: BaseException) -> None:
        if self.trouble is None:
            logger.warning("the server of lines %s is away, trying again: %s", self._names(), err)
        self.trouble = f"the server is away: {err}"
        self._stopped.wait(_AWAY_PAUSE_S)

    def _recovered(self) -> None:
        if self.trouble is not None:
            logger.info("the server of lines %s is back", self._names())
            self.trouble = None

    def _names(self) -> str:
        return ", ".join(line.name for line in self.lines) or "none"
