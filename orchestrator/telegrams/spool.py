"""What was acknowledged and is not finished: items without an answer, and answers that no controller has acknowledged.

Each is a file, so a process that is killed loses none. Files are not synced: a power cut may lose the last seconds,
and stops the belt, too. One process uses a spool.
"""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.contract.errors import UsageError
from orchestrator.stack.locks import take_lock

logger = logging.getLogger(__name__)

_ITEM, _ANSWER, _TEMPORARY = ".item", ".answer", ".tmp"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of an item. triggered_at: of the wall clock, for the deadline after a restart."""

    controller: str
    item: str
    pass_: int
    digest: str  # of the image's bytes; empty of a path
    triggered_at: float
    deadline_s: float | None
    path: str | None = None

    @property
    def key(self) -> tuple[str, str, int]:
        return self.controller, self.item, self.pass_


class Spool:
    """A folder with a file for each item that is not finished."""

    def __init__(self, folder: Path) -> None:
        """Raises UsageError where another process uses it."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._lock = take_lock(folder)
        if self._lock is None:
            raise UsageError(f"another process has the telegrams in {folder}; stop it, or choose another port")
        self._next = 1 + max((int(path.stem) for path in self._files()), default=0)

    def add(self, facts: Facts, image: bytes) -> int:
        """Keep an item; it survives this process when this returns. Its number."""
        number, self._next = self._next, self._next + 1
        header = {name: getattr(facts, name) for name in Facts.__slots__}
        self._write(number, _ITEM, json.dumps(header).encode() + b"\n" + image)
        return number

    def answer(self, number: int, facts: Facts, values: Mapping[str, Any]) -> None:
        """Keep an item's answer in its place."""
        header = {name: getattr(facts, name) for name in Facts.__slots__}
        self._write(number, _ANSWER, json.dumps({"facts": header, "values": dict(values)}).encode())
        self._path(number, _ITEM).unlink(missing_ok=True)

    def remove(self, number: int) -> None:
        """The controller has acknowledged the answer, or the item was refused."""
        for kind in (_ITEM, _ANSWER):
            self._path(number, kind).unlink(missing_ok=True)

    def image(self, number: int) -> bytes:
        """The bytes of an item that is not answered."""
        return self._path(number, _ITEM).read_bytes().partition(b"\n")[2]

    def restore(self) -> Iterator[tuple[int, Facts, dict[str, Any] | None]]:
        """What an earlier process has left, in the order of arrival: each with its answer, if it has one."""
        for path in self._folder.glob("*" + _TEMPORARY):
            path.unlink()
        for number in sorted({int(path.stem) for path in self._files()}):
            try:
                found = self._read(number)
            except (ValueError, KeyError, TypeError) as err:  # a power cut left half of it
                logger.warning("number %d in %s cannot be read, and is left out: %s", number, self._folder, err)
                continue
            yield found

    def _read(self, number: int) -> tuple[int, Facts, dict[str, Any] | None]:
        try:
            # Not by pydantic: only this program writes here, and half a file counts as none.
            value = json.loads(self._path(number, _ANSWER).read_bytes())
            return number, Facts(**value["facts"]), dict(value["values"])
        except FileNotFoundError:
            header = self._path(number, _ITEM).read_bytes().partition(b"\n")[0]
            return number, Facts(**json.loads(header)), None

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _files(self) -> Iterator[Path]:
        for path in self._folder.iterdir():
            if path.suffix in (_ITEM, _ANSWER) and path.stem.isdigit():
                yield path

    def _path(self, number: int, kind: str) -> Path:
        return self._folder / f"{number:012d}{kind}"

    def _write(self, number: int, kind: str, data: bytes) -> None:
        """Not by `modeling.durable`, which would wait for the disk at each item; no other process writes here."""
        temporary = self._path(number, _TEMPORARY)
        temporary.write_bytes(data)
        temporary.rename(self._path(number, kind))
