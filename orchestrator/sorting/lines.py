"""The lines of the journal of a sort: JSON, each on the disk before what it says is done.

    {"pigeonhole_sort": 1, "mark": ..., "manifest": ..., "by": ..., "mode": ..., "root": ..., ...}  what is sorted
    {"batch": true}                                                  lines of up to some hundred rows, synced together
    {"folder": "cat", "label": "cat", "made": true, "mtime_ns": null}          a folder of the target
    {"source": "march", "mtime_ns": 1700000000000000000}                       a folder of the source, before it changes
    {"row": 1, "from": "march/1.jpg", "to": "cat/1.jpg", "size": 812, ...}     a file
    {"row": 2, "from": "march/2.jpg", "left": "missing"}                       a file that stays, with the reason
    {"copied": 1, "size": 812, "mtime_ns": ...}                      the copy of a row is whole, and what it is like
    {"finished": true}                                               all rows are sorted

Names are as Python's `os` functions take them: a byte that is not UTF-8 is a lone surrogate (`\\udcNN`). A last line
that is not whole is what a killed process was writing; nothing was done for it yet.
"""

import json
import os
import stat
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import StringConstraints

from modeling.durable import STRICT, decode_json, validated
from orchestrator.contract.errors import MessageError
from orchestrator.sorting.words import By, Mode

VERSION = 1
Reason = Literal[
    "missing",
    "not a file",
    "outside the source",
    "a link",
    "changed",
    "taken",
    "permission",
    "copy differs",
    "attributes",
    "gone",
]
BATCH = b'{"batch": true}\n'
FINISHED = b'{"finished": true}\n'


@dataclass(frozen=True)
class Head:
    """What is sorted, and how the folders around were before.

    mark: no other sort has it; it is in the names of copies that are not whole.
    root_inode: of the source's folder, which tells it from an empty one that it is mounted on.
    made: whether the sort made the target. mtimes_ns: of the target, if it was there, else of the folder around it.
    around_ns: the time of that folder once the target was made.
    left: only what an unsort has left is in the journal.
    """

    __pydantic_config__ = STRICT

    pigeonhole_sort: int
    mark: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}$")]
    manifest: str
    sha256: str
    by: By
    mode: Mode
    root: str
    root_inode: int
    made: bool
    mtimes_ns: dict[str, int]
    around_ns: int | None
    left: bool = False


@dataclass(frozen=True, slots=True)
class Before:
    """A file as it was before it was copied or moved."""

    size: int
    mtime_ns: int
    mode: int
    uid: int
    gid: int

    @classmethod
    def of(cls, facts: os.stat_result) -> Self:
        return cls(facts.st_size, facts.st_mtime_ns, stat.S_IMODE(facts.st_mode), facts.st_uid, facts.st_gid)


@dataclass(frozen=True, slots=True)
class SortedFile:
    """A file that goes to `target`, below the sorted folder, from `source`, below the root. before: not of links."""

    row: int
    source: str
    target: str
    before: Before | None = None


@dataclass(frozen=True, slots=True)
class Left:
    """A file that stays where it is. answered: whether the row has an answer."""

    row: int
    source: str
    reason: str
    answered: bool


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of the target. label: None for that of rows without an answer. made: by the sort; mtime_ns: of any
    other, before.
    """

    name: str
    label: str | None
    made: bool
    mtime_ns: int | None


@dataclass(frozen=True, slots=True)
class SourceFolder:
    """A folder of the source, before a file of it was moved."""

    name: str
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Copied:
    """The copy of a row is whole, with this size and time."""

    row: int
    size: int
    mtime_ns: int


Line = SortedFile | Left | Folder | SourceFolder | Copied


def encode_head(head: Head) -> bytes:
    return _encode(asdict(head))


def decode_head(line: bytes, journal: str) -> Head:
    """The head of a journal. Raises MessageError where it is damaged or of another version."""
    value = decode_json(line, journal, error=MessageError)
    if not isinstance(value, dict) or value.get("pigeonhole_sort") != VERSION:
        raise MessageError(f"{journal!r} is not a journal of a sort of version {VERSION}")
    return validated(Head, value, f"{journal!r} is damaged", error=MessageError)


def encode(line: Line) -> bytes:
    match line:
        case SortedFile():
            before = asdict(line.before) if line.before else {}
            value = {"row": line.row, "from": line.source, "to": line.target} | before
        case Left():
            value = {"row": line.row, "from": line.source, "left": line.reason, "answered": line.answered}
        case Folder():
            value = {"folder": line.name, "label": line.label, "made": line.made, "mtime_ns": line.mtime_ns}
        case SourceFolder():
            value = {"source": line.name, "mtime_ns": line.mtime_ns}
        case Copied():
            value = {"copied": line.row, "size": line.size, "mtime_ns": line.mtime_ns}
    return _encode(value)


def decode(line: bytes, journal: str) -> Line | None:
    """A line of a journal but its head; None where a batch begins, and for the end of a sort.

    Raises MessageError where no sort has written such a line: its names must not lead out of the two folders.
    """
    try:
        return _decode(json.loads(line))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as err:
        raise MessageError(f"{journal!r} is damaged: no sort writes the line {line[:200]!r}") from err


def _decode(value: dict[str, Any]) -> Line | None:
    if "row" in value and "to" in value:
        before = Before(*(_number(value, key) for key in _BEFORE)) if "size" in value else None
        return SortedFile(_number(value, "row"), _inside(value["from"]), _inside(value["to"]), before)
    if "row" in value:
        return Left(_number(value, "row"), str(value["from"]), str(value["left"]), bool(value["answered"]))
    if "folder" in value:
        mtime_ns = None if value["mtime_ns"] is None else _number(value, "mtime_ns")
        label = None if value["label"] is None else str(value["label"])
        return Folder(_inside(value["folder"]), label, bool(value["made"]), mtime_ns)
    if "source" in value:
        return SourceFolder(_inside(value["source"] or "."), _number(value, "mtime_ns"))
    if "copied" in value:
        return Copied(*(_number(value, key) for key in ("copied", "size", "mtime_ns")))
    if value not in ({"batch": True}, {"finished": True}):
        raise ValueError(value)
    return None


_BEFORE = ("size", "mtime_ns", "mode", "uid", "gid")


def _number(value: dict[str, Any], key: str) -> int:
    number = value[key]
    if not isinstance(number, int):
        raise TypeError(number)
    return number


def is_inside(path: str) -> bool:
    """Whether a path, joined to a folder, names something below it; links aside."""
    return bool(path) and "\0" not in path and not path.startswith("/") and ".." not in path.split("/")


def _inside(path: str) -> str:
    if not is_inside(path):
        raise ValueError(path)
    return path


def _encode(value: dict[str, Any]) -> bytes:
    return (json.dumps(value) + "\n").encode()
