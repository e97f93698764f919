"""Forms with images (multipart/form-data), parsed in memory: they were bounded before."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from orchestrator.gateway.problems import ProblemError, invalid
from orchestrator.lines.client import AT_ONCE_BYTES

FORM_BYTES = 65_536  # of everything that is not an image
MOST_FIELDS = 20
_FIELDS = ("item", "pass", "deadline_ms", "age_ms", "wait")


class _StrictParser(MultiPartParser):
    """Takes text that is not in the form's encoding for an error, where starlette takes it for Latin-1."""

    def on_part_end(self) -> None:
        if self._current_part.file is None:
            self._current_part.data.decode(self._charset)
        super().on_part_end()

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self._current_part.content_disposition)
        for name in (b"name", b"filename"):
            options.get(name, b"").decode(self._charset)
        super().on_headers_finished()


async def read_form(headers: Mapping[bytes, bytes], body: bytes, most_bytes: int) -> tuple[bytes, dict[str, Any]]:
    """The image of a form, in the field `image`, and its other fields."""
    form = await parse_form(headers, body, most_files=1)
    images = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    if len(images) != 1 or not isinstance(form.get("image"), UploadFile):
        raise invalid("the form has one file, in the field `image`")
    fields = {name: value for name, value in form.multi_items() if isinstance(value, str)}
    if unknown := [name for name in fields if name not in _FIELDS]:
        raise ProblemError(
            400, "invalid", f"there is no field {unknown[0][:40]!r}; there are image, {', '.join(_FIELDS)}"
        )
    image = await images[0].read()
    if len(image) > most_bytes:
        raise ProblemError(413, "too_large", f"an image of this line has {most_bytes} bytes at most")
    return image, fields


async def parse_form(headers: Mapping[bytes, bytes], body: bytes, *, most_files: int) -> FormData:
    """The fields and files of a form. Raises ProblemError where it is none."""
    parsing = _parse(headers, body, most_files)
    if len(body) <= AT_ONCE_BYTES:
        return await parsing
    return await asyncio.to_thread(asyncio.run, parsing)  # it waits for nothing, and keeps nobody waiting there


async def _parse(headers: Mapping[bytes, bytes], body: bytes, most_files: int) -> FormData:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = _StrictParser(
        Headers(raw=list(headers.items())), stream(), max_files=most_files, max_fields=MOST_FIELDS,
        max_part_size=FORM_BYTES,
    )  # fmt: skip
    parser.spool_max_size = len(body) + 1  # never a temporary file
    try:
        return await parser.parse()
    except (MultiPartException, LookupError, ValueError) as err:  # also of an encoding that is none of texts
        raise invalid(f"the form cannot be read: {err}"[:200]) from err
