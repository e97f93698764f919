"""The routes of the Open Inference Protocol, version 2: inference as push routes, the rest as a router."""

import asyncio
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from modeling.errors import ModelingError
from orchestrator.contract.errors import UnavailableError
from orchestrator.gateway.context import GatewayContext
from orchestrator.gateway.health import Health, why_not_ready
from orchestrator.gateway.inference import facts, statistics
from orchestrator.gateway.inference.errors import bad_request, unsupported
from orchestrator.gateway.inference.infer import Inference
from orchestrator.gateway.inference.outputs import Labels
from orchestrator.gateway.inference.requests import parse_json
from orchestrator.gateway.inference.targets import InferenceTarget, Targets
from orchestrator.gateway.problems import ProblemError, describe
from orchestrator.gateway.routes import PushRoute

_MODEL, _VERSION = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
_ERROR = {"description": "Why not, as `error`", "content": {"application/json": {"example": {"error": "text"}}}}
_ERRORS: dict[int | str, dict[str, Any]] = {400: _ERROR, 404: _ERROR, 500: _ERROR, 503: _ERROR}
_NOT_THERE = {
    "/v2/repository/models/{rest:path}": "models are loaded when they are asked for (ready, infer), and unloaded later",
    "/v2/systemsharedmemory/{rest:path}": "shared memory is not supported; send tensors in the body",
    "/v2/cudasharedmemory/{rest:path}": "shared memory is not supported; send tensors in the body",
    "/v2/trace/{rest:path}": "traces are not supported; `GET /metrics` has times by stage",
    "/v2/models/{model}/trace/{rest:path}": "traces are not supported; `GET /metrics` has times by stage",
    "/v2/logging": "the log cannot be changed over HTTP",
}


