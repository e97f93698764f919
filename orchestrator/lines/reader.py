"""The thread that reads the answers to a client's pushes."""

import threading

from orchestrator.contract.lines.store import LineStore
from orchestrator.lines.line_server import SERVER_FAULTS, LineServer
from orchestrator.lines.pushes import Pushes

BLOCK_MS = 1_000  # also where nothing is awaited: a connection that died unnoticed would cost the next push a timeout
TIMEOUT_S = 2.0
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
        self._stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, name="line-reader", daemon=True)

    def stop(self) -> None:
        """Let the thread end when nothing is awaited any more."""
        self._stopping.set()
        self._pushes.seen.set()

    def _run(self) -> None:
        self._pushes.seen.wait()  # the line says where its server is
        while not self._stopping.is_set() or len(self._pushes):
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
        self._server.health.answered()
        for key, record in replies:
            self._pushes.resolve(key, record)
        self._forget(self._store, len(replies))

    def _forget(self, store: LineStore, num: int) -> None:
        """Remove from the server what was read, now and then."""
        self._num_read += num
        if self._num_read >= FORGET_EVERY:
            self._num_read = 0
            store.forget_replies(self._client_id, self._last)

    def _close(self) -> None:
        if self._store:
            self._store.client.close()
        self._store = None
