"""In a worker's parent: answers what is late on all lines, and makes an emptied server know its lines again.

Both go on while the pool child hangs, starts, or is dead. Each server has a thread of its own, and the disk another, so
that none of them holds up the others.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, cast

from orchestrator.contract.ledger.live_workers import HEARTBEAT_S
from orchestrator.contract.lines.registry import VERSION_KEY, LineRegistry, Refill
from orchestrator.contract.lines.settings import Line
from orchestrator.contract.lines.store import LineStore
from orchestrator.contract.server import SERVER_ERRORS, connect_raw
from orchestrator.contract.settings import Settings
from workers.lines.apart import LinesApart

logger = logging.getLogger(__name__)

SOCKET_TIMEOUT_S = 2.0
MOST_MS = 250  # between two sweeps
_LEAST_MS = 10
_EPOCH_S = 0.5  # between two checks whether the server was emptied
_AWAY_PAUSE_S = 0.25
_EXTRA_MS = 1  # the server's clock counts whole ms


class LineSweeper:
    """The threads that sweep and refill all lines of a home."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.require_server_url()
        self._registry = LineRegistry(settings, connect_raw(self._url, timeout_s=SOCKET_TIMEOUT_S))
        self._servers: dict[str, _ServerSweep] = {}
        self._troubles: dict[str, str] = {}
        self._stopped = threading.Event()
        self._wanted = threading.Event()  # a refill now
        self._thread = threading.Thread(target=self._run, name="lines-refill", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, *, wait_s: float) -> None:
        self._stopped.set()
        self._wanted.set()
        for server in self._servers.values():
            server.stop()
        if self._thread.is_alive():
            self._thread.join(wait_s)

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._wanted.clear()
            try:
                self._take(self._registry.refill())
            except SERVER_ERRORS as err:
                logger.debug("lines: the server is away, it is filled again later: %s", err)
                self._stopped.wait(_AWAY_PAUSE_S)
                continue
            except Exception:
                logger.exception("cannot read the lines, trying again")
            self._wanted.wait(HEARTBEAT_S)

    def _take(self, found: Refill) -> None:
        """Sweep these lines from now on; say once what is wrong with others."""
        for name, trouble in found.troubles.items():
            if self._troubles.get(name) != trouble:
                logger.error("line %s: %s", name, trouble)
        self._troubles = found.troubles
        by_server: dict[str, list[Line]] = {self._url: []}
        for line in found.lines.values():
            by_server.setdefault(line.settings.server or self._url, []).append(line)
        for url, lines in by_server.items():
            if url not in self._servers:
                enters = self._registry.has if url != self._url else None
                self._servers[url] = _ServerSweep(url, self._wanted.set, enters)
                self._servers[url].start()
            self._servers[url].lines = tuple(lines)
        for url in set(self._servers) - set(by_server):
            self._servers.pop(url).stop()


class _ServerSweep:
    """Sweeps the lines of one server. `lines` is replaced whole."""

    def __init__(self, url: str, on_changed: Callable[[], None], enters: Callable[[str], bool] | None) -> None:
        """enters: whether a line is still to be entered, into a server of its own; None: this thread asks for that."""
        self.lines: tuple[Line, ...] = ()
        self._client = connect_raw(url, timeout_s=SOCKET_TIMEOUT_S)
        self._apart = LinesApart()
        self._on_changed = on_changed
        self._version: bytes | None = None
        self._enters = enters
        self._entered: dict[str, Line] = {}
        self._stores: dict[str, LineStore] = {}
        self._swept_s: dict[str, float] = {}  # when, by line
        self._stopped = threading.Event()
        self._away = False
        self._checked_s = 0.0
        self._thread = threading.Thread(target=self._run, name="lines-sweep", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()

    def _run(self) -> None:
        wait_s = 0.0
        while not self._stopped.wait(wait_s):
            try:
                wait_s = self._sweep()
                self._away = False
            except SERVER_ERRORS as err:
                if not self._away:
                    names = ", ".join(line.name for line in self.lines) or "none"
                    logger.warning("the server of lines %s is away, trying again: %s", names, err)
                self._away, wait_s = True, _AWAY_PAUSE_S
            except Exception:
                logger.exception("cannot sweep lines, trying again")
                wait_s = _AWAY_PAUSE_S

    def _sweep(self) -> float:
        """Answer what is late; returns seconds until the next sweep."""
        if time.monotonic() - self._checked_s > _EPOCH_S:
            self._check()
            self._checked_s = time.monotonic()
        wait_ms = MOST_MS
        for line in self.lines:
            half = max(_LEAST_MS, min(MOST_MS, line.settings.deadline_ms // 2))
            with self._apart.only(line.name, "sweeping"):
                swept_s, since_s = time.monotonic(), 0.0
                if line.name in self._swept_s:
                    since_s = max(0.001, swept_s - self._swept_s[line.name])
                wait_ms = min(wait_ms, self._store(line).sweep(half, since_s=since_s))
                self._swept_s[line.name] = swept_s
        return (wait_ms + _EXTRA_MS) / 1e3

    def _check(self) -> None:
        """See that the server knows the lines as they are, and this thread all lines."""
        known, lines = True, self.lines
        self._forget_all_but({line.name for line in lines})
        for line in lines:
            with self._apart.only(line.name, "entering"):
                store = self._store(line)
                if self._enters is None:
                    known &= store.epoch() is not None
                elif (self._entered.get(line.name) != line or store.epoch() is None) and self._enters(line.name):
                    store.enter(line)
                    self._entered[line.name] = line
        if self._enters is not None:
            return
        version = cast("bytes | None", self._client.get(VERSION_KEY))
        if not known or version != self._version:
            self._version = version
            self._on_changed()

    def _forget_all_but(self, names: set[str]) -> None:
        for removed in set(self._stores) - names:
            self._apart.forget(removed)
        kept: tuple[dict[str, Any], ...] = (self._stores, self._entered, self._swept_s)
        for each in kept:
            for removed in set(each) - names:
                del each[removed]

    def _store(self, line: Line) -> LineStore:
        if line.name not in self._stores:
            self._stores[line.name] = LineStore(self._client, line.name)
        return self._stores[line.name]
