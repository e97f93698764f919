"""A server that freezes at the worst moment: a proxy that drops one acknowledgement and everything after it."""

import contextlib
import socket
import threading
from pathlib import Path


class StallingProxy:
    """Forwards the bytes of a unix socket, until a connection sends `word`: that connection stalls, once."""

    def __init__(self, path: Path, server: str, word: bytes) -> None:
        self.url = f"unix://{path}"
        self.stalled = threading.Event()
        self._server = server
        self._word = word
        self._armed = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def arm(self) -> None:
        """Stall the next connection that sends the word."""
        self._armed.set()

    def close(self) -> None:
        """Accept no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._server)
                threading.Thread(target=self._pass_on, args=(client, server, True), daemon=True).start()
                threading.Thread(target=self._pass_on, args=(server, client, False), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, from_client: bool) -> None:
        stalled = False
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if from_client and self._armed.is_set() and self._word in data:
                    self._armed.clear()
                    stalled = True
                    self.stalled.set()
                if not stalled:
                    target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
