"""A network that is cut or slow: a proxy in front of a server's unix socket, for one worker or for all."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

Direction = Literal["to server", "to client"]
DIRECTIONS: tuple[Direction, ...] = ("to server", "to client")


class CutProxy:
    """Forwards bytes. What comes while a direction is cut arrives when it is repaired, as TCP has it."""

    def __init__(self, path: Path, server: str) -> None:
        """path, server: of the sockets; the proxy listens at the first."""
        self.url = f"unix://{path}"
        self.delay_s = 0.0  # of everything on its way to the server
        self._server = server
        self._passes = {direction: threading.Event() for direction in DIRECTIONS}
        for passes in self._passes.values():
            passes.set()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(100)
        threading.Thread(target=self._accept, daemon=True).start()

    @contextlib.contextmanager
    def cut(self, *directions: Direction) -> Iterator[None]:
        """Nothing passes in these directions while the block runs, and no end learns of it."""
        for direction in directions:
            self._passes[direction].clear()
        try:
            yield
        finally:
            for direction in directions:
                self._passes[direction].set()

    def close(self) -> None:
        """Accept no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        self._passes["to server"].wait()
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(self._server)
        except OSError:  # the server is away
            client.close()
            return
        back = threading.Thread(target=self._pass_on, args=(server, client, "to client"), daemon=True)
        back.start()
        self._pass_on(client, server, "to server")
        back.join()
        client.close()
        server.close()

    def _pass_on(self, source: socket.socket, target: socket.socket, direction: Direction) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if self.delay_s and direction == "to server":
                    time.sleep(self.delay_s)
                self._passes[direction].wait()
                target.sendall(data)
            self._passes[direction].wait()  # nor does the other end learn that this one has closed
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)
