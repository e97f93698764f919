"""A list of nothing but paths: one a line, or one a NUL byte."""

import codecs
import os
import re
from collections.abc import Iterator
from itertools import chain, islice
from typing import IO

from modeling.data.lists.text import UTF8, encoding_of, is_unmarked_utf16
from modeling.errors import DataError

_READ_BYTES = 1 << 20
_LINE, _NUL = b"\n", b"\0"
_ENDS = re.compile(b"[\n\0]")


def read_paths(file: IO[bytes], name: str) -> Iterator[str]:
    """One path a line; where a NUL byte comes before the first end of a line (`find -print0`), one path a NUL.

    Names may hold ends of lines. So in a file it is also one path a NUL where the second and the third end are NULs:
    then the first name holds an end of a line. A pipe's first path is not held back until the next ones are there.
    How many bytes come at once does not matter.

    Raises:
        DataError: the file is not a list of paths, or holds both so mixed that nobody can tell which end its paths;
            `name` is what it is called.
    """
    num_ends = 3 if _is_file(file) else 1
    chunks = _chunks(file)
    start = _start(chunks, num_ends, name)
    if (encoding := encoding_of(start)) != UTF8:
        chunks = _recoded(chain([start], chunks), encoding, name)
        start = _start(chunks, num_ends, name)
    elif _is_utf16(start):
        raise DataError(f"the list {name!r} is UTF-16 without a byte-order mark; save it as UTF-8")
    separator = _separator(start, num_ends, at_end=True)
    for paths in _split(chain([start.removeprefix(codecs.BOM_UTF8)], chunks), separator or _LINE, name):
        yield from _decoded(paths, separator or _LINE)


def _is_file(file: IO[bytes]) -> bool:
    """Whether all of it is there, and nothing waits for a writer."""
    return hasattr(file, "seekable") and file.seekable()


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    read = getattr(file, "read1", file.read)  # what is available: the first paths of a slow writer are not delayed
    return iter(lambda: read(_READ_BYTES), b"")


def _start(chunks: Iterator[bytes], num_ends: int, name: str) -> bytes:
    """As much as tells the encoding, and what ends a path: up to as many ends, or more."""
    start = b""
    while _is_too_short(start, num_ends) and (data := next(chunks, b"")):
        start += data
        _refuse_endless(_ENDS.split(start)[-1], name)
    return start


def _is_too_short(start: bytes, num_ends: int) -> bool:
    if len(start) < 4 and start[:1] in (b"", b"\xff", b"\xfe"):  # a byte-order mark may come
        return True
    if len(start) < 8 and not (any(start[::2]) and any(start[1::2])):  # it may be UTF-16
        return True
    if is_unmarked_utf16(start) and len(start) < _READ_BYTES:  # or names of one letter, each ended by a NUL
        return not 0 <= start.find(_LINE) < len(start) - 1
    return encoding_of(start) == UTF8 and _separator(start, num_ends) is None


def _is_utf16(start: bytes) -> bool:
    """Whether it is Latin text in UTF-16 without a byte-order mark, as its first end of a line tells."""
    end = start.find(_LINE)
    return is_unmarked_utf16(start) and end >= 0 and _NUL in (start[end - 1 : end], start[end + 1 : end + 2])


def _separator(start: bytes, num_ends: int, *, at_end: bool = False) -> bytes | None:
    """What ends the paths of a list that begins so; None where more must be read.

    num_ends: how many ends of paths are looked at. at_end: there is no more to read.
    """
    ends = b"".join(match[0] for match in islice(_ENDS.finditer(start), num_ends))
    if ends.startswith(_NUL) or num_ends == 1:
        return ends[:1] or None
    if ends.startswith(_LINE + _NUL):
        return ends[2:] or (_NUL if at_end else None)
    return _LINE if len(ends) > 1 or at_end else None


def _split(chunks: Iterator[bytes], separator: bytes, name: str) -> Iterator[list[bytes]]:
    """The paths of each chunk. Raises DataError where they may have other ends.

    Names hold no NUL, so a line with one is a damaged one, whose file is missing; with several, or without its end, it
    may be paths. Names may hold ends of lines, but only in a list that is whole: no path of it is empty, and a NUL ends
    the last one.
    """
    rest, has_lines, has_gaps = b"", False, False
    for data in chunks:
        *paths, rest = (rest + data).split(separator)
        if separator == _NUL:
            has_lines = has_lines or _LINE in data
            has_gaps = has_gaps or b"" in paths
            _refuse_mixture(has_lines and has_gaps, name)
        elif _NUL in data:
            _refuse_mixture(any(line.count(_NUL) > 1 for line in (*paths, rest)), name)
        yield paths
        _refuse_endless(rest, name)
    _refuse_mixture(has_lines and rest != b"" if separator == _NUL else _NUL in rest, name)
    yield [rest]


def _refuse_mixture(is_mixed: bool, name: str) -> None:
    if is_mixed:
        raise DataError(
            f"the list {name!r} holds ends of lines and NUL bytes, and nobody can tell which of them end its paths; "
            "write one path a line without NUL bytes, or end every path with one NUL byte (`find -print0`), in a file "
            "instead of a pipe if the first name holds an end of a line"
        )


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
