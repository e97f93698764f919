"""Faults that a client of a line does not foresee: a decision is made all the same, and it connects again."""

import asyncio
import contextlib
import gc
import socket
import sys
import weakref
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import pytest
import redis

from orchestrator.contract.lines.channel import Channel
from orchestrator.lines import connector
from orchestrator.lines.deadlines import Deadlines
from orchestrator.lines.drivers import LoopDriver, ThreadDriver
from orchestrator.lines.exchange import Exchange
from orchestrator.lines.pushes import Pushes
from orchestrator.lines.request import PushOptions, make_request
from tests.support.fake_line import FakeLineServer
from tests.support.line_worker import make_line
from tests.support.server import wait_until


@pytest.fixture
def server():
    return FakeLineServer(make_line(deadline_ms=60_000))


@pytest.fixture
def exchange(server):
    made = Exchange(Pushes("post", None, None), server, ThreadDriver())
    yield made
    made.stop()


def push(exchange, item, deadline=None, image=b"image"):
    request = make_request(image, item, 1, PushOptions(deadline=deadline), Future())
    exchange.offer(request)
    return request.future


def connect(exchange):
    exchange.start()
    wait_until(lambda: exchange.is_connected, what="it is connected")


def test_a_callback_that_ends_its_thread_keeps_no_other_push_from_its_decision(exchange):
    connect(exchange)
    first, second = push(exchange, "x", 2), push(exchange, "x", 2)
    first.add_done_callback(lambda done: sys.exit(1))

    assert [future.result(30).bin for future in (first, second)] == ["F", "F"]
    assert push(exchange, "y", 0.01).result(30).bin == "F"


def test_a_fault_in_an_event_loop_does_not_end_the_keeping_of_deadlines(server, monkeypatch):
    on_time, faults = Deadlines.on_time, iter([RuntimeError("a fault")])

    def fail_once(self, now):
        for fault in faults:
            raise fault
        on_time(self, now)

    async def main():
        exchange = Exchange(Pushes("post", None, "G"), server, LoopDriver())
        exchange.start()
        while not exchange.is_connected:
            await asyncio.sleep(0.005)
        monkeypatch.setattr(Deadlines, "on_time", fail_once)
        request = make_request(b"image", "x", 1, PushOptions(deadline=0.05), asyncio.get_running_loop().create_future())
        exchange.offer(request)
        assert (await asyncio.wait_for(request.future, 30)).bin == "F"
        exchange.stop()
        while exchange.is_connected:
            await asyncio.sleep(0.005)

    asyncio.run(main())


def test_a_push_without_a_deadline_ends_also_where_the_client_is_given_up_before_it_saw_the_line(
    exchange, server, monkeypatch
):
    monkeypatch.setattr(connector, "SHORTEST_PAUSE_S", 60.0)
    server.alive = False
    exchange._connector._pause_s = 60.0
    first = push(exchange, "x")
    exchange.start()
    assert first.exception(30) is not None  # and it waits for its next try now

    late = push(exchange, "y")
    exchange.stop()

    assert late.exception(30) is not None


def test_a_fault_that_nobody_foresaw_does_not_end_the_connecting(exchange, server, monkeypatch):
    look, faults = server.look, iter([UnicodeError("label too long")])

    def fail_once(timeout_s):
        for fault in faults:
            raise fault
        return look(timeout_s)

    monkeypatch.setattr(server, "look", fail_once)

    connect(exchange)


def test_the_last_reports_are_waited_for_also_after_the_settings_could_not_be_read(exchange, server, monkeypatch):
    monkeypatch.setattr(connector, "REFRESH_S", 0.01)
    connect(exchange)
    looks = []

    def look(timeout_s):
        looks.append(exchange.reports._away)
        raise redis.TimeoutError

    monkeypatch.setattr(server, "look", look)
    wait_until(lambda: len(looks) > 3, what="the settings could not be read")

    assert not any(looks)


def test_a_channel_is_not_closed_while_a_thread_sends():
    ours, theirs = socket.socketpair()
    connection = SimpleNamespace(_sock=ours)
    channel = Channel(None, connection)
    locked = []
    connection.disconnect = lambda: locked.append(channel._lock.locked())

    channel.close()

    assert locked == [True]
    for end in (ours, theirs):
        end.close()


@pytest.fixture
def channel():
    ours, theirs = socket.socketpair()
    theirs.settimeout(30)
    yield Channel(None, SimpleNamespace(_sock=ours, disconnect=ours.close)), theirs
    theirs.close()


@contextlib.contextmanager
def no_garbage_collection():
    """Only what nothing refers to any more is freed."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@dataclass
class Push:
    image: bytes


def test_a_channel_that_is_closed_keeps_nothing_of_what_was_under_way(channel):
    channel, _ = channel
    under_way = Push(bytes(1 << 22))  # more than a connection takes at once
    left = weakref.ref(under_way)
    with no_garbage_collection():
        channel.send([("SET", "k", under_way.image)], partial(lambda *_: None, channel, under_way))
        was_unsent = channel.has_unsent

        channel.close()
        del under_way

        assert left() is None
    assert (was_unsent, channel.has_unsent, channel.waits_since) == (True, False, None)


def test_a_channel_that_is_closed_sends_nothing(channel):
    channel, theirs = channel
    channel.close()

    channel.send([("PING",)], lambda replies: None)

    assert (channel.has_unsent, channel.waits_since) == (False, None)
    assert theirs.recv(10) == b""
