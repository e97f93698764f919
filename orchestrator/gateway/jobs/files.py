"""A file as an answer: whole or in part (RFC 9110, Range), and not at all where the client has it already.

The file is opened once, so that length, version and bytes are those of one file also while it is replaced. A request
for several ranges gets the whole file, as the standard allows.
"""

import asyncio
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate
from typing import BinaryIO

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from orchestrator.gateway.jobs.hang_up import disconnected, first_of
from orchestrator.gateway.problems import ProblemError
from orchestrator.gateway.threads import Questions

_CHUNK_BYTES = 256 << 10
SEND_S = 60.0  # a client that takes nothing for so long is cut off
_RANGE = re.compile(r"bytes=(?:([0-9]{1,19})-([0-9]{0,19})|-([0-9]{1,19}))")


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes `start` to `end` - 1 of a file."""

    start: int
    end: int


def parse_range(header: str | None, size: int) -> Part | None:
    """The part that is asked for; None where that is all, or cannot be understood.

    Raises ProblemError (416) where it lies behind the end.
    """
    found = _RANGE.fullmatch(header.strip()) if header else None
    if found is None:
        return None
    first, last, num_last = found.groups()
    if num_last is not None:
        start, end = max(0, size - int(num_last)), size
    else:
        start, end = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < start:
            return None
    if start >= end:
        raise ProblemError(
            416, "no_such_range", f"the file has {size} bytes", headers={"content-range": f"bytes */{size}"}
        )
    return Part(start, end)


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a client asks for, as its headers have it."""

    range: str | None = None
    if_range: str | None = None
    if_none_match: str | None = None


@dataclass(frozen=True)
class FileFacts:
    """What a client may compare: tag: without quotes, modified: as HTTP writes dates."""

    size: int
    tag: str
    modified: str

    @classmethod
    def of(cls, facts: os.stat_result, tag: str) -> "FileFacts":
        return cls(facts.st_size, tag, formatdate(facts.st_mtime, usegmt=True))

    def headers(self) -> dict[str, str]:
        return {"etag": f'"{self.tag}"', "last-modified": self.modified, "accept-ranges": "bytes"}

    def is_known(self, asked: Conditions) -> bool:
        """Whether the client has this very file."""
        tags = asked.if_none_match
        if tags is None:
            return False
        return tags.strip() == "*" or f'"{self.tag}"' in [tag.strip().removeprefix("W/") for tag in tags.split(",")]

    def part(self, asked: Conditions) -> Part | None:
        """The part that is asked for, if the client's other parts are of this file. Raises ProblemError (416)."""
        condition = asked.if_range
        if condition is not None and condition.strip() not in (f'"{self.tag}"', self.modified):
            return None
        return parse_range(asked.range, self.size)


class FileAnswer(Response):
    """Answers GET and HEAD with a file. Raises ProblemError before anything is sent."""

    def __init__(
        self, file: BinaryIO, facts: FileFacts, headers: Mapping[str, str], asked: Conditions, readers: Questions
    ) -> None:
        super().__init__(headers={**facts.headers(), **headers})
        self._file = file
        self._facts = facts
        self._asked = asked
        self._readers = readers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if self._facts.is_known(self._asked):
                await Response(status_code=304, headers=self._facts.headers())(scope, receive, send)
                return
            part, size = self._facts.part(self._asked), self._facts.size
            if part is not None:
                self.headers["content-range"] = f"bytes {part.start}-{part.end - 1}/{size}"
            start, end = (part.start, part.end) if part else (0, size)
            self.headers["content-length"] = str(end - start)
            status = 206 if part else 200
            await send({"type": "http.response.start", "status": status, "headers": self.raw_headers})
            end = start if scope["method"] == "HEAD" else end
            await first_of(self._send(send, start, end), disconnected(receive))
        finally:
            self._readers.begin(self._file.close)  # it waits for a read that hangs

    async def _send(self, send: Send, start: int, end: int) -> None:
        await self._readers.run(self._file.seek, start)
        while start < end:
            data = await self._readers.run(self._file.read, min(_CHUNK_BYTES, end - start))
            if not data:
                raise OSError(f"a file was cut short while it was sent, at {start} of {end} bytes")
            start += len(data)
            async with asyncio.timeout(SEND_S):
                await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
