"""`results unsort`: everything that a sort has changed is put back; what was changed since is left, and named."""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from modeling.durable import sync
from modeling.names import path_to_text, text_to_path
from orchestrator.contract.errors import NotFoundError
from orchestrator.contract.settings import Settings
from orchestrator.sorting.begin import (
    StoppedError,
    check_root,
    explain,
    has_journal,
    recover,
    remove_remains,
    take_away,
)
from orchestrator.sorting.changes import (
    Places,
    State,
    move_back,
    places_of,
    remove_copy_remains,
    remove_returned,
    state_of,
)
from orchestrator.sorting.copying import UnfitError
from orchestrator.sorting.journal import JOURNAL, Batch, Journal
from orchestrator.sorting.lines import BATCH, Before, Folder, Head, SortedFile, SourceFolder, encode, encode_head
from orchestrator.sorting.make import MOST_NAMED
from orchestrator.sorting.record import HomeRecord, put_time_back

Progress = Callable[[int], None]
"""Called with the number of files that were looked at."""


@dataclass
class Unsorted:
    """num_undone: files that were put back, or links and copies that were removed. num_open: what was so already.

    left: files that were changed since, with what is wrong; the first MOST_NAMED of num_left.
    """

    num_undone: int = 0
    num_open: int = 0
    num_left: int = 0
    left: list[tuple[str, str, str]] = field(default_factory=list)

    def leave(self, entry: SortedFile, what: str) -> None:
        self.num_left += 1
        if len(self.left) < MOST_NAMED:
            self.left.append((entry.target, entry.source, what))


def unsort(settings: Settings, folder: Path, progress: Progress, *, dry_run: bool = False) -> Unsorted:
    """Undo the sort into a folder, again and again if it was stopped; a dry run looks only.

    Raises NotFoundError where there is no journal, or the source that files go back to is away.
    """
    path = os.path.abspath(folder)
    found = Unsorted()
    try:
        record = HomeRecord.open(settings, path)
        try:
            _unsort(record, path, progress, found, dry_run=dry_run)
        finally:
            record.close()
    except OSError as err:
        done = f"{found.num_undone:,} images are undone, and the journal is there"
        raise StoppedError(f"{explain(err, path)}; {done}: run the command again") from err
    return found


def _unsort(record: HomeRecord, path: str, progress: Progress, found: Unsorted, *, dry_run: bool) -> None:
    if not has_journal(path):
        if not (dry_run or recover(record, path)):
            raise NotFoundError(f"{path_to_text(path)!r} holds no journal of a sort ({JOURNAL})")
        return
    if not dry_run and recover(record, path):
        return
    journal = Journal.open(path)
    try:
        head = journal.head
        if head is None:
            return  # a dry run of a sort that had hardly begun
        if head.mode == "move":
            check_root(head)
        undoing = _Undoing(head, path, found, dry_run=dry_run)
        undoing.run(journal, progress)
        if dry_run:
            return
        if found.num_left:
            undoing.keep_left(journal)
        else:
            take_away(record, path, journal, head)
    finally:
        journal.close()


class _Undoing:
    def __init__(self, head: Head, folder: str, found: Unsorted, *, dry_run: bool) -> None:
        self._head = head
        self._root = text_to_path(head.root)
        self._folder = folder
        self._found = found
        self._dry_run = dry_run

    def run(self, journal: Journal, progress: Progress) -> None:
        if not self._dry_run:
            journal.unfinish()
            remove_remains(self._folder)
        num_seen = 0
        for batch in journal.batches_backwards():
            self._undo(batch)
            num_seen += len(batch.entries)
            progress(num_seen)
            if not self._dry_run:
                self._undo_folders(batch)

    def keep_left(self, journal: Journal) -> None:
        """Have the journal hold only what is left."""
        journal.replace(self._blocks_of_left(journal))

    def _blocks_of_left(self, journal: Journal) -> Iterator[bytes]:
        yield encode_head(replace(self._head, left=True))
        for batch in journal.batches():
            kept = [entry for entry in batch.entries.values() if self._is_left(batch, entry)]
            copied = [batch.copied[entry.row] for entry in kept if entry.row in batch.copied]
            if kept or batch.folders:
                yield b"".join((BATCH, *map(encode, (*batch.folders, *kept, *copied))))

    def _is_left(self, batch: Batch, entry: SortedFile) -> bool:
        return self._state(self._places(batch, entry)) != "open"

    def _places(self, batch: Batch, entry: SortedFile) -> Places:
        return places_of(self._head, self._folder, entry, batch.copied.get(entry.row))

    def _state(self, places: Places) -> State:
        return state_of(self._head.mode, places)

    # A batch

    def _undo(self, batch: Batch) -> None:
        doubled = []  # at both places, each with what is at the target
        for entry in batch.entries.values():  # in order: of an image that is listed twice, the first row was moved
            places = self._places(batch, entry)
            with self._leaving(entry, places):
                expected = self._undo_one(places)
                doubled += [(entry, places, expected)] if expected else []
        for folder in {os.path.dirname(places.source) for _, places, _ in doubled}:
            sync(folder)
        for entry, places, expected in doubled:
            with self._leaving(entry, places):
                remove_returned(places, expected)
                self._found.num_undone += 1

    @contextlib.contextmanager
    def _leaving(self, entry: SortedFile, places: Places) -> Iterator[None]:
        """What is raised for one file is the reason why it is left. Raises errors of the target as a whole."""
        try:
            yield
        except UnfitError as err:
            self._found.leave(entry, err.reason)
        except FileExistsError:
            self._found.leave(entry, "taken")
        except PermissionError:
            if _may_change(os.path.dirname(places.source)) or not _may_change(os.path.dirname(places.target)):
                raise
            self._found.leave(entry, "permission")

    def _undo_one(self, places: Places) -> Before | None:
        """Undo what was done for a file; what is at the target, if that is to go once its place is on the disk.

        Raises UnfitError where it was changed since.
        """
        if not self._dry_run:
            remove_copy_remains(self._head.mode, places)
        state = self._state(places)
        if state == "changed" or state == "gone":
            raise UnfitError(state)
        if state == "open":
            self._found.num_open += 1
            return None
        if not self._dry_run and self._head.mode == "move":
            found = Before.of(os.lstat(places.target))
            if state == "both" or not move_back(places):
                return found
        elif not self._dry_run:
            os.unlink(places.target)
        self._found.num_undone += 1
        return None

    def _undo_folders(self, batch: Batch) -> None:
        """Remove the folders that the sort made, if they are empty; put the times of others back."""
        for folder in reversed(batch.folders):
            if isinstance(folder, Folder) and folder.made:
                _remove_if_empty(f"{self._folder}/{folder.name}")
            elif folder.mtime_ns is not None:
                above = self._root if isinstance(folder, SourceFolder) else self._folder
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    put_time_back(f"{above}/{folder.name}", folder.mtime_ns)


def _may_change(folder: str) -> bool:
    return os.access(folder, os.W_OK | os.X_OK)


def _remove_if_empty(path: str) -> None:
    try:
        os.rmdir(path)
    except OSError as err:
        if err.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.ENOTDIR):
            raise
