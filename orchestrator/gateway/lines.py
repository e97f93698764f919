"""The lines that a gateway pushes to: one client each, opened when it is first needed."""

import asyncio
import threading
import time
from collections.abc import Callable

import redis

from orchestrator.contract.errors import NotFoundError, UnavailableError
from orchestrator.contract.lines.registry import read_line, read_lines, unknown_line
from orchestrator.contract.lines.settings import Line, check_line_name
from orchestrator.lines.client import LineClient
from orchestrator.lines.core import LAST_REPORTS_S
from orchestrator.lines.request import PushRequest

REFRESH_S = 1.0  # how old the list of lines may be; a name that it lacks is asked for by itself
_FAULTS = (redis.RedisError, OSError)


class ForwardingClient(LineClient):
    """A client of a line that also takes pushes whose image was looked at before."""

    def offer(self, request: PushRequest) -> None:
        """Push it. Raises ClientClosedError."""
        self._core.offer(request)


class OpenLines:
    """The lines of the server, and a client of each that was pushed to. Safe to share between threads.

    connect: the server's URL and a client of it that does not decode replies. on_disk: whether the home has a line: an
    emptied server knows none until a worker tells it of them; raises UnavailableError where the disk hangs. loop: does
    the work of the clients that are opened from then on, so that no push crosses threads; None: each has a thread.
    """

    def __init__(self, connect: Callable[[], tuple[str, redis.Redis]], on_disk: Callable[[str], bool]) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._connect = connect
        self._on_disk = on_disk
        self._lock = threading.Lock()
        self._lines: dict[str, Line] = {}
        self._seen_at = float("-inf")
        self._clients: dict[str, ForwardingClient] = {}

    def opened(self, name: str) -> ForwardingClient | None:
        """The client of a line that was pushed to before; asks nobody."""
        return self._clients.get(name)

    def seen(self, name: str) -> Line | None:
        """A line as it was seen last; asks nobody."""
        return self._lines.get(name)

    def open(self, name: str) -> ForwardingClient:
        """The client of a line. Raises NotFoundError; UnavailableError where no server has told of the lines yet."""
        line = self.get(name)
        with self._lock:
            if name not in self._clients:  # it can decide before it has seen the line itself
                fallback = line.settings.fallback
                self._clients[name] = ForwardingClient(name, self._connect()[0], fallback=fallback, loop=self.loop)
            return self._clients[name]

    def get(self, name: str) -> Line:
        """The line as it was seen last. Raises as `open` does."""
        check_line_name(name)
        lines = self.all()
        if name not in lines and read_line(self._connect()[1], name) is not None:
            lines = self.all(0.0)
        if name not in lines:
            if self._on_disk(name):
                raise UnavailableError(f"the server was emptied and has no line {name!r} yet; a worker tells it again")
            raise NotFoundError(unknown_line(name, lines))
        return lines[name]

    def all(self, most_age_s: float = 2 * REFRESH_S) -> dict[str, Line]:
        """All lines by name; as they were seen last where the server is away, or is asked just now and does not answer.

        most_age_s: 0: ask it in any case, and wait for it.
        """
        if self._lock.acquire(blocking=not most_age_s or self._seen_at == float("-inf")):
            try:
                if time.monotonic() - self._seen_at > most_age_s:
                    self._look()
            finally:
                self._lock.release()
        return self._lines

    def refresh(self) -> None:
        """Look at the server's lines, if any were looked at before; clients of lines that were removed end."""
        if self._seen_at != float("-inf"):
            self.all(0.0)

    def close(self) -> None:
        """Let the clients end, once the server has their reports; what was pushed is answered all the same.

        Blocks half a second at most, and not in the thread of `loop`.
        """
        with self._lock:
            clients, self._clients = list(self._clients.values()), {}
        until = time.monotonic() + LAST_REPORTS_S
        for client in clients:
            client.wait_for_reports(until - time.monotonic())
            client.abandon()

    def _stays(self, name: str) -> bool:
        """Whether a line that the server lacks is taken for one that it will know again."""
        try:
            return self._on_disk(name)
        except UnavailableError:
            return True

    def _look(self) -> None:
        _, client = self._connect()
        try:
            _, found = read_lines(client)
            kept = {name: line for name, line in self._lines.items() if name not in found and self._stays(name)}
            self._lines = kept | found
        except _FAULTS:
            if self._seen_at == float("-inf"):
                raise
        self._seen_at = time.monotonic()
        for name in set(self._clients) - set(self._lines):
            self._clients.pop(name).abandon()
