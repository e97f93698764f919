"""Threads for what blocks. What asks a disk has its own, so that a file server that hangs keeps no push waiting."""

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from orchestrator.contract.errors import UnavailableError

P = ParamSpec("P")
T = TypeVar("T")

READERS = 8
SCANNERS = 1  # of manifests: Python runs one at a time anyway, and pushes would wait for each
SUBMITTERS = 4  # that check their sources at once
LONGEST_QUESTION_S = 10.0  # long enough for a server that is away to be named as the reason
MOST_QUESTIONS = 10_000


class Threads:
    """A pool of threads for one kind of work; threads are started when they are needed."""

    def __init__(self, name: str, num_threads: int) -> None:
        self._pool = ThreadPoolExecutor(num_threads, f"gateway-{name}")

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of a call in one of the threads; where the caller is cancelled, the call still ends."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: call(*args, **kwargs))


class Questions:
    """Questions to a disk that may hang: in threads of their own, one at a time for each key, with a time limit.

    what: is asked, for the error. limit_s: from a question on, for all who ask the same meanwhile; a key that nobody
    else has is never shared. Safe to share between threads, but a call must not ask questions of the same threads.
    """

    def __init__(self, what: str, num_threads: int = READERS, *, limit_s: float = LONGEST_QUESTION_S) -> None:
        self._what = what
        self._limit_s = limit_s
        self._pool = ThreadPoolExecutor(num_threads, "gateway-disk")
        self._lock = threading.Lock()
        self._pending: dict[Hashable, tuple[float, Future[Any]]] = {}

    async def ask(self, key: Hashable, call: Callable[[], T]) -> T:
        """The answer; where the same is being asked, that answer. Raises UnavailableError where none comes in time."""
        left_s, answer = self._put(key, call)
        waiter = asyncio.wrap_future(answer)
        waiter.add_done_callback(lambda done: done.cancelled() or done.exception())  # else asyncio logs a late error
        await asyncio.wait([waiter], timeout=left_s)
        if not waiter.done():
            raise self._silent()
        return waiter.result()

    def wait(self, key: Hashable, call: Callable[[], T]) -> T:
        """The same, for a thread."""
        left_s, answer = self._put(key, call)
        concurrent.futures.wait([answer], left_s)
        if not answer.done():
            raise self._silent()
        return answer.result()

    def _put(self, key: Hashable, call: Callable[[], T]) -> tuple[float, "Future[T]"]:
        """What is left of the question's time, and its answer."""
        with self._lock:
            if key not in self._pending:
                if len(self._pending) >= MOST_QUESTIONS:
                    raise self._silent()
                self._pending[key] = time.monotonic(), self._pool.submit(self._run, key, call)
            began, answer = self._pending[key]
        return max(0.0, began + self._limit_s - time.monotonic()), answer

    def _run(self, key: Hashable, call: Callable[[], T]) -> T:
        try:
            return call()
        finally:
            with self._lock:
                del self._pending[key]

    def _silent(self) -> UnavailableError:
        return UnavailableError(f"{self._what} has not answered within {self._limit_s:g} s; try again later")
