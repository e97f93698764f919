"""Gateways in the test's process: an application without a socket, and one that is served in a thread."""

import asyncio
import contextlib
import io
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx2

from orchestrator.contract.settings import Settings
from orchestrator.gateway.app import create_app
from orchestrator.gateway.context import GatewayContext, GatewayOptions
from orchestrator.gateway.guard.access_log import AccessLog
from orchestrator.gateway.guard.connection import ConnectionLimits
from orchestrator.gateway.serve import GatewayServer, listening_socket, make_config
from tests.support.server import wait_until

TOKENS = {"view": "view-token-0123456789", "push": "push-token-0123456789", "operate": "operate-token-0123456789"}


def make_context(home: Path, *, server_url: str | None = None, **options: Any) -> GatewayContext:
    """A gateway's context for a home."""
    return GatewayContext(Settings(home=home, server_url=server_url), GatewayOptions(**options))


def write_tokens(folder: Path) -> Path:
    """A token file with one token for each role."""
    path = folder / "tokens.txt"
    path.write_text("".join(f"{role} {token} {role}er\n" for role, token in TOKENS.items()))
    path.chmod(0o600)
    return path


def bearer(role: str) -> dict[str, str]:
    return {"authorization": f"Bearer {TOKENS[role]}"}


class InProcessGateway:
    """Sends requests to an application, each in an event loop of its own; `log` is the access log as text."""

    def __init__(self, context: GatewayContext) -> None:
        self._log = io.StringIO()
        self._access_log = AccessLog(self._log)
        self.context = context
        self.app = create_app(context, log=self._access_log)

    @property
    def log(self) -> str:
        self._access_log.flush()
        return self._log.getvalue()

    def request(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **options: Any
    ) -> httpx2.Response:
        return asyncio.run(self._request(method, path, headers=headers, **options))

    def get(self, path: str, **options: Any) -> httpx2.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx2.Response:
        return self.request("POST", path, **options)

    async def _request(self, method: str, path: str, **options: Any) -> httpx2.Response:
        self.context.stopping = asyncio.Event()  # that of an earlier request may belong to its loop
        transport = httpx2.ASGITransport(app=self.app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost:8080") as client:
            return await client.request(method, path, **options)


class ServedGateway:
    """A gateway at a port of its own. `server` is uvicorn's, `log` the access log so far."""

    def __init__(self, context: GatewayContext, limits: ConnectionLimits) -> None:
        self._log = io.StringIO()
        self.context = context
        self._listening = listening_socket(context.options)
        self._socket = self._listening.__enter__()
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        app = create_app(context, log=AccessLog(self._log))
        self.server = GatewayServer(make_config(app, context, limits), context, limits)
        self._thread = threading.Thread(target=self.server.run, args=([self._socket],))

    @property
    def log(self) -> str:
        return self._log.getvalue()

    def start(self) -> None:
        self._thread.start()
        wait_until(lambda: self.server.started, what="the gateway serves")

    def stop(self) -> None:
        """Stop it, and wait for its end."""
        self.server.should_exit = True
        self._thread.join(60)
        self._listening.__exit__(None, None, None)


@contextlib.contextmanager
def served(context: GatewayContext, limits: ConnectionLimits | None = None) -> Iterator[ServedGateway]:
    """A gateway that is stopped at the end of the block. The context's port should be 0: any that is free."""
    gateway = ServedGateway(context, limits or ConnectionLimits())
    gateway.start()
    try:
        yield gateway
    finally:
        gateway.stop()
