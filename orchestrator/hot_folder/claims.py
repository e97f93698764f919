"""A claim: something from `in/` that one process works on, in a folder of its own in `working/`.

    working/OWNER-N.KIND/data/NAME          moved there by rename: of several processes one succeeds
    working/OWNER-N.KIND/KEY.result.json    what became of a file, and where it goes: written before it goes there

After a kill another process goes on from what is there. Every step may be made twice, also by two processes at the
same time, and has its effect once: a file is moved by a link, which fails where the name is taken, and a result names
the place that was chosen.
"""

import contextlib
import json
import os
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from modeling.durable import decode_json, link_once, write_durable
from modeling.names import path_to_text, text_to_path
from orchestrator.contract.errors import MessageError
from orchestrator.hot_folder.folders import HotFolder, Part, candidates, key_of

SIDECAR, MANIFEST = ".json", ".manifest.csv"
RESULT, SILENT = ".result.json", ".silent.json"  # of a file that gets a sidecar, and of one that does not


@dataclass(frozen=True, slots=True)
class Ending:
    """Where a file goes, and what is said of it. folder: below the part. manifest: a file of the claim beside it."""

    part: Part
    facts: Mapping[str, Any]
    folder: str = ""
    sidecar: bool = True
    manifest: Path | None = None


class Claim:
    """One claim; the name says who made it and of what kind it is."""

    def __init__(self, folder: HotFolder, name: str) -> None:
        self.folder = folder
        self.name = name
        self.path = folder.working / name
        self.data = self.path / "data"

    @property
    def kind(self) -> str:
        return self.name.rpartition(".")[2]

    @property
    def tag(self) -> str:
        """What no other claim has; part of an item's name, and of a file's where its own is taken."""
        return self.name.rpartition(".")[0]

    @property
    def owner(self) -> str:
        return self.name.partition("-")[0]

    @classmethod
    def make(cls, folder: HotFolder, owner: str, number: int, kind: str) -> Self:
        """An empty claim."""
        claim = cls(folder, f"{owner}-{number}.{kind}")
        claim.path.mkdir()
        try:
            claim.data.mkdir()
        except OSError:
            claim.close()
            raise
        return claim

    def take(self, name: str) -> bool:
        """Move something from `in/` here; False where another was faster. Raises OSError where it cannot be moved."""
        try:
            os.rename(self.folder.incoming / name, self.data / name)  # noqa: PTH104 names may be `.` and worse
        except FileNotFoundError:
            return _is_there(self.data / name)  # a share may have lost the answer to a move that was made
        return True

    def exists(self) -> bool:
        """Whether it was not removed yet. Raises OSError where it cannot be seen now."""
        return _is_there(self.path)

    def names(self) -> list[str]:
        """What it still holds. Raises OSError where it cannot be listed now."""
        return sorted(_names_in(self.data))

    def give_back(self, name: str) -> None:
        """Move it to `in/` again, where it is looked at anew: it was changed meanwhile."""
        source = self.data / name
        for target in self._places_in(name):
            try:
                if _move(source, target) or not _is_there(source):
                    return
            except OSError:
                with contextlib.suppress(OSError):
                    if _is_same(source, target):  # one of the two names must go before somebody takes it from `in/`
                        target.unlink()
                raise

    def finish_giving_back(self) -> None:
        """Remove what is in `in/` already: a process was killed between the two steps of giving it back."""
        for name in self.names():
            source = self.data / name
            if any(_is_same(source, target) for target in self._places_in(name)):
                source.unlink(missing_ok=True)

    def _places_in(self, name: str) -> list[Path]:
        """Where a file may go in `in/`."""
        return [self.folder.incoming / candidate for candidate in candidates(name, self.tag)]

    def end(self, name: str, ending: Ending) -> Path | None:
        """Give a file its result, and move both to where they belong; the file's new place.

        None where it is not here any more: another process has done it.
        """
        result = self.path / (key_of(name) + (RESULT if ending.sidecar else SILENT))
        source, folder = self.data / name, Path(ending.part, ending.folder)
        (self.folder.path / folder).mkdir(exist_ok=True)
        for candidate in candidates(name, self.tag):
            target = self.folder.path / folder / candidate
            if not self._is_free_for(target, source):
                continue
            if not _is_there(source):  # its result, which another process carries out now, must stay
                return None
            facts = {"file": path_to_text(str(folder / candidate))} | dict(ending.facts)
            try:
                if ending.manifest is not None and _is_there(ending.manifest):
                    ending.manifest.replace(self.path / (key_of(name) + MANIFEST))
                self._write(result, facts)
                if self._carry_out(result, facts, source):
                    return target
            except FileNotFoundError:
                return None
        return None

    def finish_moves(self) -> list[tuple[Path, dict[str, Any]]]:
        """Carry out the results that were written before a kill; each file's place, and its facts."""
        moved = []
        for result in self._results():
            with contextlib.suppress(FileNotFoundError):
                try:
                    facts = _read(result)
                except MessageError:  # half of it was lost by the disk: the file is done again
                    result.unlink()
                    continue
                if self._carry_out(result, facts, self._source_of(result)):
                    moved.append((self.folder.path / text_to_path(facts["file"]), facts))
        return moved

    def close(self) -> bool:
        """Remove the claim, if it holds nothing any more: no file, and no result whose file was moved already."""
        try:
            with contextlib.suppress(FileNotFoundError):
                self.data.rmdir()
            if self._results():
                return False
        except OSError:
            return False
        shutil.rmtree(self.path, ignore_errors=True)
        return True

    def _results(self) -> list[Path]:
        """The results that were not carried out to their ends."""
        return sorted(self.path / name for name in _names_in(self.path) if name.endswith((RESULT, SILENT)))

    def _is_free_for(self, target: Path, source: Path) -> bool:
        """Whether a file may go there: nothing is there, or that same file, by an earlier try."""
        beside = [target.with_name(target.name + suffix) for suffix in (SIDECAR, MANIFEST)]
        if any(_is_there(path) for path in beside):
            return False
        return not _is_there(target) or _is_same(source, target)

    def _source_of(self, result: Path) -> Path | None:
        key = result.name.partition(".")[0]
        return next((self.data / name for name in self.names() if key_of(name) == key), None)

    def _write(self, result: Path, facts: Mapping[str, Any]) -> None:
        text = json.dumps(facts, ensure_ascii=False, indent=1).encode("utf-8", "backslashreplace")
        written = result.with_suffix(f".{os.getpid()}.tmp")
        write_durable(written, text + b"\n")
        written.replace(result)

    def _carry_out(self, result: Path, facts: Mapping[str, Any], source: Path | None) -> bool:
        """Move a file, then its result as its sidecar; False where the name was taken meanwhile.

        Raises FileNotFoundError where another process has done it.
        """
        target = self.folder.path / text_to_path(facts["file"])
        if source is not None and _is_there(source):
            if not _move(source, target):
                return False
        elif not _is_there(target):
            result.unlink(missing_ok=True)  # the file was given back, or somebody has fetched it already
            raise FileNotFoundError(str(target))
        manifest = self.path / (result.name.partition(".")[0] + MANIFEST)
        if _is_there(manifest):
            manifest.replace(target.with_name(target.name + MANIFEST))
        if result.name.endswith(SILENT):
            result.unlink()
        else:
            result.replace(target.with_name(target.name + SIDECAR))
        return True


def _is_there(path: Path) -> bool:
    """Whether a name is taken, by whatever. Raises OSError where it cannot be seen now: that is no free name."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    return True


def _names_in(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def _read(result: Path) -> dict[str, Any]:
    facts = decode_json(result.read_bytes(), str(result), error=MessageError)
    if not isinstance(facts, dict) or not isinstance(facts.get("file"), str):
        raise MessageError(f"{result} is not a result of a hot folder; remove it, and the file is done again")
    return facts


def _move(source: Path, target: Path) -> bool:
    """Move a file or a folder to a name that is free, or has been given to it already; False where it is not."""
    try:
        if not stat.S_ISREG(source.lstat().st_mode):
            if _is_there(target):
                return False
            source.rename(target)
            return True
        if not link_once(source, target) and not _is_same(source, target):
            return False
        source.unlink(missing_ok=True)
    except FileNotFoundError:  # another process was faster
        return _is_there(target)
    return True


def _is_same(source: Path, target: Path) -> bool:
    try:
        return os.path.samestat(source.lstat(), target.lstat())
    except FileNotFoundError:
        return False
