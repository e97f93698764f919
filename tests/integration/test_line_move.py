"""A line that is created again on another server, while its clients run."""

import pytest

from orchestrator.contract.lines.registry import LINES_KEY
from orchestrator.lines import LineClient
from tests.support.line_worker import enter_line, line_worker, make_line
from tests.support.server import Server

pytestmark = pytest.mark.integration


def test_a_client_that_runs_pushes_to_the_server_that_the_line_has_now(server: Server, own_server: Server):
    removed = enter_line(server.url, make_line())
    with LineClient("post", server.url) as client:
        with line_worker(server.url):
            assert client.push(b"image", "x", deadline=60).bin == "1"
            assert client.answer("x") is not None
        removed.remove()
        moved = make_line(server=own_server.url)
        enter_line(own_server.url, moved)
        removed.client.hset(LINES_KEY, "post", moved.encode())

        with line_worker(own_server.url):
            answer = client.push(b"image", "y", deadline=60)
        found = client.answer("x"), client.answer("y")

    assert (answer.bin, answer.reason) == ("1", None)
    assert [each and each.bin for each in found] == [None, "1"]
