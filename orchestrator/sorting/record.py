"""What a sort changes before its journal is there, and what an unsort changes after it is gone: kept in the home.

A journal lies in the folder that is sorted into. To make that folder changes the time of the one around it, and to make
the journal changes the time of an existing one; the last step of an unsort does the same. A record in
`PIGEONHOLE_HOME/sorts` is on the disk before, and goes after these times are put back.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Self

from modeling.durable import STRICT, sync, validated
from modeling.names import path_to_text, text_to_path
from orchestrator.contract.access import explain_refused_write
from orchestrator.contract.errors import UsageError
from orchestrator.contract.home import make_home
from orchestrator.contract.settings import Settings
from orchestrator.sorting.journal import JOURNAL
from orchestrator.sorting.locked import NEW_FILE, InUseError, open_locked, write_whole

# A folder's time is put back only if it is about that of the record: else somebody else has changed the folder since.
_SOON_NS = 10 * 10**9


@dataclass(frozen=True)
class _Record:
    """made: whether the sort made the folder. mtimes_ns: of folders, before. at_ns: of the record. Names as text."""

    __pydantic_config__ = STRICT

    folder: str
    made: bool
    mtimes_ns: dict[str, int]
    at_ns: int


class HomeRecord:
    """The record of a folder, locked until it is closed: one process of a home works in a folder at a time."""

    def __init__(self, path: str, folder: str, descriptor: int) -> None:
        self._path = path
        self._folder = folder
        self._descriptor = descriptor

    @classmethod
    def open(cls, settings: Settings, folder: str) -> Self:
        """Lock the record of a folder.

        Raises InUseError where another process works in the folder, UsageError where the home cannot be written.
        """
        name = hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:32]
        path = f"{settings.home}/sorts/{name}.jsonl"
        try:
            make_home(settings)
            with contextlib.suppress(FileExistsError):
                os.mkdir(os.path.dirname(path))
            record = cls(path, folder, open_locked(path, NEW_FILE))
        except InUseError as err:
            raise InUseError(f"another `results sort` or `unsort` works in {folder!r}; wait for its end") from err
        except OSError as err:
            raise UsageError(f"the home {str(settings.home)!r}: {explain_refused_write(err, settings.home)}") from err
        return record

    def begin(self, made: bool, mtimes_ns: Mapping[str, int]) -> None:
        """Write how the folders are, before one of them is changed outside of the journal's life."""
        record = _Record(path_to_text(self._folder), made, dict(mtimes_ns), time.time_ns())
        os.lseek(self._descriptor, 0, os.SEEK_END)
        try:
            write_whole(self._descriptor, b"\n" + json.dumps(asdict(record)).encode() + b"\n")
        except OSError as err:
            err.filename = self._path  # else the target would be taken for the disk that is full
            raise
        sync(os.path.dirname(self._path))

    def undo(self) -> bool:
        """Undo what was done without a journal; returns whether there was something."""
        record = self._read()
        if record is None or os.path.lexists(f"{self._folder}/{JOURNAL}"):
            return False
        if record.made:
            with contextlib.suppress(OSError):  # gone, or somebody has put something there
                os.rmdir(self._folder)
        for folder, mtime_ns in record.mtimes_ns.items():
            with contextlib.suppress(FileNotFoundError):
                if os.stat(text_to_path(folder)).st_mtime_ns <= record.at_ns + _SOON_NS:
                    put_time_back(text_to_path(folder), mtime_ns)
        self.clear()
        return True

    def clear(self) -> None:
        """Forget what was written: the journal has it now, or everything is as it was."""
        os.ftruncate(self._descriptor, 0)

    def close(self) -> None:
        """Unlock; an empty record is removed."""
        if os.fstat(self._descriptor).st_size == 0:
            os.unlink(self._path)
        os.close(self._descriptor)

    def _read(self) -> _Record | None:
        """The last line that is whole."""
        data = os.pread(self._descriptor, os.fstat(self._descriptor).st_size, 0)
        for line in reversed(data[: data.rfind(b"\n") + 1].split(b"\n")):
            with contextlib.suppress(ValueError):
                return validated(_Record, json.loads(line), self._path)
        return None


def put_time_back(folder: str, mtime_ns: int) -> None:
    """Give a folder its time of change, unless it is another user's; on the disk when this returns."""
    facts = os.stat(folder)
    if facts.st_mtime_ns != mtime_ns:
        with contextlib.suppress(PermissionError):
            os.utime(folder, ns=(facts.st_atime_ns, mtime_ns))
    with contextlib.suppress(PermissionError):
        sync(folder)
