"""One push of a client: its arguments checked, its image read, and what has become of it so far.

Times are seconds of `time.monotonic`: the wall clock of a controller may be wrong by hours.
"""

import asyncio
import hashlib
import logging
import math
import os
import stat
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from modeling.names import is_text, path_to_text
from orchestrator.contract.lines.answers import Answer, Reason, request_key
from orchestrator.contract.lines.limits import LONGEST_DEADLINE_MS
from orchestrator.contract.lines.requests import ImagePath, Payload, Push

logger = logging.getLogger(__name__)

MOST_ITEM_BYTES = 1_000
MOST_PASSES = 1_000_000
TRIGGER_TOLERANCE_S = 1.0  # the trigger's time comes from another program of the same machine
LARGEST_FILE_BYTES = 256 << 20  # as LineSettings.max_image_bytes has it at most
Image = bytes | bytearray | memoryview | str | os.PathLike[str] | None


@dataclass(eq=False, slots=True)
class PushRequest:
    """A push that awaits its decision.

    called: when the caller pushed. age_s: how long before that the trigger was. deadline_s: None: as the line has it.
    due: when a decision must be there; None until the deadline is known. reason: why the fallback bin is what the
    client would say itself: it cannot be pushed, or the line refused it. unsendable: that reason stands, and no server
    needs to see the image. sent: the server has it, as far as is known.
    ask: asks first whether the line takes it, without the bytes. conflict: the server holds other bytes of this key.
    retry: a refusal is tried again; else it ends the push. on_taken: called when the server has the push.
    held_bytes: of its image, as its client counts them.
    """

    item: str
    pass_: int
    key: str
    called: float
    future: "Future[Answer] | asyncio.Future[Answer]"
    kind: Payload = "image"
    payload: bytes = b""
    size: int = 0
    digest: str = ""
    path: str | None = None
    deadline_s: float | None = None
    age_s: float = 0.0
    due: float | None = None
    reason: Reason | None = None
    error: str | None = None
    unsendable: bool = False
    sent: bool = False
    ask: bool = False
    conflict: bool = False
    retry: bool = True
    on_taken: Callable[[], None] | None = None
    decided: bool = False
    held_bytes: int = 0

    def end(self, answer: Answer) -> None:
        """The one decision."""
        self.decided = True
        if not self.future.done():  # a future of asyncio may have been cancelled
            try:
                self.future.set_result(answer)
            except (Exception, SystemExit):  # of a callback, which must not keep others from their decision
                logger.exception("a callback of the push of %r", self.item)

    def fail(self, err: BaseException) -> None:
        """There is nothing to decide with."""
        self.decided = True
        if not self.future.done():
            try:
                self.future.set_exception(err)
            except (Exception, SystemExit):
                logger.exception("a callback of the push of %r", self.item)

    def tell_taken(self) -> None:
        """The server has it."""
        if self.on_taken is not None:
            try:
                self.on_taken()
            except Exception:
                logger.exception("a callback of the push of %r", self.item)

    def refuse(self, reason: Reason, error: str | None) -> None:
        """Let it be decided at once, without being sent."""
        self.reason, self.error, self.unsendable = reason, error, True
        self.payload = b""

    def as_push(self, now: float) -> Push:
        """What is sent of it now; its deadline is known."""
        assert self.due is not None
        remaining_ms = math.floor((self.due - now) * 1000)
        if self.ask:
            return Push(self.key, self.digest, remaining_ms, self.size, "ask")
        tried_ms = math.floor((now - self.called) * 1000)
        return Push(self.key, self.digest, remaining_ms, self.size, self.kind, self.payload, tried_ms)


@dataclass(frozen=True, slots=True)
class PushOptions:
    """How an image is pushed: see `LineClient.push`. on_taken: called in any thread once the server has the push."""

    deadline: float | None = None
    triggered_at: float | None = None
    by_path: bool = False
    retry: bool = True
    on_taken: Callable[[], None] | None = None


def make_request(
    image: Image, item: str, pass_: int, options: PushOptions, future: "Future[Answer] | asyncio.Future[Answer]"
) -> PushRequest:
    """A push with its arguments checked. future: of its answer.

    An image that cannot be read is one that the line answers with `unreadable`.

    Raises ValueError or TypeError for any other argument that cannot be used.
    """
    called = time.monotonic()
    age_s = _age_s(options.triggered_at)
    item, pass_ = check_item(item), check_pass(pass_)
    request = PushRequest(item, pass_, request_key(item, pass_), called, future, age_s=age_s, retry=options.retry)
    request.on_taken = options.on_taken
    request.deadline_s = check_deadline(options.deadline)
    try:
        if options.by_path:
            _look_at_path(request, image)
        else:
            _read_image(request, image)
    except OSError as err:
        request.refuse("unreadable", f"{_shown(image)}: {err.strerror or err}")
    if isinstance(future, Future):
        future.set_running_or_notify_cancel()  # a decision is made in any case, so nothing can cancel it
    return request


