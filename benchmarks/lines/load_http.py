"""The load generator's client of a server that answers HTTP: POST of the image's bytes, connections kept open.

It parses no more than a status and a length: so the peers do not pay for a slow client.
"""

import selectors
import socket
import time
from collections import deque
from urllib.parse import urlsplit

from benchmarks.lines.load import Finished

RECEIVE_BYTES = 65_536


class _Connection:
    """One connection; a request at a time."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.number = -1
        self._received = b""

    def receive(self) -> bytes | None:
        """The status of the answer, once all of it is here."""
        data = self.socket.recv(RECEIVE_BYTES)
        if not data:
            raise ConnectionError("the server closed the connection")
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator or len(body) < _length(head):
            return None
        self._received = b""
        return head.split(b" ", 2)[1]


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise ConnectionError(f"an answer without a length: {head[:200]!r}")


class HttpTarget:
    """As many connections as there are requests in flight."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "", parts.port or 80)
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        self._head = f"POST {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: ".encode()
        self._idle: deque[_Connection] = deque()
        self._selector = selectors.DefaultSelector()

    def submit(self, number: int, image: bytes, deadline_ms: int, due: float) -> None:
        if self._idle:
            connection = self._idle.pop()
        else:
            connection = _Connection(self._address)
            self._selector.register(connection.socket, selectors.EVENT_READ, connection)
        connection.number = number
        connection.socket.sendall(self._head + str(len(image)).encode() + b"\r\n\r\n" + image)

    def wait(self, seconds: float) -> list[Finished]:
        found = []
        for key, _ in self._selector.select(seconds):
            connection: _Connection = key.data
            status = connection.receive()
            if status is not None:
                error = "" if status == b"200" else f"status {status.decode()}"
                found.append(Finished(connection.number, time.monotonic(), error=error, predicted=not error))
                self._idle.append(connection)
        return found

    def close(self) -> None:
        for key in list(self._selector.get_map().values()):
            key.data.socket.close()
        self._selector.close()
