"""The sidecar `OUT.sources`: size and time of each image as it was read, so that later runs notice what has changed.

One JSON object on each line, in the order of the rows. The bytes of a line depend on its values alone, so lines can be
compared without being parsed. Nothing of it goes into rows: copying a file changes its time, and not its answer.
"""

import json
import re
from collections.abc import Iterator, Sequence
from json.encoder import encode_basestring_ascii
from pathlib import Path
from typing import NamedTuple

from modeling.names import path_to_text, text_to_path
from orchestrator.contract.errors import IntegrityError
from orchestrator.contract.jobs.rows import Row

SUFFIX = ".sources"

AsRead = tuple[int, int, str | None]
"""Size in bytes, time of the last change in nanoseconds, and the sha256 of the bytes where digests are wanted."""

_encode = encode_basestring_ascii  # as json.dumps does, which would look at its options for every line
_ENDS = b",}"  # of the last number of a line
_NUMBER = rb"(?:0|[1-9][0-9]{0,18})"
# A line of nearly every image: its path as JSON has nothing escaped, so that it is that of the listing, too.
_PLAIN = re.compile(
    rb'\{"path": ("[ !#-\[\]-~]*"), "size": (?:null, "mtime_ns": null'
    rb'|%s, "mtime_ns": -?%s(?:, "sha256": "[0-9a-f]{64}")?)\}\n' % (_NUMBER, _NUMBER)
)


class SidecarLine(NamedTuple):
    """A line, parsed. as_read: None for an image that could not be read."""

    path: str
    as_read: AsRead | None
    remarks: tuple[str, ...]


def sidecar_path(manifest: Path) -> Path:
    return manifest.with_name(manifest.name + SUFFIX)


def encode_lines(rows: Sequence[Row], as_read: Sequence[AsRead | None]) -> bytes:
    """The lines of some rows. as_read: of each row; None for an image that could not be read."""
    return "".join(
        [_text(row.path, state, row.prediction.remarks) for row, state in zip(rows, as_read, strict=True)]
    ).encode("ascii")


def encode_line(path: str, as_read: AsRead | None, remarks: Sequence[str]) -> bytes:
    """The line of one image."""
    return _text(path, as_read, remarks).encode("ascii")


def line_start(path: str, size: int, mtime_ns: int) -> bytes:
    """How the line of an image begins that was read with this size and time."""
    text = path if path.isascii() and "\\" not in path else path_to_text(path)  # without a call for nearly every path
    return f'{{"path": {_encode(text)}, "size": {size}, "mtime_ns": {mtime_ns}'.encode("ascii")


def is_unchanged(line: bytes, start: bytes) -> bool:
    """Whether a line begins with what `line_start` gives for the image as it is now."""
    return line.startswith(start) and line[len(start)] in _ENDS


def read_listed(path: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Of every line the path as a listing has it, which is JSON, and the remarks. Raises IntegrityError."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if (plain := _PLAIN.fullmatch(line)) is not None:  # without being parsed
                yield plain[1].decode("ascii"), ()
            else:
                parsed = parse_line(line, f"{path}, line {number}")
                yield _encode(parsed.path), parsed.remarks


def parse_line(line: bytes, place: str) -> SidecarLine:
    """The reverse of `encode_lines`, for one line. Raises IntegrityError, which names the `place`."""
    try:
        record = json.loads(line)  # not by pydantic: there is one for every image
        size, mtime_ns = record["size"], record["mtime_ns"]
        as_read = None if size is None else (int(size), int(mtime_ns), record.get("sha256"))
        return SidecarLine(text_to_path(record["path"]), as_read, tuple(record.get("remarks", ())))
    except (ValueError, KeyError, TypeError, RecursionError) as err:
        raise IntegrityError(f"{place} is not a line of a sidecar: {err!r}") from err


def _text(path: str, as_read: AsRead | None, remarks: Sequence[str]) -> str:
    text = _encode(path_to_text(path))
    if as_read is None:
        return f'{{"path": {text}, "size": null, "mtime_ns": null}}\n'
    size, mtime_ns, sha256 = as_read
    digest = f', "sha256": "{sha256}"' if sha256 is not None else ""
    more = f', "remarks": {json.dumps(list(remarks))}' if remarks else ""
    return f'{{"path": {text}, "size": {size}, "mtime_ns": {mtime_ns}{digest}{more}}}\n'
