"""The thread that reads the answers to a client's pushes."""

import threading

from orchestrator.contract.lines.store import LineStore
from orchestrator.lines.line_server import SERVER_FAULTS, LineServer
from orchestrator.lines.pushes import Pushes

BLOCK_MS = 500
TIMEOUT_S = 1.5
AGAIN_S = 0.1
FORGET_EVERY = 200  # answers


class Reader:
    """Reads the client's replies, from their beginning after each new connection: what is known is ignored."""

    def __init__(self, pushes: Pushes, server: LineServer, client_id: str) -> None:
        self._pushes = pushes
        self._server = server
        self._client_id = client_id
        self._store: LineStore | None = None
        self._last = "0"
        self._num_read = 0
        self._wanted = threading.Event()
        self._stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, name="line-reader", daemon=True)

    def wake(self) -> None:
        """Something was sent, so an answer may come."""
        if not self._wanted.is_set():
            self._wanted.set()

    def stop(self) -> None:
        self._stopping.set()
        self._wanted.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wanted.wait()
            try:
                self._read()
            except SERVER_FAULTS:
                self._close()  # a new connection: this one may be dead
                self._stopping.wait(AGAIN_S)
        self._close()

    def _read(self) -> None:
        if self._store is None:
            self._store, self._last = self._server.open(TIMEOUT_S), "0"
        self._last, replies = self._store.replies(self._client_id, self._last, BLOCK_MS)
        for key, record in replies:
            self._pushes.resolve(key, record)
        if replies:
            self._server.health.answered()
            self._forget(len(replies))
        elif not len(self._pushes):
            self._rest()

    def _close(self) -> None:
        if self._store:
            self._store.client.close()
        self._store = None

    def _forget(self, num: int) -> None:
        """Remove from the server what was read, now and then."""
        self._num_read += num
        if self._num_read >= FORGET_EVERY and self._store:
            self._num_read = 0
            self._store.forget_replies(self._client_id, self._last)

    def _rest(self) -> None:
        """Nothing is awaited: do not read until something is sent."""
        self._wanted.clear()
        if len(self._pushes) or self._stopping.is_set():
            self._wanted.set()
