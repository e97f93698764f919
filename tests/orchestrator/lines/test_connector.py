"""The thread that connects to a line's server: what it says of a server that lets it connect, and then is of no use."""

import pytest
import redis

from orchestrator.lines import connector as module
from orchestrator.lines.connector import Connector
from tests.support.server import wait_until

LOST = redis.ResponseError("MISCONF the disk is full")


class Server:
    """Lets everybody connect. url_now: that of the line's own server, as the next look finds it."""

    name, own_url, url_now = "post", None, None

    def look(self, timeout_s):
        self.own_url = self.url_now
        return "the line"

    def open_channels(self, client_id, on_published, timeout_s):
        return "images", "control", b"epoch"


class Losing:
    """Loses each of the first connections as soon as it has it."""

    def __init__(self, times):
        self.times = times
        self.num_connected, self.looks_since = 0, 0
        self.told = []
        self.server = Server()
        self.connector = Connector(self.server, "client", self, lambda message: None)

    def saw(self, line):
        self.looks_since += 1

    def connected(self, images, control, epoch):
        self.num_connected, self.looks_since = self.num_connected + 1, 0
        self.told.append(f"connected to {self.server.own_url}")
        if self.num_connected <= self.times:
            self.connector.connect_again(LOST)

    def moved(self):
        self.told.append("moved")

    def unreachable(self, err):
        pass


@pytest.fixture
def losing(monkeypatch):
    monkeypatch.setattr(module, "REFRESH_S", 0.0)
    losing = Losing(5)
    yield losing
    losing.connector.stop()
    losing.connector.thread.join()


def test_connections_that_do_not_last_are_logged_once_and_one_that_lasted_again(losing, caplog):
    losing.connector.thread.start()
    wait_until(lambda: losing.num_connected == 6 and losing.looks_since > 1, what="a connection lasts")
    assert caplog.messages == [f"line post: the server does not answer: {LOST}"]

    losing.connector.connect_again(redis.ConnectionError("gone"))

    assert caplog.messages[1:] == ["line post: the server does not answer: gone"]


def test_a_line_that_has_another_server_now_is_connected_to_there(losing, caplog):
    losing.times = 0
    losing.connector.thread.start()
    wait_until(lambda: losing.looks_since > 1, what="it is connected")

    for url in ("redis://other", None):
        losing.server.url_now = url
        wait_until(lambda url=url: losing.told[-1] == f"connected to {url}", what="it is connected there")

    assert losing.told == [
        "connected to None", "moved", "connected to redis://other", "moved", "connected to None",
    ]  # fmt: skip
    assert caplog.messages == []
