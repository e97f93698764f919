"""Errors in the OpenAPI description: every status that a request may be answered with.

Routes name what they answer themselves; `complete` adds what the gateway answers before any route is asked.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.gateway.guard.roles import required_role

PROBLEM = "Problem"
V2_ERROR = "InferenceError"  # below /v2, as its protocol has it

_TEXTS = {
    400: "A value that cannot be used; also a token in the URL.",
    401: "No token, or a wrong one.",
    403: "A token without the role, a page of another site, or a path outside of the roots.",
    404: "There is no such thing.",
    408: "The request arrived too slowly.",
    409: "Something that exists stands in the way.",
    413: "The body is too large.",
    415: "A compressed body.",
    416: "The range lies behind the end of the file.",
    421: "A request for another host.",
    422: "A field that is missing or of the wrong kind; `errors` names each.",
    429: "The line is busy; Retry-After says when to push again.",
    431: "Too many or too large headers.",
    500: "Something on the disk is damaged, or the gateway has an error; `detail` says which.",
    503: "No server answers, the line is paused, or the gateway is full or stops; Retry-After says when to come again.",
}
_BY_THE_GATEWAY = (400, 408, 421, 431, 500, 503)
_BY_ROLE = (401, 403)
_OF_BODIES = (413, 415)


class Problem(BaseModel):
    """An error (RFC 9457)."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="`urn:pigeonhole:` and a short, stable code.")
    title: str
    status: int
    detail: str = Field(description="What failed, the value, and what to do, on one line.")


class InferenceError(BaseModel):
    """An error of the open inference protocol."""

    error: str


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What FastAPI takes as `responses`, for statuses that a route of /v1 answers with itself."""
    return {status: _response(status, "/v1") for status in statuses}


def complete(openapi: dict[str, Any]) -> None:
    """Add to each operation what the gateway may answer before it, and make every 422 what it is."""
    schemas = openapi.setdefault("components", {}).setdefault("schemas", {})
    schemas |= {PROBLEM: Problem.model_json_schema(), V2_ERROR: InferenceError.model_json_schema()}
    for path, operations in openapi["paths"].items():
        for method, operation in operations.items():
            _complete_operation(path, method.upper(), operation["responses"])
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)


def _complete_operation(path: str, method: str, responses: dict[str, Any]) -> None:
    wanted = [*_BY_THE_GATEWAY]
    wanted += _BY_ROLE if required_role(method, path) is not None else ()
    wanted += _OF_BODIES if method not in ("GET", "HEAD") else ()
    wanted += (422,) if "422" in responses else ()
    for status in wanted:
        if status == 422 or str(status) not in responses:
            responses[str(status)] = _response(status, path)


def _response(status: int, path: str) -> dict[str, Any]:
    schema, media_type = (
        (V2_ERROR, "application/json") if path.startswith("/v2") else (PROBLEM, "application/problem+json")
    )
    content = {media_type: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"description": _TEXTS[status], "content": content}
