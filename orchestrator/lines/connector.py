"""The thread that connects to a line's server and reads the line's settings: both may take seconds."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from orchestrator.contract.errors import PigeonholeError
from orchestrator.contract.lines.channel import Channel
from orchestrator.contract.lines.settings import Line
from orchestrator.lines.line_server import SERVER_FAULTS, LineServer

logger = logging.getLogger(__name__)

TIMEOUT_S = 2.0
REFRESH_S = 1.0  # between two looks at the line's settings
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.02, 0.2  # between two tries to connect
MAIN_SERVER_AGAIN_S = 30.0  # the line's own server answers, the one with its settings does not


class Listener(Protocol):
    """Who is notified; each call is made in the connector's thread."""

    def saw(self, line: Line) -> None: ...

    def moved(self) -> None:
        """The line has another server now. It was removed and created again; the connections are of no use."""

    def connected(self, images: Channel, control: Channel, epoch: bytes | None) -> None: ...

    def no_such_line(self, err: PigeonholeError) -> None: ...

    def unreachable(self, err: BaseException) -> None: ...


class Connector:
    """Connects at once, and again after `connect_again`, or where the line has another server."""

    def __init__(
        self, server: LineServer, client_id: str, listener: Listener, on_published: Callable[[bytes], None]
    ) -> None:
        self._server = server
        self._client_id = client_id
        self._listener = listener
        self._on_published = on_published
        self._connected = False
        self._connected_to: str | None = None  # as `LineServer.own_url`
        self._line_seen = False
        self._pause_s = SHORTEST_PAUSE_S
        self._next_look = 0.0
        self._lost_logged = False
        self._wanted = threading.Event()
        self._stopped = threading.Event()
        self.thread = threading.Thread(target=self._run, name="line-connector", daemon=True)

    def connect_again(self, err: BaseException) -> None:
        """The connection was lost."""
        self._log(err)
        self._connected = False
        self._wanted.set()

    def stop(self) -> None:
        self._stopped.set()
        self._wanted.set()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._wanted.clear()
            try:
                wait_s = self._refresh() if self._connected else self._connect()
            except PigeonholeError as err:
                self._listener.no_such_line(err)
                wait_s = self._pause()
            except SERVER_FAULTS as err:
                self._log(err)
                self._listener.unreachable(err)
                wait_s = self._pause()
            except Exception as err:  # without this thread nobody would connect again
                logger.exception("line %s: a fault while connecting", self._server.name)
                self._listener.unreachable(err)
                wait_s = self._pause()
            self._wanted.wait(wait_s)
        if not self._line_seen:  # nobody else will say so to pushes that have no deadline
            self._listener.unreachable(ConnectionError("the client was closed"))

    def _connect(self) -> float:
        if self._line_seen:
            self._stopped.wait(SHORTEST_PAUSE_S)  # what ends each connection at once must not keep a core busy
        self._look()
        self._connected, self._connected_to = True, self._server.own_url
        try:
            opened = self._server.open_channels(self._client_id, self._on_published, TIMEOUT_S)
        except BaseException:
            self._connected = False
            raise
        self._pause_s = SHORTEST_PAUSE_S
        self._listener.connected(*opened)
        return REFRESH_S

    def _refresh(self) -> float:
        if time.monotonic() >= self._next_look:
            self._look()
            if self._server.own_url != self._connected_to:
                self._connected = False
                self._listener.moved()
                return 0.0
        self._lost_logged = False  # it lasts; with a server that takes no writes none does
        return REFRESH_S

    def _look(self) -> None:
        """Read the line. One that was seen before stays as it was where it cannot be read now."""
        try:
            line = self._server.look(TIMEOUT_S)
        except PigeonholeError:  # it was removed, or a newer release wrote it
            if not self._line_seen:
                raise
            return
        except SERVER_FAULTS:
            if not self._line_seen or self._server.own_url is None:
                raise
            self._next_look = time.monotonic() + MAIN_SERVER_AGAIN_S
            return
        self._line_seen = True
        self._listener.saw(line)

    def _pause(self) -> float:
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, LONGEST_PAUSE_S)
        return pause_s

    def _log(self, err: BaseException) -> None:
        if not self._lost_logged:
            self._lost_logged = True
            logger.warning("line %s: the server does not answer: %s", self._server.name, err)