class InferenceRoutes:
    """What an application includes."""

    def __init__(self, context: GatewayContext) -> None:
        self._context = context
        self._targets = Targets(context)
        self._health = Health(context)

    @property
    def push_routes(self) -> list[PushRoute]:
        """Of inference, by a model's name, and by its version."""
        infer = Inference(self._targets, self._context.waiters, self._context.disk)
        return [PushRoute(f"{path}/infer", infer, _operation(path)) for path in (_MODEL, _VERSION)]

    @property
    def router(self) -> APIRouter:
        """All other calls."""
        router = APIRouter(tags=["inference"])
        self._add_server(router)
        for path, summary in ((_MODEL, "a model"), (_VERSION, "a version of a model")):
            self._add_model(router, path, summary)
        for path, text in _NOT_THERE.items():
            router.add_api_route(path, _refuse(text), methods=["GET", "POST"], include_in_schema=False)
        return router

    def _add_server(self, router: APIRouter) -> None:
        context = self._context

        @router.get("/v2", summary="Name, version and extensions")
        async def metadata() -> dict[str, Any]:
            return facts.server_metadata()

        @router.get("/v2/health/live", summary="Whether the gateway runs")
        async def live() -> dict[str, bool]:
            return {"live": True}

        @router.get("/v2/health/ready", summary="Whether images would be answered in time", responses={400: _ERROR})
        async def ready() -> dict[str, bool]:
            found = await self._health.ready("all")
            if not found["ready"]:  # why is for those who have a token: GET /health/ready
                raise bad_request("not ready: images would not be answered in time")
            return {"ready": True}

        @router.get("/v2/models/stats", summary="Counts of lines, and of models that are open", responses=_ERRORS)
        def stats() -> dict[str, Any]:
            return statistics.all_statistics(context)

        @router.post("/v2/repository/index", summary="Models and lines with their states", responses=_ERRORS)
        async def index(request: Request) -> list[dict[str, str]]:
            body = await request.body()  # may be empty, and has no type in some clients
            only_ready = bool(parse_json(body).get("ready")) if body.strip() else False
            return await context.disk.ask(
                ("index", only_ready), lambda: facts.repository_index(context, only_ready=only_ready)
            )

    def _add_model(self, router: APIRouter, path: str, what: str) -> None:
        context, targets = self._context, self._targets

        @router.get(path, summary=f"Inputs and outputs of {what}", responses=_ERRORS)
        async def metadata(model: str, version: str = "") -> dict[str, Any]:
            def ask() -> dict[str, Any]:
                target = targets.find(model, version)
                return facts.model_metadata(context, target, len(self._labels(target).names))

            return await context.disk.ask(("metadata", model, version), ask)

        @router.get(f"{path}/config", summary=f"Configuration of {what}", responses=_ERRORS)
        async def config(model: str, version: str = "") -> dict[str, Any]:
            def ask() -> dict[str, Any]:
                target = targets.find(model, version)
                return facts.model_config(target, self._labels(target).names)

            return await context.disk.ask(("config", model, version), ask)

        @router.get(f"{path}/ready", summary=f"Whether {what} answers now; it is opened", responses=_ERRORS)
        async def ready(model: str, version: str = "") -> dict[str, Any]:
            try:
                return await context.disk.ask(("ready", model, version), lambda: self._ready(model, version))
            except UnavailableError as err:
                raise _not_ready(err) from err

        @router.get(f"{path}/stats", summary=f"Counts of {what}", responses=_ERRORS)
        async def stats(model: str, version: str = "") -> dict[str, Any]:
            target = await context.disk.ask(("find", model, version), lambda: targets.find(model, version))
            return await asyncio.to_thread(statistics.statistics_of, context, target)

    def _ready(self, model: str, version: str) -> dict[str, Any]:
        """Raises ProblemError where it does not answer now."""
        target = self._targets.find(model, version)
        try:
            why = why_not_ready(self._context, self._targets.line_of(target))
        except Exception as err:
            raise _not_ready(err) from err
        if why is not None:
            raise bad_request(f"{target.name} is not ready: {why}")
        return {"name": target.name, "ready": True}

    def _labels(self, target: InferenceTarget) -> Labels:
        """None of a line whose model is gone."""
        try:
            return self._targets.labels(target.model) if target.model else Labels(())
        except ModelingError:
            return Labels(())


def _not_ready(err: Exception) -> Exception:
    """Health calls know 200 and 400 only."""
    problem = describe(err)
    if problem is None or problem.status_code == 404:
        return err
    return ProblemError(400, "not_ready", f"not ready: {problem.detail}")


def _refuse(text: str) -> Callable[[], Any]:
    async def refuse() -> Response:
        raise unsupported(text)

    return refuse


def _operation(path: str) -> dict[str, Any]:
    """The OpenAPI operation of inference."""
    names = [name for name in ("model", "version") if f"{{{name}}}" in path]
    binary = {"schema": {"type": "string", "format": "binary"}}
    answers = {
        400: "the request is not as the protocol has it", 404: "no such model, version or line",
        413: "the body is too large", 415: "another Content-Encoding than gzip or deflate",
        500: "an error of the gateway", 501: "shared memory, or sequences",
        503: "refused (`Retry-After`), or not predicted by the deadline",
    }  # fmt: skip
    return {
        "summary": "Classify images",
        "description": "JSON, then binary tensors where `Inference-Header-Content-Length` has the length of the JSON.",
        "tags": ["inference"],
        "operationId": f"infer{len(names)}",
        "parameters": [
            *({"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names),
            {"name": "Inference-Header-Content-Length", "in": "header", "schema": {"type": "integer", "minimum": 0}},
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"type": "object"}}, "application/octet-stream": binary},
        },
        "responses": {
            "200": {
                "description": "Tensors, in the order of the images",
                "content": {"application/json": {"schema": {"type": "object"}}, "application/octet-stream": binary},
            },
            **{str(status): _ERROR | {"description": text} for status, text in answers.items()},
        },
    }
