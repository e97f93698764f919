"""The gate in front of every request: for whom it is, where it comes from, who sent it, and whether there is room.

One ASGI layer, since each costs every push. What is refused never reaches the application, nor is its body read.
"""

import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_to_bytes

from orchestrator.gateway.figures import GatewayFigures
from orchestrator.gateway.guard.access_log import AccessLog
from orchestrator.gateway.guard.bodies import HELD, BodyBudget
from orchestrator.gateway.guard.hosts import Hosts
from orchestrator.gateway.guard.request_ids import HEADER as ID_HEADER
from orchestrator.gateway.guard.request_ids import RequestIds
from orchestrator.gateway.guard.roles import required_role
from orchestrator.gateway.guard.tokens import ANYBODY, Client, Tokens
from orchestrator.gateway.problems import ProblemError, problem_response, retry_later

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

logger = logging.getLogger(__name__)

CLIENT = "pigeonhole.client"  # key of a scope: who sent the request; None: nobody, where none is needed
REQUEST_ID = "pigeonhole.request_id"
ROUTE = "pigeonhole.route"  # the path of a push route, with names for what varies
HEADERS = "pigeonhole.headers"  # by their lower-case names; of one that was sent several times the last
BEGAN = "pigeonhole.began"  # by time.perf_counter
_TOKEN_IN_QUERY = re.compile(rb"(?:^|[&;])(?:access_?token|token|authorization|bearer|api_?key)=", re.IGNORECASE)
_ONCE = (b"host", b"authorization", b"origin", b"sec-fetch-site", b"content-length", b"content-encoding")
_OWN_SITE = (b"same-origin", b"none")  # none: the user typed the address


@dataclass(frozen=True)
class GuardOptions:
    """tokens: None: everybody may do everything, which only a loopback address allows."""

    hosts: Hosts
    tokens: Tokens | None = None
    most_requests: int = 1_000  # that are worked on at once
    most_held_bytes: int = 512 << 20  # of all bodies together
    figures: GatewayFigures = field(default_factory=GatewayFigures)


class Guard:
    """An ASGI application around another one."""

    def __init__(self, app: ASGIApp, options: GuardOptions, log: AccessLog) -> None:
        self._app = app
        self._options = options
        self.log = log
        self.ids = RequestIds()
        self.bodies = BodyBudget(options.most_held_bytes)
        self.num_requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        scope[BEGAN], scope[HEADERS] = began, headers
        request_id = scope[REQUEST_ID] = self.ids.choose(headers.get(ID_HEADER))
        status = 0

        async def send_with_id(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (ID_HEADER, request_id.encode())]
            await send(message)

        self.num_requests += 1
        held = scope[HELD] = self.bodies.open()
        refused = None
        try:
            refused = self._refusal(scope, headers)
            if refused is not None:
                await problem_response(refused, scope["path"])(scope, receive, send_with_id)
            else:
                await self._app(scope, receive, send_with_id)
        finally:
            self.num_requests -= 1
            held.close()
            self._log_request(scope, status, refused, began)
            self._options.figures.request(_route(scope, refused), scope["method"], status, time.perf_counter() - began)

    def _refusal(self, scope: Scope, headers: dict[bytes, bytes]) -> ProblemError | None:
        """Why a request is refused; None: it is not. The cheapest questions come first."""
        if len(headers) != len(scope["headers"]) and (double := _sent_twice(scope["headers"])):
            return ProblemError(400, "invalid", f"the header {double} was sent twice")
        host = headers.get(b"host")
        if host is None or not self._options.hosts.allows(host, scope.get("server")):
            return ProblemError(
                421,
                "other_host",
                "this gateway does not answer to that Host; name it by `pigeonhole gateway --allow-host`",
            )
        method, path = scope["method"], scope["path"]
        if _from_elsewhere(method, path, headers):
            return ProblemError(403, "other_origin", "pages of other sites may not do this")
        if not _is_text(scope):
            return ProblemError(400, "invalid", "the path and the query are text in UTF-8, percent-encoded")
        return self._refuse_client(scope, headers, method, path) or self._refuse_load(path)

    def _refuse_client(self, scope: Scope, headers: dict[bytes, bytes], method: str, path: str) -> ProblemError | None:
        query = scope["query_string"]
        if query and _TOKEN_IN_QUERY.search(unquote_to_bytes(query) if b"%" in query else query):
            return ProblemError(400, "token_in_url", "a token is sent as `Authorization: Bearer`, never in the URL")
        role = required_role(method, path)
        client = self._client(headers)
        scope[CLIENT] = client
        if role is None or (client is not None and client.role >= role):
            return None
        if client is None:
            text = "send a token of this gateway as `Authorization: Bearer TOKEN`"
            return ProblemError(401, "no_token", text, headers={"www-authenticate": "Bearer"})
        return ProblemError(403, "not_allowed", f"this needs a token with the role {role.name.lower()}")

    def _client(self, headers: dict[bytes, bytes]) -> Client | None:
        if self._options.tokens is None:
            return ANYBODY
        given = headers.get(b"authorization")
        return None if given is None else self._options.tokens.find(given)

    def _refuse_load(self, path: str) -> ProblemError | None:
        if self.num_requests > self._options.most_requests and not path.startswith("/health/"):
            return retry_later(503, "overloaded", f"{self._options.most_requests} requests are worked on already", 1.0)
        return None

    def _log_request(self, scope: Scope, status: int, refused: ProblemError | None, began: float) -> None:
        client: Client | None = scope.get(CLIENT)
        facts = {"status": status, "id": scope[REQUEST_ID], "client": client.name if client else None}
        if refused is not None:
            facts["refused"] = refused.code
        self.log.add(scope, facts, began)


def _from_elsewhere(method: str, path: str, headers: Mapping[bytes, bytes]) -> bool:
    """Whether a request that acts, or opens a stream of events, comes from a page of another site.

    Programs that are not browsers send neither Sec-Fetch-Site nor Origin, and pass. Browsers send Sec-Fetch-Site over
    TLS and to loopback addresses; else Origin with everything but GET and HEAD.
    """
    if method in ("GET", "HEAD") and not (_is_stream(path, headers) or _opens_a_model(path)):
        return False
    site = headers.get(b"sec-fetch-site")
    if site is not None:
        return site not in _OWN_SITE
    origin = headers.get(b"origin")
    return origin is not None and origin.partition(b"://")[2].lower() != headers.get(b"host", b"").lower()


def _is_text(scope: Scope) -> bool:
    """Whether path and query are UTF-8. Else names that differ would become one, with U+FFFD for what is none."""
    query = scope["query_string"]
    try:
        if "\ufffd" in scope["path"]:
            unquote_to_bytes(scope["raw_path"]).decode()
        if b"%" in query:
            unquote_to_bytes(query).decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_stream(path: str, headers: Mapping[bytes, bytes]) -> bool:
    return path.endswith("/events") or b"text/event-stream" in headers.get(b"accept", b"")


def _opens_a_model(path: str) -> bool:
    return path.startswith("/v2/models/") and path.endswith("/ready")


def _route(scope: Scope, refused: ProblemError | None) -> str:
    """The path that a request's route has, with names for what varies: never a path that a client made up."""
    if refused is not None:
        return "refused"
    found = scope.get(ROUTE) or getattr(scope.get("route"), "path", None)
    return found if isinstance(found, str) else "other"


def _sent_twice(headers: list[tuple[bytes, bytes]]) -> str | None:
    """A header that counts, and that a request has twice: proxies might read the other one."""
    names = [name for name, _ in headers]
    return next((name.decode() for name in _ONCE if names.count(name) > 1), None)
