"""The lines that a gateway pushes to, where the server is frozen and where a line goes meanwhile."""

import threading
import time
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
import redis
from starlette.formparsers import MultiPartParser

from orchestrator.contract.lines.answers import Answer
from orchestrator.contract.lines.registry import VERSION_KEY
from orchestrator.gateway.lines import OpenLines
from orchestrator.lines.client import AT_ONCE_BYTES, LineClient
from orchestrator.lines.core import LAST_REPORTS_S
from tests.support.gateway import InProcessGateway, make_context
from tests.support.line_worker import make_line


class FrozenServer:
    """Answers with one line; `frozen` keeps the next look until it is set."""

    def __init__(self):
        self.frozen, self.asked = threading.Event(), threading.Event()
        self.frozen.set()

    def get(self, key):
        assert key == VERSION_KEY
        self.asked.set()
        self.frozen.wait(60)
        return b"1"

    def hgetall(self, _):
        return {b"post": make_line().encode().encode()}


def test_a_frozen_server_keeps_nobody_waiting_who_takes_lines_as_they_were():
    server = FrozenServer()
    lines = OpenLines(lambda: ("redis://localhost", server), lambda _: False)
    lines.all()
    server.frozen.clear()
    server.asked.clear()
    looking = threading.Thread(target=lines.refresh)
    looking.start()
    server.asked.wait(60)
    lines._seen_at -= 100

    found = lines.all()

    server.frozen.set()
    looking.join()
    assert list(found) == ["post"]


@pytest.mark.parametrize("path", ["/v1/lines/post/items?wait", "/v1/lines/post/items"])
def test_a_push_to_a_line_that_goes_while_its_image_arrives_is_to_be_repeated(tmp_path, path):
    context = make_context(tmp_path / "home")
    gateway = InProcessGateway(context)
    client = LineClient("post", "redis://127.0.0.1:1/0")
    client.abandon()
    context.lines._clients["post"], context.lines._lines["post"] = client, make_line()

    answer = gateway.post(path, content=b"an image")

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert context.waiters._waiting == set()


class Reporting:
    """A client that has something to report. steps: what became of it, with others."""

    def __init__(self, name, steps):
        self._name, self._steps = name, steps

    def wait_for_reports(self, seconds):
        assert seconds <= LAST_REPORTS_S
        self._steps.append(f"{self._name} reports")

    def abandon(self):
        self._steps.append(f"{self._name} ends")


def test_a_gateway_that_ends_lets_its_clients_report_first(tmp_path):
    steps = []
    lines = make_context(tmp_path / "home").lines
    lines._clients = {name: Reporting(name, steps) for name in "ab"}

    lines.close()

    assert steps == ["a reports", "a ends", "b reports", "b ends"]
    assert lines.opened("a") is None


def test_a_discharge_is_reported_when_the_server_has_it(tmp_path):
    reported, faults = [], [redis.ConnectionError("it is away")]

    def discharge(*report):
        if faults:
            raise faults.pop()
        reported.append(report)

    context = make_context(tmp_path / "home")
    context.lines._lines["post"], context.lines._seen_at = make_line(), time.monotonic() + 1000
    context._registry = SimpleNamespace(store=lambda line: SimpleNamespace(discharge=discharge))
    gateway = InProcessGateway(context)
    body = {"item": "ü/1", "pass": 2, "bin": "7"}

    answers = [gateway.post("/v1/lines/post/discharged", json=body) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [503, 202]
    assert "retry-after" in answers[0].headers
    assert reported == [("2/ü/1", "7")]


class Hashing:
    """A client of a line that answers at once. threads: in which it was called."""

    def __init__(self):
        self.threads = set()

    def submit_with(self, image, item, *_):
        self.threads.add(threading.current_thread())
        answered = Future()
        answered.set_result(Answer(item, 1, "B"))
        return answered


LARGE = AT_ONCE_BYTES + 1


@pytest.mark.parametrize(
    ("path", "body", "is_large"),
    [
        ("items?wait", {"content": b"x"}, False),
        ("items?wait", {"content": b"x" * LARGE}, True),
        ("items?wait", {"files": {"image": b"x" * LARGE}}, True),
        ("batch?wait", {"files": [("a", ("a", b"x")), ("b", ("b", b"x"))]}, False),
        ("batch?wait", {"files": [("a", ("a", b"x")), ("b", ("b", b"x" * LARGE))]}, True),
    ],
)
def test_large_images_are_neither_parsed_nor_hashed_in_the_event_loop(tmp_path, monkeypatch, path, body, is_large):
    client, parsing, parse = Hashing(), set(), MultiPartParser.parse

    def parse_somewhere(parser):
        parsing.add(threading.current_thread())
        return parse(parser)

    monkeypatch.setattr(MultiPartParser, "parse", parse_somewhere)
    context = make_context(tmp_path / "home")
    context.lines._clients["post"], context.lines._lines["post"] = client, make_line()

    answer = InProcessGateway(context).post(f"/v1/lines/post/{path}", **body)

    assert answer.status_code == 200
    assert (threading.current_thread() in client.threads | parsing) == (not is_large)
