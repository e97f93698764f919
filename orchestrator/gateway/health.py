"""Health: whether the gateway lives, and whether an image that is pushed now would be answered in time."""

import asyncio
import time
from typing import Any

import redis
from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from modeling.errors import ModelingError
from orchestrator.contract.errors import UnavailableError
from orchestrator.contract.lines.settings import Line
from orchestrator.contract.lines.status import LineStatus, read_status
from orchestrator.gateway.context import GatewayContext
from orchestrator.gateway.guard.guard import CLIENT
from orchestrator.gateway.problems import describe
from orchestrator.gateway.threads import Questions

LOOK_AGAIN_S = 0.5  # anybody may ask, without a token
LONGEST_LOOK_S = 2.0  # of the server, and of the disk with the models
NUM_DISK_THREADS = 2
_NOT_READY: dict[int | str, dict[str, Any]] = {
    503: {
        "description": "Not ready; `why` says so to clients with a token.",
        "content": {"application/json": {"schema": {"type": "object"}}},
    }
}


def health_router(context: GatewayContext) -> APIRouter:
    """`/health/live` and `/health/ready`, of everything, of a line, and of a model."""
    router = APIRouter(prefix="/health", tags=["health"])
    health = Health(context)

    async def answer(request: Request, kind: str, name: str = "") -> Response:
        facts = await health.ready(kind, name)
        shown = facts if request.scope.get(CLIENT) else {"ready": facts["ready"]}
        return JSONResponse(shown, 200 if facts["ready"] else 503)

    @router.get("/live", summary="Whether the gateway runs")
    async def live() -> dict[str, str]:
        return {"status": "live"}

    @router.get("/ready", summary="Whether pushed images would be answered in time", responses=_NOT_READY)
    async def ready(request: Request) -> Response:
        return await answer(request, "all")

    @router.get("/ready/lines/{line}", summary="The same of one line", responses=_NOT_READY)
    async def ready_line(request: Request, line: str) -> Response:
        return await answer(request, "line", line)

    @router.get("/ready/models/{model}", summary="The same of one model", responses=_NOT_READY)
    async def ready_model(request: Request, model: str) -> Response:
        return await answer(request, "model", model)

    return router


class Health:
    """Looks at the server at most twice a second, for all requests together, and in one thread.

    Models are looked up on the disk, one question at a time for each, in threads that nothing else needs.
    """

    def __init__(self, context: GatewayContext) -> None:
        self._context = context
        self._seen_at = float("-inf")
        self._seen: dict[str, Any] = {}
        self._looking: asyncio.Task[None] | None = None
        self._disk = Questions("the home's disk", NUM_DISK_THREADS, limit_s=LONGEST_LOOK_S)

    async def ready(self, kind: str, name: str = "") -> dict[str, Any]:
        """`ready`, and `why` not; of everything also `lines`, by name. kind: `all`, `line` or `model`."""
        if time.monotonic() - self._seen_at > LOOK_AGAIN_S:
            if self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(self._look())
            if not (await asyncio.wait([self._looking], timeout=LONGEST_LOOK_S))[0]:
                return {"ready": False, "why": f"the server has not answered within {LONGEST_LOOK_S:g} s"}
            self._looking.result()
        seen = self._seen
        if kind == "all" or "lines" not in seen:
            return seen
        if kind == "line":
            return _of_line(seen, name)
        try:
            return await self._disk.ask(name, lambda: self._of_model(seen, name))
        except UnavailableError as err:
            return {"ready": False, "why": str(err)}

    async def _look(self) -> None:
        self._seen = await asyncio.to_thread(readiness, self._context)
        self._seen_at = time.monotonic()

    def _of_model(self, seen: dict[str, Any], name: str) -> dict[str, Any]:
        """Whether a line that has this version open is ready."""
        try:
            digest = self._context.models.find(name).digest
        except ModelingError as err:
            return {"ready": False, "why": str(err)}
        lines = [each for each in seen["lines"] if _digest(self._context, each) == digest]
        if not lines:
            return {"ready": False, "why": f"no line has it open; GET /v2/models/{name}/ready opens one"}
        return max((_of_line(seen, each) for each in lines), key=lambda facts: bool(facts["ready"]))


def readiness(context: GatewayContext) -> dict[str, Any]:
    """Whether the server answers, and each line but those that are paused would answer in time.

    Where no line counts, a worker must live: it answers for any model.
    """
    try:
        lines = context.lines.all(0.0)
        context.server()[1].ping()
        whys = {name: why_not_ready(context, line) for name, line in lines.items()}
        counting = {name: why for name, why in whys.items() if _counts(lines[name])}
        no_worker = None if counting or None in whys.values() else _no_worker(context)
    except Exception as err:
        if (problem := describe(err)) is None:
            raise
        return {"ready": False, "why": problem.detail}
    late = [f"{name}: {why}" for name, why in sorted(counting.items()) if why]
    why = no_worker or "; ".join(late) or None
    return {"ready": why is None, "why": why, "lines": {name: whys[name] or "ready" for name in sorted(whys)}}


def why_not_ready(context: GatewayContext, line: Line) -> str | None:
    """Why an image that is pushed to a line now would not be answered in time; None: it would be."""
    try:
        status = read_status(context.registry().store(line), line)
    except (redis.RedisError, OSError) as err:  # it may be the line's own server, and others are ready
        return f"its server does not answer: {err}"
    if status.state != "open":
        troubles = [worker.trouble or worker.loading for worker in status.workers if worker.alive]
        more = "; ".join(dict.fromkeys(trouble for trouble in troubles if trouble))
        return f"{status.state}{': ' if more else ''}{more}"
    return _why_busy(line, status)


def _counts(line: Line) -> bool:
    """Whether the gateway is not ready where this line is not."""
    return not line.settings.of_model and not line.paused


def _why_busy(line: Line, status: LineStatus) -> str | None:
    settings = line.settings
    if status.num_waiting >= settings.max_requests or status.bytes_waiting >= settings.max_bytes:
        return f"busy: {status.num_waiting} requests with {status.bytes_waiting} bytes wait, as many as may"
    if status.answer_ms is None or status.answer_ms > settings.deadline_ms:
        return f"busy: an answer would take {status.answer_ms or 0:.0f} ms, the deadline is {settings.deadline_ms} ms"
    return None


def _of_line(seen: dict[str, Any], name: str) -> dict[str, Any]:
    why = seen["lines"].get(name, "there is no such line")
    return {"ready": why == "ready", "why": None if why == "ready" else why}


def _digest(context: GatewayContext, line: str) -> str | None:
    """Of the version that a line's model means now."""
    found = context.lines.seen(line)
    try:
        return context.models.find(found.settings.model).digest if found else None
    except ModelingError:
        return None


def _no_worker(context: GatewayContext) -> str | None:
    workers = context.jobs().ledger.live_workers.workers()
    return None if any(worker.alive for worker in workers) else "no worker lives"
