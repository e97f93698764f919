"""A connection to a line's server that never blocks, for a client that has one thread or none of its own.

Connecting, logging in and TLS are redis-py's; what is sent and read afterwards is not.
"""

import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import hiredis
import redis

from orchestrator.contract.lines.connections import Command, pack_commands
from orchestrator.contract.server import anew

READ_BYTES = 1 << 16
MOST_PIECES = 64  # of one call of sendmsg
_WOULD_BLOCK = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_ERRORS: dict[str, type[redis.ResponseError]] = {
    "OOM": redis.exceptions.OutOfMemoryError,
    "NOSCRIPT": redis.exceptions.NoScriptError,
}

OnReplies = Callable[[list[Any]], None]


class Channel:
    """Commands go out in their order, and their replies to whom they were sent for.

    Sending is safe between threads; receiving belongs to one. `on_published` gets what the server publishes.
    """

    def __init__(
        self, client: redis.Redis, connection: Any, on_published: Callable[[bytes], None] | None = None
    ) -> None:
        """connection: of `client`, connected, with protocol 3; it is this channel's from now on."""
        self._client = client  # one that nobody holds closes its connections
        self._connection = connection
        self._socket = connection._sock  # redis-py has no public way to it
        self._socket.setblocking(False)
        self._gathers = not isinstance(self._socket, ssl.SSLSocket)  # TLS sends one piece at a time
        self._reader = _new_reader()
        self._on_published = on_published
        self._unsent: deque[memoryview] = deque()
        self._expected: deque[tuple[float, int, OnReplies]] = deque()
        self._replies: list[Any] = []  # of the first that is expected
        self._lock = threading.Lock()
        self._closed = False

    def fileno(self) -> int:
        return int(self._socket.fileno())

    @property
    def has_unsent(self) -> bool:
        return bool(self._unsent)

    @property
    def waits_since(self) -> float | None:
        """When the oldest command without a reply was sent, by the monotonic clock."""
        expected = self._expected
        return expected[0][0] if expected else None

    def send(self, commands: Sequence[Command], on_replies: OnReplies) -> None:
        """Send commands as far as the connection takes them now: `flush` sends the rest.

        Errors of the connection are raised by `receive`. A channel that is closed sends nothing, and has no replies.
        """
        pieces = pack_commands(commands)
        with self._lock:
            if self._closed:
                return
            self._expected.append((time.monotonic(), len(commands), on_replies))
            self._unsent.extend(map(memoryview, pieces))
            self._flush()

    def flush(self) -> None:
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        try:
            while self._unsent:
                if self._gathers:
                    num = self._socket.sendmsg(list(self._unsent)[:MOST_PIECES])
                else:
                    num = self._socket.send(self._unsent[0])
                self._drop_sent(num)
        except _WOULD_BLOCK:
            return
        except OSError:
            self._unsent.clear()  # `receive` finds the end of the connection

    def _drop_sent(self, num: int) -> None:
        while num:
            first = self._unsent[0]
            if num < len(first):
                self._unsent[0] = first[num:]
                return
            num -= len(first)
            self._unsent.popleft()

    def receive(self) -> None:
        """Read what is there, and pass it on. Raises what redis-py raises where the connection has ended."""
        for data in self._read():
            self._reader.feed(data)
            while (found := self._reader.gets()) is not False:
                self._take(found)

    def _read(self) -> list[bytes]:
        found = []
        try:
            with self._lock:
                found.append(self._socket.recv(READ_BYTES))
                while not self._gathers and self._socket.pending():
                    found.append(self._socket.recv(READ_BYTES))
        except _WOULD_BLOCK:
            return found
        if not found[-1]:
            raise redis.ConnectionError("the server closed the connection")
        return found

    def _take(self, found: Any) -> None:
        if isinstance(found, hiredis.PushNotification):
            if self._on_published is not None and found[0] == b"message":
                self._on_published(found[2])
            return
        self._replies.append(found)
        _, num, on_replies = self._expected[0]
        if len(self._replies) == num:
            self._expected.popleft()
            replies, self._replies = self._replies, []
            on_replies(replies)

    def close(self) -> None:
        with self._lock:  # a thread that sends now must not come to the next socket of this number
            self._closed = True
            self._connection.disconnect()
            self._unsent, self._expected = deque(), deque()  # what waits for replies refers to this channel: a cycle


def open_channel(
    client: redis.Redis, commands: Sequence[Command] = (), on_published: Callable[[bytes], None] | None = None
) -> tuple[Channel, list[Any]]:
    """A channel, and the replies to these commands, of which one may subscribe; this may block.

    Raises what redis-py raises.
    """
    connection: Any = client.connection_pool.get_connection()
    try:
        replies = _run(connection, commands)
        return Channel(client, connection, on_published), replies
    except BaseException:
        connection.disconnect()
        raise


def _run(connection: Any, commands: Sequence[Command]) -> list[Any]:
    """Send commands and wait for as many replies."""
    sock, reader = connection._sock, _new_reader()
    replies: list[Any] = []
    sock.sendall(b"".join(pack_commands(commands)))
    while len(replies) < len(commands):
        if not (data := sock.recv(READ_BYTES)):
            raise redis.ConnectionError("the server closed the connection")
        reader.feed(data)
        while (found := reader.gets()) is not False:
            if isinstance(found, Exception):
                raise anew(found)
            replies.append(found)
    return replies


def _new_reader() -> Any:
    return hiredis.Reader(protocolError=redis.exceptions.InvalidResponse, replyError=_error)


def _error(text: str) -> redis.ResponseError:
    return _ERRORS.get(text.partition(" ")[0], redis.ResponseError)(text)
