"""`POST /v1/lines/{line}/batch`: several images in one request, each with a result of its own."""

import asyncio
import json
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response

from orchestrator.contract.errors import UnavailableError
from orchestrator.gateway.guard.bodies import MOST_JSON_BYTES, parse_json, read_body, refuse_encoded
from orchestrator.gateway.guard.guard import HEADERS
from orchestrator.gateway.items.fields import PushFields, check_fields, read_fields, with_item
from orchestrator.gateway.items.forms import FORM_BYTES, parse_form
from orchestrator.gateway.items.outcomes import accepted, answered
from orchestrator.gateway.items.push import ItemPushes, OpenLine, is_small
from orchestrator.gateway.problems import ProblemError, describe, invalid, problem_body

MOST_IMAGES = 256
MOST_BYTES = 64 << 20
_KEYS = ("path", "item", "pass", "deadline_ms", "age_ms")


class BatchPushes:
    """Each image is pushed and refused by itself; the request waits for all."""

    def __init__(self, pushes: ItemPushes) -> None:
        self._pushes = pushes

    async def push(self, request: Request) -> Response:
        """Files of a form, named by their file names, or a JSON list of paths."""
        scope = request.scope
        headers: dict[bytes, bytes] = scope[HEADERS]
        refuse_encoded(scope)
        line = await self._pushes.open(request.path_params["line"])
        common: dict[str, Any] = dict(read_fields(scope["query_string"], headers))
        if "item" in common:
            raise invalid("each image of a batch has its own item: the name of its file")
        if headers.get(b"content-type", b"").startswith(b"multipart/form-data"):
            most = line.line.settings.max_image_bytes
            images = await _uploaded(request, headers, check_fields(common), most)
        else:
            images = await self._listed(request, line, common)
        at_once = is_small(*(image for image, _ in images))
        results = await asyncio.gather(*(self._one(line, *each, scope, at_once=at_once) for each in images))
        return Response(json.dumps({"results": results}), media_type="application/json")

    async def _listed(
        self, request: Request, line: OpenLine, common: dict[str, Any]
    ) -> list[tuple[bytes | Path | Exception, PushFields]]:
        value = parse_json(await read_body(request.scope, request.receive, MOST_JSON_BYTES))
        entries = value.get("items") if isinstance(value, dict) else None
        if not isinstance(entries, list) or not 1 <= len(entries) <= MOST_IMAGES:
            raise ProblemError(
                400, "invalid", f'the body is {{"items": [...]}} with 1 to {MOST_IMAGES} objects, each with a `path`'
            )
        fields = [_fields_of(entry, common) for entry in entries]
        paths = await asyncio.gather(*(self._path(entry["path"], line) for entry in entries))
        return list(zip(paths, fields, strict=True))

    async def _path(self, text: str, line: OpenLine) -> Path | Exception:
        try:
            return await self._pushes.path(text, line)
        except (ProblemError, UnavailableError) as err:
            return err

    async def _one(
        self,
        line: OpenLine,
        image: bytes | Path | Exception,
        fields: PushFields,
        scope: MutableMapping[str, Any],
        *,
        at_once: bool,
    ) -> dict[str, Any]:
        """The status and body that this image would have got alone."""
        try:
            if isinstance(image, Exception):
                raise image
            answer = await self._pushes.push_one(line, image, fields, scope, at_once=at_once)
            response = answered(answer) if answer else accepted(line.name, fields.item, fields.pass_)
        except Exception as err:
            problem = describe(err)
            if problem is None:
                raise
            return {"item": fields.item, "pass": fields.pass_} | problem_body(problem)
        return {"status": response.status_code} | {
            "waiting" if response.status_code == 202 else "answer": json.loads(bytes(response.body))
        }


async def _uploaded(
    request: Request, headers: dict[bytes, bytes], common: PushFields, most: int
) -> list[tuple[bytes | Path | Exception, PushFields]]:
    body = await read_body(request.scope, request.receive, MOST_BYTES + FORM_BYTES)
    form = await parse_form(headers, body, most_files=MOST_IMAGES)
    files = [file for _, file in form.multi_items() if isinstance(file, UploadFile)]
    if not files or len(files) != len(form.multi_items()):
        raise ProblemError(400, "invalid", "the form has files only, named by their items; other fields are parameters")
    images: list[tuple[bytes | Path | Exception, PushFields]] = []
    for file in files:
        image = await file.read()
        large = ProblemError(413, "too_large", f"an image of this line has {most} bytes at most")
        images.append((image if len(image) <= most else large, with_item(common, file.filename or "")))
    return images


def _fields_of(entry: Any, common: dict[str, Any]) -> PushFields:
    if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
        raise invalid("each item is an object with the image's `path`")
    if unknown := [key for key in entry if key not in _KEYS]:
        raise invalid(f"there is no key {unknown[0][:40]!r}; there are {', '.join(_KEYS)}")
    given = {key: each for key, each in entry.items() if key != "path" and each is not None}
    fields = check_fields(common | given)
    return fields if "item" in given else with_item(fields, Path(entry["path"]).name)
