"""Health: whether the gateway lives, and whether an image that is pushed now would be answered in time."""

import asyncio
from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from orchestrator.gateway.context import GatewayContext


def health_router(context: GatewayContext) -> APIRouter:
    """`/health/live` and `/health/ready`."""
    router = APIRouter(prefix="/health", tags=["health"])

    @router.get("/live", summary="Whether the gateway runs")
    async def live() -> dict[str, str]:
        return {"status": "live"}

    @router.get("/ready", summary="Whether pushed images would be answered in time", responses={503: {}})
    async def ready() -> Response:
        facts = await asyncio.to_thread(readiness, context)
        return JSONResponse(facts, 200 if facts["ready"] else 503)

    return router


def readiness(context: GatewayContext) -> dict[str, Any]:
    """Whether the server answers."""
    context.server()[1].ping()
    return {"ready": True}
