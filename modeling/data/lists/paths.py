"""A list of nothing but paths: one a line, or one a NUL byte."""

import codecs
import os
from collections.abc import Iterator
from itertools import chain
from typing import IO

from modeling.data.lists.text import UTF8, encoding_of, is_unmarked_utf16
from modeling.errors import DataError

_READ_BYTES = 1 << 20


def read_paths(file: IO[bytes], name: str) -> Iterator[str]:
    """One path a line; where a NUL byte comes before the first end of a line (`find -print0`), one path a NUL.

    Raises:
        DataError: the file is not a list of paths; `name` is what it is called.
    """
    chunks = _chunks(file)
    rest = _start(chunks, name)
    if (encoding := encoding_of(rest)) != UTF8:
        chunks = _recoded(chain([rest], chunks), encoding, name)
        rest = _start(chunks, name)
    elif is_unmarked_utf16(rest) and (b"\n\0" in rest or b"\0\n" in rest):
        raise DataError(f"the list {name!r} is UTF-16 without a byte-order mark; save it as UTF-8")
    separator = b"\0" if b"\0" in rest else b"\n"
    *whole, rest = rest.removeprefix(codecs.BOM_UTF8).split(separator)
    yield from _decoded(whole, separator)
    for data in chunks:
        *whole, rest = (rest + data).split(separator)
        yield from _decoded(whole, separator)
        _refuse_endless(rest, name)
    yield from _decoded([rest], separator)


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    read = getattr(file, "read1", file.read)  # what is available: the first paths of a slow writer are not delayed
    return iter(lambda: read(_READ_BYTES), b"")


def _start(chunks: Iterator[bytes], name: str) -> bytes:
    """What comes up to the end of the first path, or more."""
    start = b""
    while b"\0" not in start and b"\n" not in start and (data := next(chunks, b"")):
        start += data
        _refuse_endless(start, name)
    return start


def _recoded(chunks: Iterator[bytes], encoding: str, name: str) -> Iterator[bytes]:
    """A text in UTF-16 or UTF-32 as UTF-8."""
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        for data in chunks:
            if text := decoder.decode(data):
                yield text.encode()
        decoder.decode(b"", final=True)
    except UnicodeError as err:
        raise DataError(f"the list {name!r} is not valid {encoding.upper()}; save it as UTF-8") from err


def _refuse_endless(rest: bytes, name: str) -> None:
    if len(rest) > _READ_BYTES:
        raise DataError(f"{name!r} is not a list of paths: {len(rest):,} bytes without an end of line")


def _decoded(lines: list[bytes], separator: bytes) -> Iterator[str]:
    for line in lines:
        path = line.removesuffix(b"\r") if separator == b"\n" else line
        if path:
            yield os.fsdecode(path)
