"""Single images of a hot folder, pushed to a line.

The item's name has the claim's, so an image that is pushed again after a kill is the same request and gets the same
answer, and a file of the same name that comes tomorrow is another item.
"""

import logging
import os
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from modeling.errors import trouble_of
from modeling.names import path_to_text
from orchestrator.contract.errors import PigeonholeError
from orchestrator.contract.lines.answers import Answer
from orchestrator.hot_folder.claims import Claim, Ending
from orchestrator.hot_folder.results import Sorting, bad, of_answer
from orchestrator.lines.request import LARGEST_FILE_BYTES, MOST_ITEM_BYTES

logger = logging.getLogger(__name__)

MOST_PUSHES = 128  # at once: enough for several workers, and soon given to others after a kill
MOST_BYTES = 64 << 20
MOST_MOVES = 8  # files at once: a disk syncs several in the time of one
AGAIN_S = 5.0  # after an error that is not the image's
MOST_READS = 3  # of a file that the disk does not give; then it counts as unreadable

Ended = Callable[[Claim, str, Ending], None]
"""Moves a file with its result."""


class PushClient(Protocol):
    """What is needed of `LineClient`."""

    def submit(self, image: bytes, item: str, *, deadline: float | None) -> "Future[Answer]": ...


@dataclass(frozen=True, slots=True)
class _Push:
    claim: Claim
    name: str
    facts: os.stat_result


