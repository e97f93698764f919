"""Lists of paths: text with one a line or one a NUL byte, or a column of a CSV. Read as they come, in flat memory."""

import csv
import io
import os
from codecs import BOM_UTF8
from collections.abc import Iterator
from typing import IO

from modeling.names import text_to_path
from orchestrator.contract.errors import UsageError
from orchestrator.contract.jobs.rows import COLUMNS

PATH_COLUMNS = ("path", "file", "filename", "image")
_READ_BYTES = 1 << 20
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def text_paths(file: IO[bytes], text: str) -> Iterator[str]:
    """One path a line; where a NUL byte comes first (`find -print0`), one path a NUL."""
    read = getattr(file, "read1", file.read)  # as much as is there: a slow writer's first paths are not held back
    rest = b""
    while b"\0" not in rest and b"\n" not in rest and (data := read(_READ_BYTES)):
        rest += data
        _refuse_endless(rest, text)
    _refuse_utf16(rest, text)
    separator = b"\0" if b"\0" in rest else b"\n"
    *whole, rest = rest.removeprefix(BOM_UTF8).split(separator)
    yield from _decoded(whole, separator)
    while data := read(_READ_BYTES):
        *whole, rest = (rest + data).split(separator)
        yield from _decoded(whole, separator)
        _refuse_endless(rest, text)
    yield from _decoded([rest], separator)


def _refuse_endless(rest: bytes, text: str) -> None:
    if len(rest) > _READ_BYTES:
        raise UsageError(f"{text!r} is no list of paths: {len(rest):,} bytes without an end of line")


def _refuse_utf16(start: bytes, text: str) -> None:
    if start.startswith(_UTF16):
        raise UsageError(f"the list {text!r} is UTF-16; save it as UTF-8")


def _decoded(lines: list[bytes], separator: bytes) -> Iterator[str]:
    for line in lines:
        path = line.removesuffix(b"\r") if separator == b"\n" else line
        if path:
            yield os.fsdecode(path)


def csv_paths(file: IO[bytes], text: str) -> Iterator[str]:
    """The `path` column of a CSV; a Pigeonhole manifest's is read as it was written."""
    lines = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    reader = csv.reader(lines)
    header = next(reader, [])
    _refuse_utf16(os.fsencode(header[0] if header else ""), text)
    names = [name.strip().lower() for name in header]
    column = next((names.index(name) for name in PATH_COLUMNS if name in names), None)
    if column is None:
        raise UsageError(f"{text!r} has no column called {', '.join(PATH_COLUMNS)}; its first line is {header}")
    is_manifest = tuple(header) == COLUMNS
    try:
        for cells in reader:
            if len(cells) > column and cells[column]:
                path = cells[column]
                yield text_to_path(path.removeprefix("'")) if is_manifest else path
    except csv.Error as err:
        raise UsageError(f"{text!r}, line {reader.line_num}, is no CSV: {err}") from err
