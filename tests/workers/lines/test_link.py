"""Answers that go to a server, and connections that end, without a server."""

import threading

import pytest
import redis

from orchestrator.contract.lines.answers import Verdict
from orchestrator.contract.lines.requests import Held
from orchestrator.contract.lines.settings import Line
from orchestrator.contract.lines.store import LineStore
from tests.support.line_worker import make_line
from tests.support.server import wait_until
from workers.device_gate import DeviceGate
from workers.lines.choice import LineChoice
from workers.lines.consumer import ConsumerSettings, LineConsumer
from workers.lines.link import ServerLink
from workers.lines.requests import Done, OpenLine, Request
from workers.lines.scheduler import Scheduler

NOWHERE = "redis://127.0.0.1:1/0"


class Store:
    """Takes answers, but for those of `faults`."""

    def __init__(self, *faults: Exception) -> None:
        self.faults = list(faults)

    def answer(self, given):
        if self.faults:
            raise self.faults.pop()
        return [True] * len(given)


class Files:
    """The files of lines; `kept` has the answers whose images are kept."""

    def __init__(self) -> None:
        self.kept: list[str] = []

    def keep(self, done: Done) -> None:
        self.kept.append(done.request.key)

    def take_not_kept(self, line: str) -> int:
        return 0

    def open(self, line: str) -> None: ...

    def forget(self, line: str) -> None: ...


def done_with(name: str, store: Store) -> Done:
    line = OpenLine(make_line(name), store, NOWHERE)
    request = Request(Held(f"1/{name}", 0, 0, 1, False), line, deadline_s=9.0, taken_s=0.0, waited_ms=0.0)
    return Done(request, Verdict("1"), Verdict("F", "late"), "")


def test_an_image_is_kept_once_also_where_another_lines_answers_are_sent_again():
    files = Files()
    link = ServerLink(NOWHERE, "w1", Scheduler(1, lambda late: None), files, DeviceGate(1))
    waiting = [done_with("first", Store()), done_with("second", Store(redis.ConnectionError("it is away")))]
    second = waiting[1]

    with pytest.raises(redis.ConnectionError):
        link._send(waiting)
    left = list(waiting)
    link._send(waiting)

    assert (left, waiting) == ([second], [])
    assert files.kept == ["1/first", "1/second"]


def links_now() -> int:
    return sum(thread.name in ("lines-take", "lines-answer", "lines-lease") for thread in threading.enumerate())


def test_a_server_whose_lines_are_closed_keeps_no_threads(monkeypatch):
    monkeypatch.setattr(LineStore, "report_capacity", lambda *_: None)
    settings = ConsumerSettings(NOWHERE, "w1", "cpu", LineChoice(), max_pixels=1, decode_threads=1)
    consumer = LineConsumer(settings, None, Files(), DeviceGate(1))
    others = links_now()
    elsewhere: dict[str, Line] = {"post": make_line(server="redis://127.0.0.1:2/0")}

    consumer._apply(elsewhere)
    consumer._apply({"post": make_line()})

    assert list(consumer._links) == [NOWHERE]
    consumer._apply({})
    assert consumer._links == {}
    wait_until(lambda: links_now() == others, what="the threads end")
