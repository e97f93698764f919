"""The pushes of one client that await their decision, and the decisions that it made alone.

Each push is decided once: by the record of the server, or alone. Shared by the client's threads.
"""

import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from modeling.names import path_to_text, text_to_path
from orchestrator.contract.errors import MessageError, PigeonholeError, PushRefusedError, UnavailableError
from orchestrator.contract.lines.answers import Answer, Cause, Reason, Verdict, decode_record, encode_facts
from orchestrator.contract.lines.requests import Decided
from orchestrator.contract.lines.settings import Line
from orchestrator.lines.request import PushRequest

MOST_HELD_BYTES = 256 << 20  # images that await their answer; more are refused as a busy line does
MOST_HELD = 100_000
_CAUSES: dict[Reason, Cause] = {"busy": "queue", "late": "queue", "paused": "paused"}
HELD_RETRY_S = 0.1  # when a client that holds as many images as it may has to come again
NO_BIN = (
    "the server said nothing of the line before the deadline, so no bin is known; "
    "give a longer deadline, or a fallback bin to decide with"
)
MOST_ALONE = 100_000  # decisions to report; of more, the oldest are not reported


class Pushes:
    """What awaits its decision, by key; several pushes of one item and pass get one record."""

    def __init__(self, name: str, deadline_s: float | None, fallback: str | None) -> None:
        self.line: Line | None = None
        self._name = name
        self.seen = threading.Event()  # the line is known
        self.alone: deque[Decided] = deque(maxlen=MOST_ALONE)
        self._deadline_s = deadline_s
        self._fallback = fallback
        self._lock = threading.Lock()
        self._decided = threading.Condition(self._lock)
        self._by_key: dict[str, list[PushRequest]] = {}
        self._num_bytes = 0

    def __len__(self) -> int:
        return len(self._by_key)

    def add(self, request: PushRequest) -> bool:
        """Take a push; whether it is the first of its item and pass, and so must be sent.

        Raises ValueError for a path outside of the line's roots, PushRefusedError where a push that is not tried again
        finds this client full.
        """
        self._examine(request)
        with self._lock:
            if self._num_bytes + len(request.payload) > MOST_HELD_BYTES or len(self._by_key) >= MOST_HELD:
                if not request.retry:
                    raise PushRefusedError(self._name, "busy", HELD_RETRY_S)
                request.refuse("busy", "this client holds as many images as it may")
            request.due = self._due(request)
            same = self._by_key.setdefault(request.key, [])
            if same and same[0].digest == request.digest:
                request.payload = b""
            same.append(request)
            request.held_bytes = len(request.payload)
            self._num_bytes += request.held_bytes
            first = same[0]
        if first.sent and _is_held(request, first):
            request.tell_taken()
        return first is request

    def saw(self, line: Line) -> list[PushRequest]:
        """The line as it is now. Returns pushes whose deadline is known by that."""
        first, self.line = self.line is None, line
        self.seen.set()
        if not first:
            return []
        known = []
        for request in self.waiting():
            try:
                self._examine(request)
            except ValueError as err:
                self.fail([request], err)
                continue
            request.due = self._due(request)
            known.append(request)
        return known

    def waiting(self) -> list[PushRequest]:
        """All pushes without a decision."""
        with self._lock:
            return [request for same in self._by_key.values() for request in same]

    def first(self, key: str) -> PushRequest | None:
        """The push of a key that was sent."""
        same = self._by_key.get(key)
        return same[0] if same else None

    def verdict(self, request: PushRequest, *, reachable: bool) -> Decided:
        """What the client says of a push itself: where the server is away, or never had it.

        It speaks for all pushes of the item and pass, of which the first was sent.
        """
        reason: Reason = request.reason or ("late" if reachable else "no_server")
        cause = "server" if request.reason is None else _CAUSES.get(reason)
        rest = encode_facts(error=request.error)
        digest = (self.first(request.key) or request).digest
        return Decided(request.key, Verdict(self._fallback_bin(), reason, cause), digest, rest)

    def taken(self, request: PushRequest) -> None:
        """The server has a push, or other bytes of its item and pass: those who pushed others wait for its answer."""
        with self._lock:
            request.sent = True
            told = [each for each in self._by_key.get(request.key, []) if _is_held(each, request)]
        for each in told:
            each.tell_taken()

    def resolve(self, key: str, record: bytes) -> None:
        """The server's answer."""
        now = time.monotonic()
        for request in self._remove(key):
            try:
                answer = _for(request, record, now)
            except MessageError as err:  # of another version
                answer = self._alone(request, self.verdict(request, reachable=False), error=str(err))
            request.end(answer)

    def decide_alone(self, request: PushRequest, *, reachable: bool = False) -> None:
        """The deadline is over, and no server says a word, or there is no time left to ask one that can be reached."""
        decided = self.verdict(request, reachable=reachable)
        if not decided.verdict.bin:
            self.fail([request], UnavailableError(NO_BIN))
            return
        same = self._remove(request.key)
        if not same:
            return
        self.alone.append(decided)
        now = time.monotonic()
        answer = self._alone(request, decided)
        for each in same:
            reason = answer.reason if each.digest == decided.digest else "conflict"
            each.end(replace(answer, reason=reason, ms=_ms(each, now)))

    def decide_before_others(self, request: PushRequest) -> bool:
        """Decide a push whose deadline is over while an earlier push of the same item waits longer; whether it is one.

        The line goes on with the earlier one, so this decision is not reported.
        """
        with self._lock:
            same = self._by_key.get(request.key, [])
            first = same[0] if same else request
            if request not in same or request is first or (first.due is not None and first.due <= time.monotonic()):
                return False
            same.remove(request)
            self._let_go(request)
        decided = self.verdict(request, reachable=True)
        if not decided.verdict.bin:
            request.fail(UnavailableError(NO_BIN))
            return True
        reason = decided.verdict.reason if request.digest == decided.digest else "conflict"
        answer = replace(self._alone(request, decided), reason=reason, ms=_ms(request, time.monotonic()))
        request.end(answer)
        return True

    def fail(self, requests: Iterable[PushRequest], err: PigeonholeError | ValueError) -> None:
        """End pushes with an error: there is nothing to decide with, or the line does not exist."""
        for request in requests:
            for each in self._remove(request.key):
                each.fail(err)

    def end_refused(self, request: PushRequest, reason: Reason, retry_s: float) -> PushRequest | None:
        """The line refuses a push: end those of its key that are not tried again. Returns what is to be sent now."""
        with self._lock:
            same = self._by_key.get(request.key, [])
            ended = [each for each in same if not each.retry]
            same[:] = [each for each in same if each.retry]
            left = same[0] if same else None
            if left and left is not request and left.digest == request.digest:
                left.payload, request.payload = request.payload, b""
                left.held_bytes, request.held_bytes = request.held_bytes, 0
            for each in ended:
                self._let_go(each)
            if not same:
                self._forget(request.key)
        for each in ended:
            each.fail(PushRefusedError(self._name, reason, retry_s))
        return left

    def wait_until_empty(self) -> None:
        """Wait until all are decided."""
        with self._lock:
            self._decided.wait_for(lambda: not self._by_key)

    def _remove(self, key: str) -> list[PushRequest]:
        with self._lock:
            same = self._by_key.get(key, [])
            for request in same:
                self._let_go(request)
            self._forget(key)
        return same

    def _let_go(self, request: PushRequest) -> None:
        """With the lock: the image is not needed any more, if it was not dropped before."""
        self._num_bytes -= request.held_bytes
        request.held_bytes, request.payload = 0, b""

    def _forget(self, key: str) -> None:
        self._by_key.pop(key, None)
        if not self._by_key:
            self._decided.notify_all()

    def _fallback_bin(self) -> str:
        return self.line.settings.fallback if self.line else self._fallback or ""

    def _due(self, request: PushRequest) -> float | None:
        """When a decision must be there; None as long as no deadline is known."""
        deadline_s = request.deadline_s or self._deadline_s
        if deadline_s is None and self.line:
            deadline_s = self.line.settings.deadline_ms / 1000
        if deadline_s is not None and request.age_s >= deadline_s:
            request.refuse("late", "the deadline, which counts from the trigger, was over before the push")
        if request.unsendable and (self.line or self._fallback is not None):
            return request.called
        if deadline_s is None:
            return None
        return request.called + deadline_s - (0.0 if request.unsendable else request.age_s)

    def _examine(self, request: PushRequest) -> None:
        """What the line's settings say of a push before it is sent."""
        if self.line is None:
            return
        settings = self.line.settings
        if request.path is not None and not any(
            PurePath(request.path).is_relative_to(text_to_path(root)) for root in settings.roots
        ):
            path = path_to_text(request.path)
            roots = ", ".join(settings.roots) or "it has none, see `lines set --root`"
            raise ValueError(f"{path} lies under no root of line {settings.name!r}: {roots}")
        if request.size > settings.max_image_bytes and not request.unsendable:
            request.refuse("unreadable", too_large(request.size, settings.max_image_bytes))

    def _alone(self, request: PushRequest, decided: Decided, *, error: str | None = None) -> Answer:
        verdict = decided.verdict
        version = self.line.map_version if self.line else 0
        return Answer(
            request.item, request.pass_, verdict.bin, verdict.reason, verdict.cause, map_version=version,
            error=error or request.error,
        )  # fmt: skip


def too_large(size: int, limit: int) -> str:
    """What is said of an image above the line's limit."""
    return f"the image has {size} bytes; the line takes {limit} at most"


def _is_held(request: PushRequest, first: PushRequest) -> bool:
    """Whether the server has the bytes of a push. first: what was sent of its item and pass."""
    return request.digest == first.digest and not first.conflict


def _for(request: PushRequest, record: bytes, now: float) -> Answer:
    """The answer as one push of its item gets it."""
    changed: dict[str, Any] = {"ms": _ms(request, now)}
    if request.conflict or (request.digest.encode() not in record and b'"digest":""' not in record):
        changed["reason"] = "conflict"
    return decode_record(record, **changed)


def _ms(request: PushRequest, now: float) -> float:
    return round((now - request.called) * 1000, 3)
