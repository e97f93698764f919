"""Errors in the OpenAPI description: every status that a route may answer with, as problem+json."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

SCHEMA = "Problem"
MEDIA_TYPE = "application/problem+json"

_MEANINGS = {
    400: "The request cannot be used; `detail` says why.",
    401: "No token of this gateway was sent.",
    403: "The token's role does not allow it, another site's page asked, or a path is below none of the roots.",
    404: "There is no such thing.",
    409: "Something that exists stands in the way.",
    413: "The body is too large.",
    415: "The body is compressed, or of a type that is not taken.",
    416: "The range lies behind the end of the file.",
    421: "The request is for another host.",
    422: "The body, the query or a header does not fit the description; `errors` has each place.",
    500: "Something on the disk is damaged, or the gateway has an error; `detail` says which.",
    503: "The server is away or the gateway is busy: try again after `Retry-After` seconds.",
}
_ALWAYS = (400, 401, 403, 421, 422, 500, 503)  # by the guard, by parsing, and where the server or the disk fails
_OF_BODIES = (413, 415)


class Problem(BaseModel):
    """An error (RFC 9457)."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="`urn:pigeonhole:` and a short, stable code.")
    title: str
    status: int
    detail: str = Field(description="What failed, the value, and what to do, on one line.")


def problems(*statuses: int, body: bool = False) -> dict[int | str, dict[str, Any]]:
    """What FastAPI takes as `responses`: the statuses that any route may have, these, and those of bodies."""
    wanted = sorted({*_ALWAYS, *statuses, *(_OF_BODIES if body else ())})
    content = {MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{SCHEMA}"}}}
    return {status: {"description": _MEANINGS[status], "content": content} for status in wanted}


def add_schema(openapi: dict[str, Any]) -> None:
    """Add the problem's schema, which the routes' responses name."""
    openapi.setdefault("components", {}).setdefault("schemas", {})[SCHEMA] = Problem.model_json_schema()
