"""`/metrics` for Prometheus."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from orchestrator.gateway.context import GatewayContext
from orchestrator.gateway.metrics.collector import FleetCollector

SHARED_S = 1.0  # a look at the server answers all scrapes of that time

_TYPES = ("text/plain", "application/openmetrics-text")
Encoder = Callable[[Any], bytes]


def metrics_router(context: GatewayContext) -> APIRouter:
    """`/metrics`: the whole fleet, and this gateway."""
    router = APIRouter(tags=["metrics"])
    scrapes = Scrapes(context)

    @router.get(
        "/metrics",
        summary="Metrics of the fleet and of this gateway, for Prometheus",
        response_class=Response,
        responses={
            200: {"description": "All metrics", "content": {each: {"schema": {"type": "string"}} for each in _TYPES}}
        },
    )
    async def metrics(request: Request) -> Response:
        encoder, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(await asyncio.to_thread(scrapes.encoded, content_type, encoder), media_type=content_type)

    return router


class Scrapes:
    """Scrapes that share one look at the server."""

    def __init__(self, context: GatewayContext) -> None:
        self._fleet = CollectorRegistry()
        self._fleet.register(FleetCollector(context))
        self._own = context.figures.registry
        self._lock = threading.Lock()
        self._found: dict[str, tuple[float, bytes]] = {}  # by content type: until when, and the text

    def encoded(self, content_type: str, encoder: Encoder) -> bytes:
        """Of all metrics, as a scraper reads it. Where several ask at once, one reads and the others wait for it."""
        with self._lock:
            until_s, text = self._found.get(content_type, (0.0, b""))
            if time.monotonic() >= until_s:
                text = encoder(_Both(self._fleet, self._own))
                self._found = {content_type: (time.monotonic() + SHARED_S, text)}
            return text


class _Both:
    """Two registries, as an encoder reads one."""

    def __init__(self, *registries: CollectorRegistry) -> None:
        self._registries = registries

    def collect(self) -> Any:
        for registry in self._registries:
            yield from registry.collect()
