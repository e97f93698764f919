"""Rows of a manifest as bytes: where each begins, so that it can be copied without being parsed."""

import io
from array import array
from collections.abc import Iterable, Iterator
from itertools import accumulate
from pathlib import Path

from orchestrator.contract.errors import IntegrityError
from orchestrator.contract.jobs.formats import Format
from orchestrator.contract.jobs.rows import FORMATS, Row

_JSON_BEGIN, _JSON_END = b'  "predictions": [', b"  ]"


def split_rows(lines: Iterable[bytes], row_format: Format) -> Iterator[bytes]:
    """Lines joined into rows: in CSV a row ends where no quote is open, in other formats with its line."""
    return _split_csv(lines) if row_format == "csv" else iter(lines)


def _split_csv(lines: Iterable[bytes]) -> Iterator[bytes]:
    begun: list[bytes] = []
    for line in lines:
        if line.count(b'"') % 2 == 0 and not begun:
            yield line
        elif line.count(b'"') % 2 == 0 or not begun:
            begun.append(line)
        else:
            yield b"".join((*begun, line))
            begun = []
    if begun:
        yield b"".join(begun)


def parse_rows(rows: Iterable[bytes], row_format: Format) -> list[Row]:
    """The rows that some bytes are, each without its separator. Raises IntegrityError."""
    encoder = FORMATS[row_format]
    text = b"".join((encoder.header({}), encoder.separator.join(rows), encoder.footer()))
    return [row for _, row in encoder.read_on(io.BytesIO(text), Path("the base"))]


def row_offsets(path: Path, row_format: Format) -> "array[int]":
    """Where each row of a manifest begins, and where the last one ends; 8 bytes of memory for each.

    Raises IntegrityError if it has not the frame of its format.
    """
    with path.open("rb") as file:
        start = 0
        if row_format == "jsonl":
            return array("Q", accumulate(map(len, file), initial=0))
        if row_format == "csv":
            start = len(file.readline())
        elif row_format == "json":
            start = _skip_head(file, path)
        rows = split_rows(_up_to_end(file, row_format), row_format)
        return array("Q", accumulate(map(len, rows), initial=start))


def _skip_head(lines: Iterable[bytes], path: Path) -> int:
    size = 0
    for line in lines:
        size += len(line)
        if line.rstrip() == _JSON_BEGIN:
            return size
    raise IntegrityError(f"{path} is not a manifest: it has no predictions array")


def _up_to_end(lines: Iterable[bytes], row_format: Format) -> Iterator[bytes]:
    """The lines with rows; in JSON others follow, and a manifest without rows has an empty one."""
    if row_format != "json":
        yield from lines
        return
    for line in lines:
        if line.rstrip() == _JSON_END:
            return
        if line.strip():
            yield line