class Pusher:
    """Pushes claims of one image, so many at once, and ends those that are answered. One thread uses it.

    num_pushes: that are not answered, or whose file is being moved.
    """

    def __init__(
        self, client: PushClient, deadline_s: float, min_bytes: int, sorting: Sorting, ended: Ended,
        say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._client = client
        self._deadline_s = deadline_s
        self._min_bytes = min_bytes
        self._sorting = sorting
        self._ended = ended
        self._say = say
        self._answered: SimpleQueue[tuple[_Push, Future[Answer]] | None] = SimpleQueue()
        self._later: list[tuple[float, Claim]] = []
        self._failed_reads: Counter[str] = Counter()  # by the claim's tag
        self._num_bytes = 0
        self._lock = threading.Lock()  # of the counts, and of what is tried later
        self._threads = ThreadPoolExecutor(MOST_MOVES, thread_name_prefix="hot-folder-move")
        self._lacks_thread = False
        self.num_pushes = 0

    @property
    def has_room(self) -> bool:
        return self.num_pushes < MOST_PUSHES and self._num_bytes < MOST_BYTES

    @property
    def num_waiting(self) -> int:
        """Claims that are tried again later."""
        return len(self._later)

    def push(self, claim: Claim) -> None:
        """Push the image of a claim, or end it at once where it cannot be. Raises OSError where it cannot be listed."""
        for name in claim.names():
            try:
                image, facts = _read(claim.data / name)
                if facts.st_size < self._min_bytes:
                    raise ValueError(f"{facts.st_size} bytes are fewer than the least, {self._min_bytes}")
            except FileNotFoundError:
                continue  # another process has ended the claim
            except (OSError, ValueError) as err:
                if self._may_pass(claim, err):
                    self._say(f"{path_to_text(name)} cannot be read: {err}; it is tried again")
                    self._try_later(claim)
                    return
                error = (err.strerror if isinstance(err, OSError) else None) or str(err)
                self._end_as(claim, name, bad("unreadable", error))
                continue
            del self._failed_reads[claim.tag]
            future = self._client.submit(image, item_of(claim, name), deadline=self._deadline_s)
            with self._lock:
                self.num_pushes += 1
                self._num_bytes += facts.st_size
            push = _Push(claim, name, facts)
            future.add_done_callback(lambda done, push=push: self._answered.put((push, done)))  # type: ignore[misc]
            return
        claim.close()

    def _may_pass(self, claim: Claim, err: OSError | ValueError) -> bool:
        """Whether an error of reading is this process's trouble, or the disk's for the first times."""
        trouble = trouble_of(err)
        if trouble == "storage":
            self._failed_reads[claim.tag] += 1
            if self._failed_reads[claim.tag] >= MOST_READS:
                del self._failed_reads[claim.tag]
                return False
        return trouble is not None

    def collect(self, wait_s: float) -> None:
        """Let threads end what is answered; waits so long for the first answer, or for a file that was moved."""
        if self._lacks_thread:
            self._call_in_thread(_do_nothing)
        until = time.monotonic() + wait_s
        while True:
            try:
                answered = self._answered.get(timeout=max(0.0, until - time.monotonic()))
            except Empty:
                return
            until = 0.0
            if answered is not None:
                self._call_in_thread(self._finish, *answered)

    def _call_in_thread(self, call: Callable[..., None], *arguments: Any) -> None:
        try:
            self._threads.submit(call, *arguments)
            self._lacks_thread = False
        except RuntimeError:  # the system starts no thread now; the call waits in the pool for one that it has or gets
            self._lacks_thread = True

    def wake(self) -> None:
        """Let `collect` return; for handlers of signals and other threads."""
        self._answered.put(None)

    def due(self, *, everything: bool = False) -> list[Claim]:
        """What failed a while ago for another reason than its image, to push it again."""
        now = time.monotonic()
        with self._lock:
            due = [claim for at, claim in self._later if everything or at <= now]
            self._later = [(at, claim) for at, claim in self._later if not (everything or at <= now)]
        return due

    def close(self) -> None:
        """Wait for the files that are being moved."""
        self._threads.shutdown(wait=True)

    def _finish(self, push: _Push, future: "Future[Answer]") -> None:
        """In a thread: to be safe on the disk takes a file longer than its answer."""
        try:
            self._end(push, future)
        except Exception:
            logger.exception("hot folder: %s", push.claim.name)  # it stays in working/ until the next start
            self._say(f"{path_to_text(push.name)} cannot be moved: see the log; it stays in working/")
        finally:
            with self._lock:
                self.num_pushes -= 1
                self._num_bytes -= push.facts.st_size
            self.wake()

    def _end(self, push: _Push, future: "Future[Answer]") -> None:
        try:
            answer = future.result()
            goes_back = answer.reason == "conflict" or _was_changed(push)
            if goes_back:
                push.claim.give_back(push.name)
        except (PigeonholeError, OSError) as err:
            self._say(f"{path_to_text(push.name)}: {err}; it is tried again")
            self._try_later(push.claim)
            return
        if not goes_back:
            self._end_as(push.claim, push.name, of_answer(answer, self._sorting))
        push.claim.close()

    def _try_later(self, claim: Claim) -> None:
        with self._lock:
            self._later.append((time.monotonic() + AGAIN_S, claim))

    def _end_as(self, claim: Claim, name: str, ending: Ending) -> None:
        """Move a file; where the disk refuses, the claim is pushed again later, and gets the same answer."""
        try:
            self._ended(claim, name, ending)
        except OSError as err:
            self._say(f"{path_to_text(name)}: its result cannot be written: {err.strerror}; it is tried again")
            self._try_later(claim)


def item_of(claim: Claim, name: str) -> str:
    """The item's name on the line: the file's, and the claim's, which no other file has."""
    tag = "@" + claim.tag
    room = MOST_ITEM_BYTES - len(tag)
    return path_to_text(name).encode()[:room].decode(errors="ignore") + tag


def _do_nothing() -> None:
    """A call that lets the pool start a thread for those that wait."""


def _was_changed(push: _Push) -> bool:
    """Whether somebody has written to the file since it was read."""
    try:
        facts = (push.claim.data / push.name).lstat()
    except FileNotFoundError:
        return False
    return (facts.st_size, facts.st_mtime_ns) != (push.facts.st_size, push.facts.st_mtime_ns)


def _read(path: Path) -> tuple[bytes, os.stat_result]:
    """The bytes of a regular file, and its facts before they were read. Raises OSError; no link is followed."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise OSError("no regular file")
        if facts.st_size > LARGEST_FILE_BYTES:
            raise OSError(f"{facts.st_size} bytes are more than {LARGEST_FILE_BYTES}")
        return file.read(), facts
