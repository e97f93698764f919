"""The lines that a gateway pushes to, where the server is frozen and where a line goes meanwhile."""

import threading

import pytest

from orchestrator.contract.lines.registry import VERSION_KEY
from orchestrator.gateway.lines import OpenLines
from orchestrator.lines.client import LineClient
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
