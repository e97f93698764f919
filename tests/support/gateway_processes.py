"""Gateways in processes of their own, which are killed, and clients that push again until they are answered."""

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx2


class GatewayProcess:
    """A process of `pigeonhole gateway` at a port."""

    def __init__(self, port: int, environment: Mapping[str, str]) -> None:
        self.port = port
        self._environment = {**os.environ, **environment}
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def of(cls, home: Path, server_url: str, port: int) -> "GatewayProcess":
        return cls(port, {"PIGEONHOLE_HOME": str(home), "PIGEONHOLE_SERVER_URL": server_url})

    def start(self) -> None:
        command = [sys.executable, "-m", "orchestrator", "gateway", "--port", str(self.port)]
        self._process = subprocess.Popen(
            command, env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> int:
        """Stop it as an operator does; its exit code."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(30)


def push_until_answered(
    client: httpx2.Client, ports: Sequence[int], item: str, pause: Callable[[], object] = lambda: None
) -> tuple[dict[str, Any], int]:
    """The answer of an item, and the number of tries; each goes to the next gateway.

    pause: is called where a gateway cannot be reached.
    """
    for tries, port in enumerate(itertools.cycle(ports), 1):
        url = f"http://127.0.0.1:{port}/v1/lines/post/items?wait&item={item}"
        try:
            answer = client.post(url, content=item.encode())
        except httpx2.TransportError:
            pause()
            continue
        if answer.status_code not in (429, 503):
            assert answer.status_code == 200, answer.text
            return answer.json(), tries
    raise ValueError("there are no gateways")
