"""Where each row's file goes: the folder of its label or decision, and a name that is free there."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain

from modeling.errors import trouble_of
from modeling.names import path_to_text
from orchestrator.contract.errors import IntegrityError, UsageError
from orchestrator.contract.jobs.rows import Row
from orchestrator.contract.jobs.sidecar import is_unchanged, line_start, parse_line
from orchestrator.sorting.journal import Batch
from orchestrator.sorting.lines import Before, Folder, Left, Reason, SortedFile, SourceFolder, is_inside
from orchestrator.sorting.names import ERRORS, FolderNames, file_names, fold
from orchestrator.sorting.target import Target
from orchestrator.sorting.words import By, Mode

_NO_FILE = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP}
_MOST_SOURCE_FOLDERS = 1 << 14  # remembered; one that is forgotten is written into the journal again, which is harmless

Known = dict[tuple[str, str | None], str]
"""The folder of a label, below a folder of the target; the label is None for rows without an answer."""


@dataclass(frozen=True)
class Wanted:
    """What to sort where. folder: absolute. root: of the source."""

    root: str
    folder: str
    by: By
    mode: Mode


class Sources:
    """The files of rows, looked at where they are."""

    def __init__(self, wanted: Wanted) -> None:
        self._root = wanted.root
        self._real_root = os.path.realpath(wanted.root)
        self._moves = wanted.mode == "move"
        self._inside: dict[str, bool] = {}

    def look(self, row: Row, line: bytes | None) -> os.stat_result | Reason:
        """What the system says of a row's file, or why that stays where it is.

        line: of the sidecar, which says how the file was when it was classified.
        """
        path = row.path
        if not is_inside(path):
            return "outside the source"
        try:
            facts = os.lstat(f"{self._root}/{path}") if self._moves else os.stat(f"{self._root}/{path}")
        except ValueError:
            return "missing"  # a name that no file can have
        except OSError as err:
            return _reason_of(err)
        if stat.S_ISLNK(facts.st_mode):
            return "a link"
        if not stat.S_ISREG(facts.st_mode):
            return "not a file"
        if self._moves and not self._is_in_root(os.path.dirname(path)):
            return "outside the source"
        return "changed" if line is not None and _was_changed(path, facts, line) else facts

    def _is_in_root(self, folder: str) -> bool:
        """Whether no link leads from the root to a folder elsewhere."""
        if folder not in self._inside:
            if len(self._inside) >= _MOST_SOURCE_FOLDERS:
                self._inside.clear()
            real = os.path.realpath(f"{self._root}/{folder}")
            self._inside[folder] = real == self._real_root or real.startswith(self._real_root.rstrip("/") + "/")
        return self._inside[folder]


def _was_changed(path: str, facts: os.stat_result, line: bytes) -> bool:
    """Whether a file is not as its line of the sidecar says. Raises IntegrityError where that is another file's."""
    if is_unchanged(line, line_start(path, facts.st_size, facts.st_mtime_ns)):
        return False
    found = parse_line(line, f"the line of {path_to_text(path)!r}")
    if found.path != path:
        raise IntegrityError(
            f"the sidecar has the line of {path_to_text(found.path)!r} in place of {path_to_text(path)!r}"
        )
    return found.as_read is not None


def _reason_of(err: OSError) -> Reason:
    if trouble_of(err) is not None:
        raise err  # the storage's, or this machine's
    if err.errno in _NO_FILE:
        return "missing"
    if err.errno in (errno.EACCES, errno.EPERM):
        return "permission"
    raise err


class Planner:
    """Plans batches of rows. The same rows get the same names where the target holds the same."""

    def __init__(self, wanted: Wanted, labels: list[str], codes: list[str], target: Target, known: Known) -> None:
        self._wanted = wanted
        self._sources = Sources(wanted)
        self._target = target
        self._labels = FolderNames(labels)
        self._codes = FolderNames(codes, reserved="")
        self._known = known
        self._source_folders: set[str] = set()
        self._taken: set[str] = set()  # in this batch

    def new_batch(self) -> Batch:
        self._taken.clear()
        return Batch()

    def plan(self, batch: Batch, number: int, row: Row, line: bytes | None) -> None:
        """Add a row, which is the one of that number, to a batch; line: its line of the sidecar."""
        found = self._sources.look(row, line)
        if isinstance(found, str):
            batch.add(Left(number, row.path, found, row.prediction.ok))
            return
        folder = self._folder_of(row, batch)
        target = next((path for path in self._paths(folder, row.path) if self._is_free(path)), None)
        if target is None:
            batch.add(Left(number, row.path, "taken", row.prediction.ok))
            return
        self._note_source_folder(row.path, batch)
        before = None if self._wanted.mode == "link" else Before.of(found)
        batch.add(SortedFile(number, row.path, target, before))

    def _paths(self, folder: str, path: str) -> Iterator[str]:
        return (f"{folder}/{name}" for name in file_names(path, self._target.holds))

    def _is_free(self, path: str) -> bool:
        key = path if self._target.is_faithful else fold(path)
        if key in self._taken or os.path.lexists(f"{self._wanted.folder}/{path}"):
            return False
        self._taken.add(key)
        return True

    def _note_source_folder(self, path: str, batch: Batch) -> None:
        folder = os.path.dirname(path)
        if self._wanted.mode != "move" or folder in self._source_folders:
            return
        if len(self._source_folders) >= _MOST_SOURCE_FOLDERS:
            self._source_folders.clear()
        self._source_folders.add(folder)
        batch.add(SourceFolder(folder, os.stat(f"{self._wanted.root}/{folder}").st_mtime_ns))

    # Folders

    def _folder_of(self, row: Row, batch: Batch) -> str:
        prediction = row.prediction
        if prediction.error_code is not None:
            errors = self._enter("", None, lambda: _numbered(ERRORS), batch)
            code = prediction.error_code
            return self._enter(f"{errors}/", code, lambda: _numbered(self._codes.of(code)), batch)
        decision = str(prediction.decision)
        if self._wanted.by == "decision":
            return self._enter("", decision, lambda: _numbered(decision), batch)
        label = prediction.labels[0]
        folder = self._enter("", label, lambda: self._names_of(label), batch)
        if self._wanted.by == "label":
            return folder
        return self._enter(f"{folder}/", decision, lambda: _numbered(decision), batch)

    def _names_of(self, label: str) -> Iterator[str]:
        return chain((self._labels.of(label),), self._labels.others(label, self._target.holds))

    def _enter(self, above: str, label: str | None, names: Callable[[], Iterator[str]], batch: Batch) -> str:
        """The folder of a label below another; one that is not known is written into the batch."""
        if (known := self._known.get((above, label))) is not None:
            return known
        for name in names():
            path = f"{above}{name}"
            facts = _lstat(f"{self._wanted.folder}/{path}")
            if self._target.holds(name) and (facts is None or stat.S_ISDIR(facts.st_mode)):
                batch.add(Folder(path, label, facts is None, facts and facts.st_mtime_ns))
                self._known[above, label] = path
                return path
        raise UsageError(f"{self._wanted.folder!r} can have no folder for {label!r}: name another target")


def known_folder(folder: Folder) -> tuple[tuple[str, str | None], str]:
    """A folder of the journal, as `Known` has it."""
    above, _, _ = folder.name.rpartition("/")
    return (f"{above}/" if above else "", folder.label), folder.name


def _numbered(name: str) -> Iterator[str]:
    return chain((name,), (f"{name}~{number}" for number in range(2, 100)))


def _lstat(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None
