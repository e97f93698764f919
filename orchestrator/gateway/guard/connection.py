"""One connection of the gateway: uvicorn's, with limits on what a client may send, and on how slowly.

uvicorn has no limit on the time in which headers or a body must arrive, nor on the size of headers. A connection notes
when it began to wait for its client, and one task looks at all connections twice a second (`cut_off_slow`): a push
costs no timer.
"""

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Literal, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from orchestrator.gateway.figures import GatewayFigures
from orchestrator.gateway.guard.access_log import AccessLog
from orchestrator.gateway.guard.guard import REQUEST_ID
from orchestrator.gateway.guard.joined_writes import JoinedWrites
from orchestrator.gateway.guard.request_ids import HEADER as ID_HEADER
from orchestrator.gateway.guard.request_ids import RequestIds
from orchestrator.gateway.problems import RETRY_S, ProblemError, invalid, problem_response, retry_later
from orchestrator.gateway.waiters import client_gone

Phase = Literal["idle", "headers", "body", "answer"]


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What one client may cost.

    header_s: from the first byte of a request, or from the connection, until its headers are there. body_s: until the
    body must be there, with one second more for each `body_bytes_per_s` received. write_s: without a byte of an answer
    taken. most_body_bytes: with the overhead of chunks. stop_s: after a signal, for what is worked on.
    """

    most_connections: int = 2_000
    header_s: float = 10.0
    body_s: float = 10.0
    body_bytes_per_s: int = 16_384
    write_s: float = 60.0
    most_header_bytes: int = 32_768
    most_headers: int = 100
    most_body_bytes: int = 512 << 20
    check_s: float = 0.5
    stop_s: float = 10.0


class GatewayProtocol(HttpToolsProtocol):
    """A connection. Times are of the monotonic clock."""

    limits: ConnectionLimits = ConnectionLimits()
    figures: GatewayFigures  # `protocol_with` sets these three
    log: AccessLog
    ids: RequestIds

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.url, self.headers = b"", []
        self._phase: Phase = "headers"
        self._since = time.monotonic()
        self._num_bytes = 0  # of this request's headers, then of its body
        self._write_paused_since: float | None = None
        self._closing_since: float | None = None
        self._refused: ProblemError | None = None
        self._unanswered: deque[RequestResponseCycle] = deque()  # several, where the client does not wait for answers

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.figures.connected(1)
        if len(self.connections) > self.limits.most_connections and not self._close_an_idle_one():
            self.figures.cut_off("connections")
            self._answer_raw(retry_later(503, "overloaded", "too many connections; try again later", RETRY_S))

    def connection_lost(self, exc: Exception | None) -> None:
        self.figures.connected(-1)
        super().connection_lost(exc)
        for cycle in self._unanswered:  # uvicorn tells the last one only
            cycle.disconnected = True
            cycle.message_event.set()
            client_gone(cast(dict[str, Any], cycle.scope))
        self._unanswered.clear()

    def _close_an_idle_one(self) -> bool:
        """Give up the connection that has been idle longest; whether there was one."""
        idle = [each for each in self.connections if isinstance(each, GatewayProtocol) and each._phase == "idle"]
        if not idle:
            return False
        min(idle, key=lambda each: each._since).transport.close()
        return True

    def data_received(self, data: bytes) -> None:
        if self._phase == "idle":
            self._begin("headers")
            self.scope, self.url, self.headers = None, b"", []  # type: ignore[assignment]  # were the last request's
        self._num_bytes += len(data)
        super().data_received(data)
        if self._phase == "headers" and self._num_bytes > self.limits.most_header_bytes:
            self._refuse(431, "headers_too_large", f"the headers have more than {self.limits.most_header_bytes} bytes")
            self.send_400_response("")
        elif self._phase == "body" and self._num_bytes > self.limits.most_body_bytes:
            self._refuse(413, "too_large", f"the body has more than {self.limits.most_body_bytes} bytes")
            self.send_400_response("")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._unset_keepalive_if_required()  # the request before may have ended just now, in the same piece of data
        self._begin("headers", num_bytes=self._num_bytes)

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        if len(self.headers) > self.limits.most_headers:
            self._refuse(431, "headers_too_large", f"the request has more than {self.limits.most_headers} headers")
            raise ValueError("too many headers")  # ends the parser; `send_400_response` says why

    def on_headers_complete(self) -> None:
        if not self.url.startswith(b"/"):
            self._refuse(400, "invalid", "the request's target is not a path")
            raise ValueError("no path")
        super().on_headers_complete()
        self.cycle.transport = cast(asyncio.Transport, JoinedWrites(self.transport, self.loop))
        self._unanswered.append(self.cycle)
        self._begin("body")

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if self._unanswered:
            self._phase = "answer"
        else:
            self._rest_after_body()

    def on_response_complete(self) -> None:
        if self._unanswered:
            self._unanswered.popleft()
        if self._phase == "answer" and not self._unanswered:  # else it still sends, and its time goes on
            self._begin("idle")
        super().on_response_complete()

    def _rest_after_body(self) -> None:
        """The request was answered before its body came: uvicorn's timer, set by the answer, ended with that body."""
        self._begin("idle")
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_paused_since = time.monotonic()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._write_paused_since = None

    def send_400_response(self, msg: str) -> None:
        """What cannot be parsed, or goes beyond a limit."""
        self._answer_raw(self._refused or invalid(msg))

    def cut_off_slow(self, now: float) -> None:
        """Close the connection if its client takes too long."""
        if self.transport.is_closing():  # as soon as the client has read what was written, which may be never
            self._closing_since = self._closing_since or now
            if now - self._closing_since > self.limits.write_s:
                self.figures.cut_off("answer")
                self.transport.abort()
            return
        if self._write_paused_since is not None and now - self._write_paused_since > self.limits.write_s:
            self.figures.cut_off("answer")
            self.transport.abort()
        elif self._phase == "headers" and now - self._since > self.limits.header_s:
            self.figures.cut_off("headers")
            self._too_slow(f"the headers did not arrive within {self.limits.header_s:g} s")
        elif self._phase == "body":
            if self.flow.read_paused:  # the gateway does not read, so the client cannot send
                self._since += self.limits.check_s
            elif now - self._since > self.limits.body_s + self._num_bytes / self.limits.body_bytes_per_s:
                self.figures.cut_off("body")
                self._too_slow("the body arrived too slowly")

    def _too_slow(self, detail: str) -> None:
        if self._phase == "body" and self.cycle.response_started:
            self.transport.close()  # it was answered before: nothing can be said any more
            return
        self._answer_raw(ProblemError(408, "too_slow", detail))

    def _begin(self, phase: Phase, *, num_bytes: int = 0) -> None:
        self._phase, self._since, self._num_bytes = phase, time.monotonic(), num_bytes

    def _refuse(self, status: int, code: str, detail: str) -> None:
        self._refused = ProblemError(status, code, detail)

    def _answer_raw(self, problem: ProblemError) -> None:
        """Answer without the application, and close."""
        if self.transport.is_closing():
            return
        if not self._can_answer():
            self._answer_no_more()
            return
        begun = cast(dict[str, Any] | None, self.scope) or {}  # None before the first request
        request_id = begun.get(REQUEST_ID) or self.ids.choose(dict(self.headers).get(ID_HEADER))
        scope = {"method": "-", "path": "-", "client": self.client} | begun
        waited_s = time.monotonic() - self._since
        facts = {"status": problem.status_code, "id": request_id, "refused": problem.detail}
        self.log.add(scope, facts, time.perf_counter() - waited_s)
        self._write(problem, request_id)
        for cycle in self._unanswered:
            cycle.disconnected = True
            cycle.message_event.set()
        self.transport.close()

    def _write(self, problem: ProblemError, request_id: str) -> None:
        answer = problem_response(problem, self.url.decode("latin-1"))
        own = ((ID_HEADER, request_id.encode()), (b"connection", b"close"))
        headers = (*self.server_state.default_headers, *answer.raw_headers, *own)
        lines = b"".join(b"%s: %s\r\n" % header for header in headers)
        self.transport.write(STATUS_LINE[problem.status_code] + lines + b"\r\n" + bytes(answer.body))

    def _can_answer(self) -> bool:
        """Whether the client would take what is written now for the answer to the request that is refused."""
        if self._phase == "body":
            return len(self._unanswered) == 1 and not self._unanswered[0].response_started
        return not self._unanswered

    def _answer_no_more(self) -> None:
        """Requests before the one that is refused get their answers, and then the connection ends."""
        if self._phase == "body" or not self._unanswered:
            self.transport.close()
            return
        for cycle in self._unanswered:
            cycle.keep_alive = False
        self._phase = "answer"


def protocol_with(
    limits: ConnectionLimits, figures: GatewayFigures, log: AccessLog, ids: RequestIds
) -> type[GatewayProtocol]:
    """Connections of one gateway; what never reaches its application is in the log, too."""
    return type("LimitedProtocol", (GatewayProtocol,), {"limits": limits, "figures": figures, "log": log, "ids": ids})
