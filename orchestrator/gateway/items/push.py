"""`POST /v1/lines/{line}/items`: one image, and what becomes of it."""

import asyncio
from collections.abc import MutableMapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from orchestrator.contract.errors import PushRefusedError
from orchestrator.contract.lines.answers import Answer
from orchestrator.contract.lines.settings import Line
from orchestrator.gateway.context import GatewayContext
from orchestrator.gateway.guard.bodies import parse_json, read_body, refuse_encoded
from orchestrator.gateway.guard.guard import BEGAN, HEADERS
from orchestrator.gateway.items.fields import PushFields, check_fields, read_fields
from orchestrator.gateway.items.forms import FORM_BYTES, read_form
from orchestrator.gateway.items.outcomes import accepted, answered, refused
from orchestrator.gateway.items.paths import checked_path, path_of, roots_of
from orchestrator.gateway.lines import ForwardingClient
from orchestrator.gateway.problems import invalid
from orchestrator.gateway.threads import Questions
from orchestrator.lines.client import AT_ONCE_BYTES
from orchestrator.lines.request import make_request

_KEYS = ("path", "item", "pass", "deadline_ms", "age_ms", "wait")


@dataclass(frozen=True, slots=True)
class OpenLine:
    """A line as it was seen last, and the client that pushes to it."""

    line: Line
    client: ForwardingClient

    @property
    def name(self) -> str:
        return self.line.name


def is_small(*images: bytes | Path | Exception) -> bool:
    """Whether the event loop may hash images that came in one body: larger ones would keep other pushes waiting."""
    return sum(len(image) for image in images if isinstance(image, bytes)) <= AT_ONCE_BYTES


class ItemPushes:
    """Pushes of the requests of one gateway."""

    def __init__(self, context: GatewayContext) -> None:
        self._context = context

    async def push(self, request: Request) -> Response:
        """One image as raw body, as a form, or as JSON with its path."""
        scope = request.scope
        headers: dict[bytes, bytes] = scope[HEADERS]
        refuse_encoded(scope)
        line = await self.open(request.path_params["line"])
        given: dict[str, Any] = dict(read_fields(scope["query_string"], headers))
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        most = line.line.settings.max_image_bytes
        image: bytes | Path
        if kind == b"application/json":
            image, fields = await self._path_of(request, line, given)
        elif kind == b"multipart/form-data":
            body = await read_body(scope, request.receive, most + FORM_BYTES)
            image, in_form = await read_form(headers, body, most)
            fields = check_fields(in_form | given)
        else:
            image, fields = await read_body(scope, request.receive, most), check_fields(given)
        answer = await self.push_one(line, image, fields, scope, at_once=is_small(image))
        return answered(answer) if answer else accepted(line.name, fields.item, fields.pass_)

    async def _path_of(self, request: Request, line: OpenLine, given: dict[str, Any]) -> tuple[Path, PushFields]:
        value = parse_json(await read_body(request.scope, request.receive, FORM_BYTES))
        if not isinstance(value, dict) or not isinstance(value.get("path"), str):
            raise invalid('the body is a JSON object with the path of an image: {"path": "/images/1.jpg"}')
        if unknown := [key for key in value if key not in _KEYS]:
            raise invalid(f"there is no key {unknown[0][:40]!r}; there are {', '.join(_KEYS)}")
        path = await self.path(value["path"], line)
        fields = {key: each for key, each in value.items() if key != "path" and each is not None}
        return path, check_fields(fields | given)

    async def path(self, text: str, line: OpenLine) -> Path:
        """The path of an image, checked. Raises ProblemError, and UnavailableError where its disk hangs."""
        roots = line.line.settings.roots
        disk = self._disk_of(path_of(text), line)
        return await disk.ask((text, roots), lambda: checked_path(text, roots))

    def _disk_of(self, path: Path, line: OpenLine) -> Questions:
        return self._context.images.of(roots_of(path, line.line.settings.roots))

    async def open(self, name: str) -> OpenLine:
        """A line to push to. Raises NotFoundError."""
        lines = self._context.lines
        client, line = lines.opened(name), lines.seen(name)
        if client is None or line is None:
            client = await asyncio.to_thread(lines.open, name)
            line = await asyncio.to_thread(lines.get, name)
        return OpenLine(line, client)

    async def push_one(
        self, line: OpenLine, image: bytes | Path, fields: PushFields, scope: MutableMapping[str, Any], *, at_once: bool
    ) -> Answer | None:
        """The answer; None as soon as the server has the push, where nobody wants to wait for more.

        at_once: bytes are hashed in the event loop, not in a thread.
        """
        waiters = self._context.waiters
        waiter = waiters.open(scope)
        on_taken = None if fields.wait else lambda: waiters.come(waiter, None)
        options = fields.options(scope[BEGAN], on_taken, by_path=isinstance(image, Path))
        try:
            if isinstance(image, Path):
                future: Future[Answer] = Future()
                look = partial(make_request, image, fields.item, fields.pass_, options, future)
                # Here, not in a thread: where the disk answers too late, the client pushes again, and nothing else may
                line.client.offer(await self._disk_of(image, line).ask(object(), look))
            elif at_once:
                future = line.client.submit_with(image, fields.item, fields.pass_, options)
            else:
                future = await asyncio.to_thread(line.client.submit_with, image, fields.item, fields.pass_, options)
            future.add_done_callback(lambda done: waiters.come(waiter, done))
            answer: Answer | None = await waiter
        except PushRefusedError as err:
            raise refused(err) from err
        except ValueError as err:
            raise invalid(str(err)) from err
        finally:
            waiter.cancel()  # what was not pushed ends it not
        return answer
