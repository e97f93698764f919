"""What drives an exchange: a thread of its own, or the event loop of a program."""

import asyncio
import logging
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from orchestrator.contract.lines.channel import Channel
from orchestrator.lines.exchange import Exchange

logger = logging.getLogger(__name__)

FAULT_PAUSE_S = 0.005
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
_NOW = float("inf")  # as `wake_at`: any deadline is earlier, so adding one wakes the driver


class ThreadDriver:
    """One thread that waits for both connections and the next deadline."""

    def __init__(self) -> None:
        self.wake_at = _NOW
        self._calls: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._woken = False
        self._selector = selectors.DefaultSelector()
        self._wakes, self._is_woken = socket.socketpair()
        for end in (self._wakes, self._is_woken):
            end.setblocking(False)
        self._selector.register(self._is_woken, _READ)
        self._events: dict[Channel, int] = {}

    def start(self, exchange: Exchange) -> None:
        threading.Thread(target=self._run, args=(exchange,), name="line-client", daemon=True).start()

    def wake(self) -> None:
        if not self._woken:
            self._woken = True
            try:
                self._wakes.send(b"\0")
            except OSError:  # full: it wakes anyway; closed: it has ended
                return

    def call(self, function: Callable[..., None], *args: Any) -> None:
        self._calls.append((function, args))
        self.wake()

    def watch(self, channels: list[Channel]) -> None:
        for channel in self._events:
            self._selector.unregister(channel)
        self._events = dict.fromkeys(channels, _READ)
        for channel in channels:
            self._selector.register(channel, _READ, channel)

    def _run(self, exchange: Exchange) -> None:
        while not exchange.ended:
            try:
                self._run_once(exchange)
            except Exception:  # a deadline is kept, whatever happens
                logger.exception("a fault in the client of a line")
                time.sleep(FAULT_PAUSE_S)
        exchange.close()
        self._selector.close()
        self._wakes.close()
        self._is_woken.close()

    def _run_once(self, exchange: Exchange) -> None:
        self.wake_at = _NOW
        self._woken = False
        while self._calls:
            function, args = self._calls.popleft()
            function(*args)
        next_s = exchange.on_time()
        self._watch_for_room()
        self.wake_at = next_s
        if not self._calls:
            self._wait(exchange, max(0.0, next_s - time.monotonic()))

    def _wait(self, exchange: Exchange, seconds: float) -> None:
        for key, events in self._selector.select(seconds):
            channel = key.data
            if channel is None:
                self._is_woken.recv(64)
            elif channel in self._events:  # not closed meanwhile
                if events & _WRITE:
                    channel.flush()
                if events & _READ:
                    exchange.receive(channel)

    def _watch_for_room(self) -> None:
        """Wait also until a connection takes more, where something is left to send."""
        for channel, events in self._events.items():
            wanted = _READ | _WRITE if channel.has_unsent else _READ
            if wanted != events:
                self._events[channel] = wanted
                self._selector.modify(channel, wanted, channel)


class LoopDriver:
    """An event loop of asyncio, in whose thread everything happens.

    loop: None: the one that runs where `start` is called.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.wake_at = _NOW
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = _NOW
        self._exchange: Exchange
        self._channels: list[Channel] = []
        self._writing: set[Channel] = set()
        self._ended = False

    def start(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._loop = self._loop or asyncio.get_running_loop()
        self.wake()

    def wake(self) -> None:
        self.call(_nothing)

    def call(self, function: Callable[..., None], *args: Any) -> None:
        if self._loop is None:
            return
        try:
            self._loop.call_soon_threadsafe(self._run, function, args)
        except RuntimeError:  # the loop has ended, and with it all that waited
            return

    def _run(self, function: Callable[..., None], args: tuple[Any, ...]) -> None:
        function(*args)
        self._look()

    def watch(self, channels: list[Channel]) -> None:
        assert self._loop is not None
        for channel in self._channels:
            self._loop.remove_reader(channel.fileno())
            self._loop.remove_writer(channel.fileno())
        self._channels, self._writing = channels, set()
        for channel in channels:
            self._loop.add_reader(channel.fileno(), self._receive, channel)

    def _receive(self, channel: Channel) -> None:
        if channel in self._channels:
            self._exchange.receive(channel)
            self._look()

    def _flush(self, channel: Channel) -> None:
        channel.flush()
        self._look()

    def _look(self) -> None:
        """Do what is due, and set the timer."""
        if self._ended:
            return
        if self._exchange.ended:
            self._end()
            return
        self.wake_at = _NOW
        try:
            next_s = self._exchange.on_time()
            self._watch_for_room()
        except Exception:  # a deadline is kept, whatever happens
            logger.exception("a fault in the client of a line")
            next_s = time.monotonic() + FAULT_PAUSE_S
        self.wake_at = next_s
        if self._timer is None or next_s < self._timer_at:
            self._set_timer(next_s)

    def _set_timer(self, next_s: float) -> None:
        assert self._loop is not None
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = next_s
        self._timer = self._loop.call_later(max(0.0, next_s - time.monotonic()), self._timed)

    def _timed(self) -> None:
        self._timer = None
        self._look()

    def _watch_for_room(self) -> None:
        assert self._loop is not None
        for channel in self._channels:
            if channel.has_unsent != (channel in self._writing):
                if channel.has_unsent:
                    self._writing.add(channel)
                    self._loop.add_writer(channel.fileno(), self._flush, channel)
                else:
                    self._writing.discard(channel)
                    self._loop.remove_writer(channel.fileno())

    def _end(self) -> None:
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
        self._exchange.close()


def _nothing() -> None:
    """What is called where the driver should only look."""