def check_deadline(deadline: float | None) -> float | None:
    """Seconds from the push, or None. Raises ValueError, which says the range."""
    longest = LONGEST_DEADLINE_MS / 1000
    if deadline is None:
        return None
    if isinstance(deadline, bool) or not isinstance(deadline, int | float):
        raise TypeError(f"a deadline is a number of seconds, not {deadline!r}")
    if not 0.001 <= deadline <= longest:  # false of NaN, too
        raise ValueError(f"a deadline is 0.001 to {longest:.0f} seconds from the push, not {deadline!r}")
    return float(deadline)


def check_item(item: str) -> str:
    """An item's name as text: bytes of a file name that are not UTF-8 are escaped. Raises ValueError or TypeError."""
    if not isinstance(item, str):
        raise TypeError(f"an item's name is text, not {item!r}")
    text = item if is_text(item) else path_to_text(item)
    try:
        size = len(text.encode())
    except UnicodeEncodeError as err:
        raise ValueError(f"item {item!a} holds a surrogate, which is not text") from err
    if not 1 <= size <= MOST_ITEM_BYTES:
        raise ValueError(f"an item's name is 1 to {MOST_ITEM_BYTES} bytes of UTF-8, not {size}: {text[:40]!r}")
    return text


def check_pass(pass_: int) -> int:
    """Raises ValueError or TypeError where it is not a number of a pass."""
    if isinstance(pass_, bool) or not isinstance(pass_, int):
        raise TypeError(f"a pass is a whole number, not {pass_!r}")
    if not 1 <= pass_ <= MOST_PASSES:
        raise ValueError(f"a pass is 1 to {MOST_PASSES}, not {pass_}")
    return pass_


def _age_s(triggered_at: float | None) -> float:
    """How long ago the trigger was. Only here the wall clock counts: both times are of this machine, and of now."""
    if triggered_at is None:
        return 0.0
    if isinstance(triggered_at, bool) or not isinstance(triggered_at, int | float):
        raise TypeError(f"triggered_at is a time.time(), a number of seconds, not {triggered_at!r}")
    age_s = time.time() - triggered_at
    if not age_s >= -TRIGGER_TOLERANCE_S:  # also of NaN
        raise ValueError(f"triggered_at {triggered_at!r} is not a time.time() of the past: it is {-age_s:.1f} s ahead")
    return max(0.0, age_s)


def _read_image(request: PushRequest, image: Image) -> None:
    if isinstance(image, str | os.PathLike):
        image = read_file(Path(image))
    elif isinstance(image, bytearray | memoryview):
        image = bytes(image)
    elif image is not None and not isinstance(image, bytes):  # bytes(n) would make n bytes of a number
        raise TypeError(f"an image is bytes, or the path of a file, not {type(image).__name__}")
    request.payload = image or b""
    request.size = len(request.payload)
    request.digest = hashlib.sha256(request.payload).hexdigest()[:32]
    if not request.payload:
        request.refuse("unreadable", "no image was given" if image is None else "the image is empty")


def read_file(path: Path) -> bytes:
    """The bytes of a regular file. Raises OSError, also for what is none: a pipe may never end."""
    with open(path, "rb", opener=_open_without_waiting) as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise OSError("no regular file")
        if facts.st_size > LARGEST_FILE_BYTES:
            raise OSError(f"{facts.st_size} bytes are more than {LARGEST_FILE_BYTES}")
        return file.read()


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe that nobody writes to


def _look_at_path(request: PushRequest, image: Image) -> None:
    if not isinstance(image, str | os.PathLike):
        raise TypeError(f"by_path pushes the path of a file, not {type(image).__name__}")
    request.path = os.path.abspath(image)  # noqa: PTH100 `..` must go, links stay as the worker sees them
    request.kind = "path"
    facts = os.stat(request.path)  # noqa: PTH116
    pushed = ImagePath(path_to_text(request.path), facts.st_size, facts.st_mtime_ns)
    request.payload = pushed.encode()
    request.size = facts.st_size
    request.digest = hashlib.sha256(request.payload).hexdigest()[:32]
    if not stat.S_ISREG(facts.st_mode) or facts.st_size == 0:
        request.refuse(
            "unreadable", f"{_shown(image)}: {'the image is empty' if facts.st_size == 0 else 'no regular file'}"
        )


def _shown(image: Image) -> str:
    return path_to_text(os.fspath(image)) if isinstance(image, str | os.PathLike) else "the image"
