"""From lines' clients, and their threads, to the event loop: requests that wait for what happens there.

Many answers come at once, so the loop is woken once for all that have come.
"""

import asyncio
import threading
from collections import deque
from collections.abc import MutableMapping
from concurrent.futures import Future
from typing import Any

from orchestrator.gateway.problems import ProblemError, retry_later

STOP_RETRY_S = 1.0
_WAITS = "pigeonhole.waits"  # key of a scope: what this request waits for
_GONE = "pigeonhole.gone"  # its client has hung up


class ClientGoneError(Exception):
    """Nobody is there to be answered."""


def client_gone(scope: MutableMapping[str, Any]) -> None:
    """The client of a request has hung up: it waits no longer, and makes room. What it pushed goes on."""
    scope[_GONE] = True
    for waiter in scope.get(_WAITS, ()):
        _end(waiter, ClientGoneError())


class Waiters:
    """The futures of requests that wait; of one event loop."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._come: deque[tuple[asyncio.Future[Any], Future[Any] | None]] = deque()
        self._thread = 0
        self._woken = False
        self._waiting: set[asyncio.Future[Any]] = set()

    def open(self, scope: MutableMapping[str, Any]) -> "asyncio.Future[Any]":
        """A future that `come` ends, and the end of the request's client. Called in the loop's thread."""
        if self._loop is None:
            self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        waiter = self._loop.create_future()
        self._waiting.add(waiter)
        waiter.add_done_callback(self._waiting.discard)
        scope.setdefault(_WAITS, []).append(waiter)
        if _GONE in scope:
            _end(waiter, ClientGoneError())
        return waiter

    def come(self, waiter: "asyncio.Future[Any]", done: "Future[Any] | None") -> None:
        """Something has happened: `done` has ended; None: the server has the push. Called in any thread."""
        self._come.append((waiter, done))
        if threading.get_ident() == self._thread:
            self._wake()
            return
        if not self._woken and self._loop is not None:
            self._woken = True
            try:
                self._loop.call_soon_threadsafe(self._wake)
            except RuntimeError:  # the loop has ended, and nobody waits any more
                return

    def give_up(self) -> None:
        """The gateway stops: what waits is answered so. Pushes go on without it."""
        problem = retry_later(503, "stopping", "this gateway stops; look the item up, or push it again", STOP_RETRY_S)
        for waiter in list(self._waiting):
            _end(waiter, problem)

    def _wake(self) -> None:
        self._woken = False
        while self._come:
            waiter, done = self._come.popleft()
            if waiter.done():
                continue
            if done is None:
                waiter.set_result(None)
            elif (err := done.exception()) is not None:
                waiter.set_exception(err)
            else:
                waiter.set_result(done.result())


def _end(waiter: "asyncio.Future[Any]", err: ProblemError | ClientGoneError) -> None:
    if not waiter.done():
        waiter.set_exception(err)
