"""A hot folder on the disk: `in/`, `working/`, `done/`, `error/`. Two are kept apart, so that no file goes round."""

import contextlib
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from modeling.durable import decode_json, link_once, temporary_beside
from modeling.names import path_to_text
from orchestrator.contract.access import explain_refused_write
from orchestrator.contract.errors import UsageError

Part = Literal["in", "working", "done", "error"]
PARTS: tuple[Part, ...] = get_args(Part)
MARKER = ".hotfolder.json"  # in the folder and in each of its parts: hidden, so no scan takes it
LONGEST_NAME = 255  # bytes of a file's name, on every usual file system
_EDGES = re.compile(r"^(?: +|\.)|[ .]+$")  # what hides a folder, or what some systems leave out of its name
LONGEST_SUFFIX = 30  # of what is put behind a name: `.manifest.csv`


@dataclass(frozen=True)
class HotFolder:
    """A folder that was opened, and so checked."""

    path: Path
    id: str

    @property
    def incoming(self) -> Path:
        return self.path / "in"

    @property
    def working(self) -> Path:
        return self.path / "working"

    def shown(self, path: Path) -> str:
        """A path below the folder as text, relative to it."""
        return path_to_text(str(path.relative_to(self.path)))


def open_hot_folder(path: Path) -> HotFolder:
    """Open a hot folder; what is missing of it is made.

    Raises UsageError where it cannot be used: no right to write, parts on several file systems, a part that belongs to
    another hot folder or lies within one.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100 links stay as the operator wrote them
    if not path.parent.is_dir():
        raise UsageError(f"{str(path.parent)!r} is not a folder; make it, or name another hot folder")
    try:
        path.mkdir(exist_ok=True)
        folder = HotFolder(path, _mark(path, secrets.token_hex(8), None))
        for part in PARTS:
            (path / part).mkdir(exist_ok=True)
            _mark(path / part, folder.id, part)
    except OSError as err:
        raise UsageError(f"hot folder {str(path)!r}: {explain_refused_write(err, path)}") from err
    _check(folder)
    return folder


def _mark(path: Path, id_: str, part: Part | None) -> str:
    """Write a marker where there is none; returns the id of the one that is there."""
    marker = path / MARKER
    if not marker.exists():
        with temporary_beside(marker) as temporary:
            temporary.write_text(json.dumps({"hot_folder": id_, "part": part}), encoding="utf-8")
            link_once(temporary, marker)
    return _read_marker(marker)[0]


def _read_marker(marker: Path) -> tuple[str, str | None]:
    value = decode_json(marker.read_bytes(), str(marker), error=UsageError)
    if not isinstance(value, dict) or not isinstance(value.get("hot_folder"), str):
        raise UsageError(f"{marker} is not a marker of a hot folder; remove it if nothing else needs it")
    return value["hot_folder"], value.get("part")


def _check(folder: HotFolder) -> None:
    device = folder.working.stat().st_dev
    for path in (folder.path, *(folder.path / part for part in PARTS)):
        part = None if path == folder.path else path.name
        real = Path(os.path.realpath(path))
        if _read_marker(path / MARKER) != (folder.id, part):
            raise UsageError(f"{str(path)!r} belongs to another hot folder; files would go from one to the other")
        for above in real.parents:
            if (above / MARKER).exists() and _read_marker(above / MARKER) != (folder.id, None):
                raise UsageError(
                    f"{str(path)!r} lies within {str(above)!r}, a part of a hot folder; files would go round"
                )
        if part is not None and real.stat().st_dev != device:
            raise UsageError(
                f"{str(path)!r} is on another file system than working/; files are moved by renaming, so use one"
            )
        if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            raise UsageError(f"{str(path)!r}: this user may not read it and write to it")


# Names


def candidates(name: str, tag: str) -> Iterator[str]:
    """The names that a file may get: its own, one that no other claim has, or one that no other file of it has.

    Long names of one claim may be the same as far as there is room for them.
    """
    yield _cut(name, "")
    yield _cut(name, f".{tag}")
    yield _cut(name, f".{tag}-{key_of(name)}")


def key_of(name: str) -> str:
    """Stands for a file's name, which may be as long as a name can be."""
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:16]


def _cut(name: str, tag: str) -> str:
    """The name with a tag before its suffix, short enough for a sidecar's suffix behind it."""
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 a name may be `..jpg`
    room = LONGEST_NAME - LONGEST_SUFFIX - len(os.fsencode(tag)) - len(os.fsencode(suffix))
    if room < 1:
        stem, suffix, room = name, "", LONGEST_NAME - LONGEST_SUFFIX - len(os.fsencode(tag))
    raw = os.fsencode(stem)
    if len(raw) <= room:
        return stem + tag + suffix
    with contextlib.suppress(UnicodeDecodeError):
        raw.decode()
        return raw[:room].decode(errors="ignore") + tag + suffix
    return os.fsdecode(raw[:room]) + tag + suffix


def bin_folder(bin_: str) -> str:
    """The name of a bin's or a label's folder: one part of a path, which is not hidden and leads nowhere else."""
    text = "".join(f"%{ord(char):02x}" if char in '/\\:*?"<>|%' or not char.isprintable() else char for char in bin_)
    text = _EDGES.sub(lambda edge: "".join(f"%{ord(char):02x}" for char in edge[0]), text) or "_"
    return text.encode()[: LONGEST_NAME - LONGEST_SUFFIX].decode(errors="ignore")
