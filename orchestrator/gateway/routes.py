"""Routes of pushes: matched before FastAPI, whose machinery costs each request as much as the rest of the gateway.

They parse raw bodies themselves, and are described for the OpenAPI page by hand.
"""

import logging
import re
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import Response

from orchestrator.gateway.guard.bodies import limited, refuse_encoded
from orchestrator.gateway.guard.guard import REQUEST_ID, ROUTE, ASGIApp, Receive, Scope, Send
from orchestrator.gateway.problems import ProblemError, describe, problem_response
from orchestrator.gateway.waiters import ClientGoneError

logger = logging.getLogger(__name__)

_NAME = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class PushRoute:
    """One path to which images are pushed.

    path: such as `/v1/lines/{line}/items`; each name stands for one segment, decoded into `request.path_params`.
    endpoint: reads its body with `read_body`. operation: its OpenAPI operation object.
    """

    path: str
    endpoint: Callable[[Request], Awaitable[Response]]
    operation: dict[str, Any] = field(default_factory=dict)
    method: str = "POST"

    @property
    def pattern(self) -> re.Pattern[str]:
        """Of the path as it was sent, still encoded: an encoded slash is none."""
        return re.compile(_NAME.sub(r"(?P<\1>[^/]+)", self.path))


class PushRoutes:
    """An ASGI application: push routes first, everything else by the application behind."""

    def __init__(self, routes: Sequence[PushRoute], app: ASGIApp) -> None:
        self._routes = [(route.method, route.pattern, route) for route in routes]
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        raw_path = scope["raw_path"].decode("ascii", "replace")
        for method, pattern, route in self._routes:
            if found := pattern.fullmatch(raw_path):
                if method != scope["method"]:
                    await problem_response(_other_method(method), scope["path"])(scope, receive, send)
                    return
                scope["path_params"] = {name: unquote(value) for name, value in found.groupdict().items()}
                scope[ROUTE] = route.path
                await _answer(route.endpoint, scope, receive, send)
                return
        try:
            if scope["method"] not in ("GET", "HEAD"):
                refuse_encoded(scope)
                receive = limited(scope, receive)
        except ProblemError as problem:
            await problem_response(problem, scope["path"])(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _other_method(method: str) -> ProblemError:
    return ProblemError(405, "method_not_allowed", f"this takes {method} only", headers={"allow": method})


async def _answer(
    endpoint: Callable[[Request], Awaitable[Response]], scope: MutableMapping[str, Any], receive: Receive, send: Send
) -> None:
    try:
        response = await endpoint(Request(scope, receive))
    except ClientGoneError:
        return
    except Exception as err:
        problem = describe(err)
        if problem is None:
            logger.exception("request %s: an error of the gateway", scope[REQUEST_ID])
            problem = ProblemError(500, "internal", "an error of the gateway; its log has the details")
        response = problem_response(problem, scope["path"])
    await response(scope, receive, send)
