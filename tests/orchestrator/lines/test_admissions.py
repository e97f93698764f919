"""Pushes on their way to the server, where threads push while everything is sent again."""

import threading
from concurrent.futures import Future

from orchestrator.contract.lines.commands import LineCommands
from orchestrator.lines.admissions import Admissions
from orchestrator.lines.pushes import Pushes
from orchestrator.lines.request import PushOptions, PushRequest, make_request
from tests.support.line_worker import make_line


class Channel:
    """Takes commands, and replies when it is told to. sent: the keys of each batch."""

    def __init__(self) -> None:
        self.sent: list[list[str]] = []

    def send(self, commands, on_replies) -> None:
        *stored, script = commands
        self.sent.append(list(script[5::7]))
        self._reply = lambda: on_replies([b"OK"] * len(stored) + [[(b"admitted", b"")] * len(self.sent[-1])])

    def reply(self) -> None:
        self._reply()


def test_a_push_that_comes_while_everything_is_sent_again_is_not_forgotten():
    channel, pushes = Channel(), Pushes("post", None, "G")
    pushes.saw(make_line())
    admissions = Admissions(pushes, LineCommands("post"), "c", lambda request: None)
    admissions.connected(channel)

    def push(item: str) -> PushRequest:
        request = make_request(b"image", item, 1, PushOptions(deadline=60), Future())
        pushes.add(request)
        admissions.put(request)
        return request

    coming, waiting = threading.Thread(target=push, args=("meanwhile",)), pushes.waiting

    def push_meanwhile() -> list[PushRequest]:
        found = waiting()
        coming.start()
        coming.join(0.2)  # it may have to wait until all that is here is queued
        return found

    push("under way")
    pushes.waiting = push_meanwhile
    admissions.push_again()
    coming.join()
    channel.reply()

    assert channel.sent == [["1/under way"], ["1/meanwhile"]]
