"""The server of a line, as one client sees it: where it is, and whether it answers."""

import os
from collections.abc import Callable

import redis

from orchestrator.contract.errors import NotFoundError, UnavailableError, UsageError
from orchestrator.contract.lines.channel import Channel, open_channel
from orchestrator.contract.lines.commands import LineCommands
from orchestrator.contract.lines.registry import LINES_KEY, read_line
from orchestrator.contract.lines.settings import Line
from orchestrator.contract.lines.store import LineStore
from orchestrator.contract.server import connect_raw
from orchestrator.contract.server_url import parse_url, redact

SERVER_FAULTS = (redis.RedisError, OSError)


class LineServer:
    """Opens connections to a line's server: the one of all lines, or the line's own."""

    def __init__(self, name: str, url: str) -> None:
        parse_url(url)
        self.name = name
        self.url = url
        self.own_url: str | None = None
        self._client: redis.Redis | None = None

    def look(self, timeout_s: float) -> Line:
        """Read the line from the server of all lines. Raises NotFoundError, or what redis raises."""
        if self._client is None:
            self._client = connect_raw(self.url, timeout_s=timeout_s)
        line = read_line(self._client, self.name)
        if line is None:
            names = sorted(name.decode() for name in self._client.hkeys(LINES_KEY))  # type: ignore[union-attr]
            there = f"there are: {', '.join(names)}" if names else "there is none"
            raise NotFoundError(f"there is no line {self.name!r} at {redact(self.url)}; {there}")
        self.own_url = line.settings.server
        return line

    def open(self, timeout_s: float) -> LineStore:
        """The line, through a connection of its own that sends nothing twice."""
        return LineStore(connect_raw(self.own_url or self.url, timeout_s=timeout_s), self.name)

    def open_channels(
        self, client_id: str, on_published: Callable[[bytes], None], timeout_s: float
    ) -> tuple[Channel, Channel, bytes | None]:
        """Two connections and the line's epoch. One is for the bytes of images, for which nothing else must wait.

        The server knows all scripts then, and answers to this client go to `on_published`.
        """
        client = connect_raw(self.own_url or self.url, timeout_s=timeout_s, protocol=3)
        commands = LineCommands(self.name)
        images, _ = open_channel(client)
        try:
            setup = [*commands.load_scripts(), commands.subscribe(client_id), commands.epoch()]
            control, replies = open_channel(client, setup, on_published)
            return images, control, replies[-1]
        except BaseException:
            images.close()
            raise

    def unavailable(self, err: BaseException) -> UnavailableError:
        """What is said where nothing can be decided."""
        return UnavailableError(
            f"no server answers at {redact(self.url)} ({err}), and line {self.name!r} was never seen; "
            "with deadline= and fallback= a client decides alone"
        )


def find_url(url: str | None) -> str:
    """The URL of the server: as given, in the environment, or as the settings of this machine have it.

    Raises UnavailableError or UsageError.
    """
    if given := url or os.environ.get("PIGEONHOLE_SERVER_URL"):
        return given
    try:
        from orchestrator.contract.settings import get_settings
    except ImportError as err:  # a client's installation has no pydantic-settings
        raise UsageError("name the server: url='redis://host:6379/0', or PIGEONHOLE_SERVER_URL") from err
    return get_settings().require_server_url()
