"""What commands of lines share: the registry of this home and its server, and the lines as both know them."""

from pathlib import Path

import redis

from orchestrator.contract.errors import NotFoundError, UnavailableError
from orchestrator.contract.home import check_server, join_server, read_home_id
from orchestrator.contract.lines.registry import (
    LineRegistry,
    LinesOnDisk,
    answers_folder,
    line_names,
    read_line,
    unknown_line,
)
from orchestrator.contract.lines.settings import Line
from orchestrator.contract.lines.store import LineStore
from orchestrator.contract.server import connect, connect_raw, require_answer
from orchestrator.contract.settings import Settings, get_settings


def open_registry(*, join: bool = False) -> LineRegistry:
    """The lines of this home, with a server that answers and works for it.

    join: a server that works for no home yet is made to work for this one. Raises UnavailableError without a server.
    """
    settings = get_settings()
    url = settings.require_server_url()
    client = connect(url)
    require_answer(client, url)
    if join:
        join_server(settings, client)
    else:
        check_server(settings, client)
    client.close()
    return LineRegistry(settings, connect_raw(url))


class LinesView:
    """The lines as the disk of this home has them, and those of the server where this machine has no such home.

    trouble: why there is no server to ask; the lines of the disk can be shown all the same.
    """

    def __init__(self) -> None:
        settings = get_settings()
        self._disk = LinesOnDisk(settings)
        self.trouble: UnavailableError | None = None
        self._client: redis.Redis | None = None
        try:
            self._client = connect_raw(_checked_url(settings))
        except UnavailableError as err:
            self.trouble = err

    def names(self) -> list[str]:
        on_server = line_names(self._client) if self._client else []
        return sorted({*self._disk.names(), *on_server})

    def get(self, name: str) -> Line:
        """Raises NotFoundError, which names the lines there are; UnavailableError where only a server could know."""
        if name in self._disk.names():
            return self._disk.get(name)
        if self._client is None:
            assert self.trouble is not None
            raise self.trouble
        line = read_line(self._client, name)
        if line is None:
            raise NotFoundError(unknown_line(name, self.names()))
        return line

    def answers_folder(self, name: str) -> Path:
        """Where the older answers of a line are in this home; it may not exist."""
        return answers_folder(self._disk.folder(name))

    def store(self, line: Line) -> LineStore:
        """The line on its server, its own or the main one. Raises UnavailableError where that does not answer."""
        if self._client is None:
            assert self.trouble is not None
            raise self.trouble
        if not line.settings.server:
            return LineStore(self._client, line.name)
        own = connect_raw(line.settings.server)
        require_answer(own, line.settings.server)
        return LineStore(own, line.name)


def _checked_url(settings: Settings) -> str:
    """The server; it must work for this home, if this machine has one."""
    url = settings.require_server_url()
    client = connect(url)
    require_answer(client, url)
    if read_home_id(settings) is not None:
        check_server(settings, client)
    client.close()
    return url
