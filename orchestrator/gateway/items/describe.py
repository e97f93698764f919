"""The OpenAPI description of pushes and their answers."""

from typing import Any

from orchestrator.contract.lines.answers import REASONS
from orchestrator.gateway.documented import problems
from orchestrator.gateway.items.fields import HEADERS

_ANSWER_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["item", "pass", "bin", "reason"],
    "properties": {
        "item": {"type": "string"},
        "pass": {"type": "integer"},
        "bin": {"type": "string"},
        "reason": {"type": ["string", "null"], "description": f"null: a plain accept; else {', '.join(REASONS)}."},
        "label": {"type": ["string", "null"]},
        "score": {"type": ["number", "null"]},
        "decision": {"type": ["string", "null"]},
        "model": {"type": ["string", "null"]},
        "ms": {"type": ["number", "null"], "description": "From the push to the answer."},
        "cause": {"type": ["string", "null"]},
        "error": {"type": ["string", "null"]},
        "map_version": {"type": "integer"},
    },
}
_WAITING_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["item", "pass", "status", "location"],
    "properties": {
        "item": {"type": "string"},
        "pass": {"type": "integer"},
        "status": {"type": "string"},
        "location": {"type": "string"},
    },
}
ANSWER: dict[str, Any] = {
    "description": "The record: a bin and the reason, the fallback bin at the deadline included.",
    "content": {"application/json": {"schema": _ANSWER_SCHEMA}},
}
WAITING: dict[str, Any] = {
    "description": "The line has the image; `location` is where its answer will be.",
    "content": {"application/json": {"schema": _WAITING_SCHEMA}},
}
_FIELDS: dict[str, tuple[dict[str, Any], str]] = {
    "item": ({"type": "string", "maxLength": 1000}, "Name of the item. Default: one that is made for it."),
    "pass": ({"type": "integer", "minimum": 1, "maximum": 1_000_000}, "How often the item has come by. Default: 1."),
    "deadline_ms": (
        {"type": "number", "minimum": 1, "maximum": 3_600_000},
        "Milliseconds until the answer, from the request or the trigger. Default: the line's.",
    ),
    "age_ms": (
        {"type": "number", "minimum": 0, "maximum": 3_600_000},
        "How many milliseconds before the request the trigger was. Default: 0.",
    ),
    "wait": (
        {"type": "string", "enum": ["", "1", "true", "0", "false", "deadline"]},
        "Wait for the answer; `deadline`: also where the line refuses now, until the deadline. Default: answer 202.",
    ),
}
_IMAGE = {"type": "string", "format": "binary"}
_CONFLICT = problems(409)[409] | {
    "description": "The item and pass was pushed before with other bytes; `answer` is what those got."
}


def push_operation() -> dict[str, Any]:
    """`POST /v1/lines/{line}/items`."""
    form = {"image": _IMAGE} | _field_schemas()
    by_path = {"path": {"type": "string", "description": "Below a root of the line."}} | _field_schemas()
    content = {
        "image/*": {"schema": _IMAGE},
        "application/octet-stream": {"schema": _IMAGE},
        "multipart/form-data": {"schema": {"type": "object", "required": ["image"], "properties": form}},
        "application/json": {"schema": {"type": "object", "required": ["path"], "properties": by_path}},
    }
    return {
        "tags": ["lines"],
        "summary": "Push an image",
        "operationId": "push",
        "parameters": [_line(), *_parameters()],
        "requestBody": {"required": True, "content": content},
        "responses": _responses({"200": ANSWER, "202": WAITING}, 404, 429) | {"409": _CONFLICT},
    }


def batch_operation() -> dict[str, Any]:
    """`POST /v1/lines/{line}/batch`."""
    one = {"path": {"type": "string"}} | _field_schemas()
    listed = {"type": "array", "minItems": 1, "items": {"type": "object", "required": ["path"], "properties": one}}
    content = {
        "multipart/form-data": {
            "schema": {"type": "object", "properties": {"image": {"type": "array", "items": _IMAGE}}}
        },
        "application/json": {"schema": {"type": "object", "required": ["items"], "properties": {"items": listed}}},
    }
    results = {"type": "object", "required": ["results"], "properties": {"results": {"type": "array"}}}
    return {
        "tags": ["lines"],
        "summary": "Push several images",
        "operationId": "push_batch",
        "parameters": [_line(), *(each for each in _parameters() if "tem" not in each["name"])],
        "requestBody": {"required": True, "content": content},
        "responses": _responses(
            {
                "200": {
                    "description": "One result an image, in order: its `status`, and `answer`, `waiting` or a problem.",
                    "content": {"application/json": {"schema": results}},
                }
            },
            404,
        ),
    }  # fmt: skip


def _responses(good: dict[str, Any], *statuses: int) -> dict[str, Any]:
    return good | {str(status): response for status, response in problems(*statuses).items()}


def _field_schemas() -> dict[str, Any]:
    return {name: schema | {"description": text} for name, (schema, text) in _FIELDS.items()}


def _line() -> dict[str, Any]:
    return {"name": "line", "in": "path", "required": True, "schema": {"type": "string"}}


def _parameters() -> list[dict[str, Any]]:
    query = [
        {"name": name, "in": "query", "schema": schema, "description": text} for name, (schema, text) in _FIELDS.items()
    ]
    headers = [
        {
            "name": header.decode().title(),
            "in": "header",
            "schema": _FIELDS[name][0],
            "description": f"As `{name}`; percent-encoded.",
        }
        for name, header in HEADERS.items()
    ]
    return query + headers
