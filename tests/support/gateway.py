"""A gateway's application in the test's process, without a socket."""

import asyncio
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2

from orchestrator.contract.settings import Settings
from orchestrator.gateway.app import create_app
from orchestrator.gateway.context import GatewayContext, GatewayOptions
from orchestrator.gateway.guard.access_log import AccessLog

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
        self._app = create_app(context, log=self._access_log)

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
        transport = httpx2.ASGITransport(app=self._app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost:8080") as client:
            return await client.request(method, path, **options)
