"""Threads for what blocks. What asks a disk has its own, so that a file server that hangs keeps no push waiting."""

import asyncio
import concurrent.futures
import contextlib
import functools
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

from orchestrator.contract.errors import UnavailableError

P = ParamSpec("P")
T = TypeVar("T")

READERS = 8
SCANNERS = 1  # of manifests: Python runs one at a time anyway, and pushes would wait for each
SUBMITTERS = 4  # that check their sources at once
LONGEST_QUESTION_S = 10.0  # long enough for a server that is away to be named as the reason
MOST_QUESTIONS = 10_000
LONGEST_CALL_S = 60.0  # a frozen server is noticed within 45 s, and what the disk has is shown then
MOST_CALLS = 100  # of one kind; with all streams of events they are fewer than the requests that a gateway works on
MOST_ROOTS = 32  # with threads of their own
IDLE_S = 60.0  # after it a thread for questions ends


@dataclass(eq=False, slots=True)
class _Question:
    """until_s: by time.monotonic, for all who ask the same."""

    key: Hashable
    call: Callable[[], Any]
    until_s: float
    answer: "Future[Any]" = field(default_factory=Future)

    def left_s(self) -> float:
        return max(0.0, self.until_s - time.monotonic())


class Questions:
    """Questions to a disk that may hang: in threads of their own, one at a time for each key, with a time limit.

    what: is asked, for the error. limit_s: from a question on, for all who ask the same meanwhile; a key that nobody
    else has is never shared. most: that may wait at once. What has no thread within its limit is not asked. Threads
    keep no process from ending. Safe to share between threads, but a call must not ask questions of the same threads.
    """

    def __init__(
        self, what: str, num_threads: int = READERS, *, limit_s: float = LONGEST_QUESTION_S, most: int = MOST_QUESTIONS
    ) -> None:
        self._what = what
        self._most_threads = num_threads
        self._limit_s = limit_s
        self._most = most
        self._num_threads = self._num_idle = 0
        self._come = threading.Condition()
        self._pending: dict[Hashable, _Question] = {}
        self._queue: deque[_Question] = deque()  # those that no thread has taken yet

    async def ask(self, key: Hashable, call: Callable[[], T]) -> T:
        """The answer; where the same is being asked, that answer. Raises UnavailableError where none comes in time."""
        question = self._put(key, call)
        waiter: asyncio.Future[T] = asyncio.wrap_future(question.answer)
        waiter.add_done_callback(lambda done: done.cancelled() or done.exception())  # else asyncio logs a late error
        await asyncio.wait([waiter], timeout=question.left_s())
        if not waiter.done():
            raise self._silent()
        return waiter.result()

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of a call that is shared with nobody. One that has begun ends also where nobody waits any more.

        Raises UnavailableError where there is none in time, or too many wait.
        """
        return await self.ask(object(), functools.partial(call, *args, **kwargs))

    def begin(self, call: Callable[[], object]) -> None:
        """Make a call that nobody waits for; it may be left out where there is no thread for it in time."""
        with contextlib.suppress(UnavailableError):
            self._put(object(), call)

    def wait(self, key: Hashable, call: Callable[[], T]) -> T:
        """The same, for a thread."""
        question = self._put(key, call)
        answer: Future[T] = question.answer
        concurrent.futures.wait([answer], question.left_s())
        if not answer.done():
            raise self._silent()
        return answer.result()

    def _put(self, key: Hashable, call: Callable[[], Any]) -> _Question:
        with self._come:
            question = self._pending.get(key)
            if question is None:
                if len(self._pending) >= self._most:
                    raise UnavailableError(f"{self._most} questions to {self._what} wait already; try again later")
                if len(self._queue) >= self._num_idle and self._num_threads < self._most_threads:
                    # an executor's threads are waited for when the process ends, also those that hang
                    threading.Thread(target=self._work, name="gateway-disk", daemon=True).start()
                    self._num_threads += 1
                question = self._pending[key] = _Question(key, call, time.monotonic() + self._limit_s)
                self._queue.append(question)
                self._come.notify()
        return question

    def _work(self) -> None:
        while (question := self._next()) is not None:
            self._answer(question)
            del question  # its answer may be large, and the next one may come much later

    def _next(self) -> _Question | None:
        """What is to be asked; None: there was nothing for so long that the thread ends."""
        with self._come:
            self._num_idle += 1
            came = self._come.wait_for(lambda: self._queue, IDLE_S)
            self._num_idle -= 1
            if not came:
                self._num_threads -= 1
                return None
            return self._queue.popleft()

    def _answer(self, question: _Question) -> None:
        answer = question.answer
        if not answer.set_running_or_notify_cancel():
            self._forget(question)
            return
        try:
            if not question.left_s():
                raise self._silent()  # nobody waits any more
            found = question.call()
        except BaseException as err:
            self._forget(question)  # before its answer is there: who asks after that asks anew
            answer.set_exception(err)
        else:
            self._forget(question)
            answer.set_result(found)

    def _forget(self, question: _Question) -> None:
        with self._come:
            del self._pending[question.key]

    def _silent(self) -> UnavailableError:
        return UnavailableError(f"{self._what} has not answered within {self._limit_s:g} s; try again later")


class Calls(Questions):
    """Calls of requests that ask a disk, and the server too, so that they may take longer; fewer may wait at once."""

    def __init__(self, what: str, num_threads: int = READERS, *, limit_s: float = LONGEST_CALL_S) -> None:
        super().__init__(what, num_threads, limit_s=limit_s, most=MOST_CALLS)


class QuestionsOfRoots:
    """Questions to the disks of several roots, which have threads of their own: one that hangs stops no other.

    num_threads: of each root. Of more roots than MOST_ROOTS, those that come later share threads. Of one event loop.
    """

    def __init__(self, what: str, num_threads: int = READERS, *, limit_s: float = LONGEST_QUESTION_S) -> None:
        self._make = functools.partial(Questions, what, num_threads, limit_s=limit_s)
        self._others = self._make()
        self._own: dict[Hashable, Questions] = {}

    def of(self, roots: Hashable) -> Questions:
        """The questions to the disk of a root, or of several that lie below each other."""
        if roots not in self._own and len(self._own) < MOST_ROOTS:
            self._own[roots] = self._make()
        return self._own.get(roots, self._others)
