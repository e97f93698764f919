"""The gateway's ASGI application: the guard, then routes of pushes, then FastAPI with everything else."""

import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.responses import HTMLResponse

from orchestrator.gateway.context import GatewayContext
from orchestrator.gateway.docs_page import PAGE_POLICY, docs_page
from orchestrator.gateway.documented import complete
from orchestrator.gateway.guard.access_log import AccessLog
from orchestrator.gateway.guard.guard import Guard, GuardOptions
from orchestrator.gateway.guard.hosts import Hosts, check_host_name
from orchestrator.gateway.guard.tokens import read_tokens
from orchestrator.gateway.health import health_router
from orchestrator.gateway.inference.routes import InferenceRoutes
from orchestrator.gateway.items.batch import BatchPushes
from orchestrator.gateway.items.describe import batch_operation, push_operation
from orchestrator.gateway.items.push import ItemPushes
from orchestrator.gateway.items.router import lines_router
from orchestrator.gateway.jobs.models import models_router
from orchestrator.gateway.jobs.results import results_router
from orchestrator.gateway.jobs.routes import jobs_router
from orchestrator.gateway.lines import REFRESH_S
from orchestrator.gateway.metrics.routes import metrics_router
from orchestrator.gateway.problems import add_problem_handlers
from orchestrator.gateway.routes import PushRoute, PushRoutes

logger = logging.getLogger(__name__)

NUM_THREADS = 32


def create_app(context: GatewayContext, *, log: AccessLog | None = None) -> Guard:
    """The application. Raises UsageError for tokens or names of hosts that cannot be used."""
    options = context.options
    tokens = read_tokens(options.token_file) if options.token_file else None
    log = log or AccessLog(sys.stdout)
    inference = InferenceRoutes(context)
    push_routes = [*_push_routes(context), *inference.push_routes]
    api = FastAPI(
        title="Pigeonhole", version=version("pigeonhole"), lifespan=_lifespan(context, log), redirect_slashes=False,
        docs_url=None, redoc_url=None,  # they load scripts from another host
    )  # fmt: skip

    @api.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(docs_page(api.openapi()), headers={"content-security-policy": PAGE_POLICY})

    for router in [*_routers(context), inference.router]:
        api.include_router(router)
    add_problem_handlers(api)
    api.openapi = lambda: _openapi(api, push_routes)  # type: ignore[method-assign]
    guarded = GuardOptions(
        Hosts(options.host, map(check_host_name, options.allowed_hosts)), tokens, figures=context.figures
    )
    return Guard(PushRoutes(push_routes, api), guarded, log)


def _routers(context: GatewayContext) -> list[Any]:
    """The routers of the gateway's parts."""
    return [
        health_router(context),
        lines_router(context),
        jobs_router(context),
        results_router(context),
        models_router(context),
        metrics_router(context),
    ]


def _push_routes(context: GatewayContext) -> list[PushRoute]:
    """The routes that images are pushed to."""
    pushes = ItemPushes(context)
    batches = BatchPushes(pushes)
    return [
        PushRoute("/v1/lines/{line}/items", pushes.push, push_operation()),
        PushRoute("/v1/lines/{line}/batch", batches.push, batch_operation()),
    ]


def _lifespan(context: GatewayContext, log: AccessLog) -> Any:
    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        threads = ThreadPoolExecutor(NUM_THREADS, "gateway")  # questions to the server: they wait, mostly
        asyncio.get_running_loop().set_default_executor(threads)
        log.start()
        refreshing = asyncio.create_task(_refresh_lines(context))
        yield
        context.stopping.set()
        refreshing.cancel()
        log.close()
        await asyncio.to_thread(context.close)

    return lifespan


async def _refresh_lines(context: GatewayContext) -> None:
    while True:
        await asyncio.sleep(REFRESH_S)
        try:
            await asyncio.to_thread(context.lines.refresh)
        except Exception:  # of what somebody else wrote on the server: the next look may find it right
            logger.exception("the lines of the server cannot be read")


def _openapi(api: FastAPI, push_routes: list[PushRoute]) -> dict[str, Any]:
    if api.openapi_schema is None:
        schema = get_openapi(title=api.title, version=api.version, routes=api.routes)
        for route in push_routes:
            if route.operation:
                schema["paths"].setdefault(route.path, {})[route.method.lower()] = route.operation
        complete(schema)
        api.openapi_schema = schema
    return api.openapi_schema
