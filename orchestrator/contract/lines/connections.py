"""Connections for commands that are many and small: sent together, replies as they come.

The calls of redis-py take several times as long as the server does for such a command. Connecting, logging in, TLS and
timeouts are redis-py's.
"""

import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

import hiredis
import redis

from orchestrator.contract.lines.server_clock import ServerClock

Command = tuple[Any, ...]  # of text, bytes and numbers
LARGE_BYTES = 8192  # an argument that is sent as it is: copies of images cost as much as sending them


_ATTRIBUTE = "_pigeonhole_connections"  # of a client's pool
_lock = threading.Lock()


def connections_of(client: redis.Redis) -> "Connections":
    """The connections of a client: the same for every line that is looked at through it.

    Each idle one stays taken from the client's pool, so one set for each line, made anew for each look, would empty it.
    """
    pool = client.connection_pool
    with _lock:
        found: Connections | None = getattr(pool, _ATTRIBUTE, None)
        if found is None:
            found = Connections(client)
            setattr(pool, _ATTRIBUTE, found)
        return found


class Connections:
    """The connections of one client; safe to share between threads. They end when the client is closed."""

    def __init__(self, client: redis.Redis) -> None:
        self.clock = ServerClock()
        self._pool = client.connection_pool
        self._idle: deque[Any] = deque()  # an end of a deque is safe between threads

    def send(self, commands: Sequence[Command]) -> list[Any]:
        """The replies in order, in one round trip; that of a command that failed is its error.

        Raises what redis-py raises where the server does not answer.
        """
        connection = self._take()
        try:
            connection.send_packed_command(pack_commands(commands))
            replies = [_read(connection) for _ in commands]
        except BaseException:
            connection.disconnect()  # a reply may be on its way
            raise
        finally:
            self._idle.append(connection)
        return replies

    def _take(self) -> Any:
        try:
            connection = self._idle.pop()
        except IndexError:
            return self._pool.get_connection()
        if connection.is_connected and _is_dead(connection):
            connection.disconnect()  # it connects again when something is sent
        return connection


def pack_commands(commands: Sequence[Command]) -> list[bytes]:
    """Commands as they are sent, in pieces."""
    pieces: list[bytes] = []
    small: list[bytes] = []
    for command in commands:
        if not any(isinstance(arg, bytes) and len(arg) > LARGE_BYTES for arg in command):
            small.append(hiredis.pack_command(command))
            continue
        small.append(b"*%d\r\n" % len(command))
        for arg in command:
            data = arg if isinstance(arg, bytes) else str(arg).encode()
            small.append(b"$%d\r\n" % len(data))
            if len(data) > LARGE_BYTES:
                pieces += (b"".join(small), data)
                small = [b"\r\n"]
            else:
                small += (data, b"\r\n")
    return [*pieces, b"".join(small)]


def _is_dead(connection: Any) -> bool:
    """Whether the server has closed a connection that nothing is expected on."""
    try:
        return bool(connection.can_read())
    except (redis.RedisError, OSError):
        return True


def _read(connection: Any) -> Any:
    try:
        return connection.read_response(disable_decoding=True)
    except redis.ResponseError as err:
        return err
