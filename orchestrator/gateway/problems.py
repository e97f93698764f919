"""Errors of /v1 as problem+json (RFC 9457), of /v2 as its protocol has them. Errors of ours are mapped here, once."""

import json
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import redis
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from modeling.errors import ModelFormatError, ModelingError, ModelInUseError, ModelNotFoundError
from orchestrator.contract.errors import (
    ClientClosedError,
    IntegrityError,
    MessageError,
    NotFoundError,
    OutsideRootsError,
    PigeonholeError,
    TakenError,
    UnavailableError,
    UsageError,
)  # fmt: skip

RETRY_S = 1.0  # where the server is away


class ProblemError(HTTPException):
    """An answer that is an error: FastAPI lets it through where it turns other exceptions into its own.

    code: a short, stable identifier for programs. members: further members of the problem. headers: of the answer.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        members: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, detail, headers)
        self.code = code
        self.members = dict(members or {})


def invalid(detail: str) -> ProblemError:
    """A value that cannot be used."""
    return ProblemError(400, "invalid", detail)


def retry_later(status: int, code: str, detail: str, retry_s: float, **members: Any) -> ProblemError:
    """A problem that passes: Retry-After in whole seconds, and `retry_after_ms` for those who can wait less."""
    headers = {"retry-after": str(max(1, math.ceil(retry_s)))}
    return ProblemError(
        status, code, detail, members={"retry_after_ms": math.ceil(retry_s * 1000)} | members, headers=headers
    )


def describe(err: Exception) -> ProblemError | None:
    """The problem that an exception of ours is; None for a bug."""
    if isinstance(err, ProblemError):
        return err
    if isinstance(err, RequestValidationError):
        errors = [{"loc": list(each["loc"]), "msg": each["msg"]} for each in err.errors()]
        return ProblemError(422, "invalid", _first_of(errors), members={"errors": errors})
    if isinstance(err, HTTPException):
        code = HTTPStatus(err.status_code).phrase.lower().replace(" ", "_")
        return ProblemError(err.status_code, code, str(err.detail), headers=err.headers)
    if isinstance(err, UnavailableError | redis.RedisError):
        text = str(err) if isinstance(err, UnavailableError) else f"the server does not answer: {err}"
        return retry_later(503, "unavailable", text, RETRY_S)
    if isinstance(err, ClientClosedError):
        return retry_later(503, "unavailable", "the line was removed, or this gateway stops; push again", RETRY_S)
    if isinstance(err, NotFoundError | ModelNotFoundError):
        return ProblemError(404, "not_found", str(err))
    if isinstance(err, OutsideRootsError):
        return ProblemError(403, "outside_roots", str(err))
    if isinstance(err, TakenError):
        return ProblemError(409, "taken", str(err))
    if isinstance(err, ModelInUseError):
        return ProblemError(409, "in_use", str(err))
    if isinstance(err, ModelFormatError | MessageError | IntegrityError):
        return ProblemError(500, "damaged", str(err))
    if isinstance(err, ModelingError | UsageError):
        return ProblemError(400, "invalid", str(err))
    return ProblemError(500, "failed", str(err)) if isinstance(err, PigeonholeError) else None


def problem_response(problem: ProblemError, path: str) -> Response:
    """The answer; `{"error": text}` below /v2."""
    if path.startswith("/v2"):
        body: dict[str, Any] = {"error": problem.detail}
        media_type = "application/json"
    else:
        body = problem_body(problem)
        media_type = "application/problem+json"
    return Response(json.dumps(body), problem.status_code, problem.headers, media_type)


def problem_body(problem: ProblemError) -> dict[str, Any]:
    """The members of a problem."""
    return {
        "type": f"urn:pigeonhole:{problem.code}",
        "title": HTTPStatus(problem.status_code).phrase,
        "status": problem.status_code,
        "detail": problem.detail,
        **problem.members,
    }


def add_problem_handlers(app: FastAPI) -> None:
    """Let every error of a FastAPI application leave as a problem."""

    async def handle(request: Request, err: Exception) -> Response:
        problem = describe(err) or ProblemError(500, "internal", "an error of the gateway; its log has the details")
        return problem_response(problem, request.url.path)

    ours = (ProblemError, PigeonholeError, ModelingError)
    for kind in (*ours, RequestValidationError, HTTPException, redis.RedisError, Exception):
        app.add_exception_handler(kind, handle)


def _first_of(errors: list[dict[str, Any]]) -> str:
    if not errors:
        return "the request cannot be used"
    return f"{'.'.join(str(part) for part in errors[0]['loc'])}: {errors[0]['msg']}"
