"""Requests at the socket of a gateway, byte by byte, and a line that answers nothing."""

import contextlib
import socket
from collections.abc import Iterator
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

from tests.support.gateway import ServedGateway
from tests.support.line_worker import make_line

HEAD = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /v1/lines/post/items?wait HTTP/1.1\r\nHost: localhost\r\n"
PUSH = POST + b"Content-Length: 1\r\n\r\n1"


def add_silent_line(gateway: ServedGateway) -> "Future[Any]":
    """A line `post`, and the future of all that is pushed to it, which the test ends."""
    future: Future[Any] = Future()
    client: Any = SimpleNamespace(submit_with=lambda *_: future, abandon=lambda: None, wait_for_reports=lambda _: None)
    gateway.context.lines._clients["post"], gateway.context.lines._lines["post"] = client, make_line()
    return future


@contextlib.contextmanager
def connected(gateway: ServedGateway) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as connection:
        yield connection


def read_all(connection: socket.socket) -> bytes:
    """What the gateway sends until it closes the connection."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def read_answer(connection: socket.socket) -> bytes:
    """One answer of JSON, after which the connection stays open."""
    answer = b""
    while not answer.endswith(b"}"):
        answer += connection.recv(65536)
    return answer


def status(answer: bytes) -> int | None:
    return int(answer.split(b" ", 2)[1]) if answer else None
