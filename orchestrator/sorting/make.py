"""Does what a batch of the journal says."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from modeling.durable import sync
from orchestrator.sorting.changes import (
    Places,
    make_copy,
    make_link,
    move,
    places_of,
    remove_copy_remains,
    remove_moved,
    state_of,
)
from orchestrator.sorting.copying import UnfitError
from orchestrator.sorting.journal import Batch, Journal
from orchestrator.sorting.lines import Copied, Folder, Left, Reason, SortedFile
from orchestrator.sorting.names import is_of_errors
from orchestrator.sorting.plan import Wanted

MOST_NAMED = 1_000  # of the files that stay; the journal has all


@dataclass
class Tally:
    """What was sorted, and what stays. num_left_answered: of the rows that stay, those with an answer."""

    num_rows: int = 0
    num_sorted: int = 0
    folders: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    named: list[tuple[str, str]] = field(default_factory=list)
    num_left_answered: int = 0

    def add(self, batch: Batch) -> None:
        """Count a batch that is done."""
        for entry in batch.entries.values():
            self.folders[os.path.dirname(entry.target)] += 1
        self.num_sorted += len(batch.entries)
        self.num_rows += len(batch.entries) + len(batch.left)
        for left in batch.left:
            self.left[left.reason] += 1
            self.num_left_answered += left.answered
            if len(self.named) < MOST_NAMED:
                self.named.append((left.source, left.reason))


class Maker:
    """Makes folders, links and copies, and moves files."""

    def __init__(self, wanted: Wanted, journal: Journal) -> None:
        self._wanted = wanted
        self._journal = journal

    def make(self, batch: Batch, *, again: bool = False, last: bool = True) -> None:
        """Do what a batch says. again: it may be done already, in part or whole. last: no batch is behind it.

        A file that cannot go there is `left` in the batch afterwards. Raises OSError where the target is full, or can
        no longer be written.
        """
        self._make_folders(batch)
        later: list[Copied | Left] = []
        for entry in list(batch.entries.values()):
            places = self._places(batch, entry)
            try:
                copied = self._do(places, again=again)
            except (UnfitError, FileExistsError, FileNotFoundError, PermissionError) as err:
                later.append(self._left(entry, err, places))
            else:
                later += [copied] if copied else []
        if later:
            self._finish_copies(batch, later, last=last)

    def _places(self, batch: Batch, entry: SortedFile) -> Places:
        assert self._journal.head is not None
        return places_of(self._journal.head, self._wanted.folder, entry, batch.copied.get(entry.row))

    def _make_folders(self, batch: Batch) -> None:
        for folder in batch.folders:
            if isinstance(folder, Folder) and folder.made:
                path = f"{self._wanted.folder}/{folder.name}"
                if not os.path.isdir(path):
                    os.mkdir(path)

    def _do(self, places: Places, *, again: bool) -> Copied | None:
        state = state_of(self._wanted.mode, places) if again else "open"
        if again:
            remove_copy_remains(self._wanted.mode, places)
        if state == "changed":
            raise UnfitError("taken")
        if state == "gone":
            raise UnfitError("missing")
        if state == "both":
            return self._copied(places)
        if state == "done":
            return self._copied(places) if self._wanted.mode == "copy" and places.copied is None else None
        if self._wanted.mode == "link":
            make_link(places)
            return None
        return make_copy(places, verified=False) if self._wanted.mode == "copy" else move(places)

    def _copied(self, places: Places) -> Copied:
        facts = os.lstat(places.target)
        return Copied(places.row, facts.st_size, facts.st_mtime_ns)

    def _finish_copies(self, batch: Batch, later: list[Copied | Left], *, last: bool) -> None:
        """Say that copies are whole, on the disk; of files that are moved, remove the originals then."""
        moved = [batch.entries[each.row] for each in later if isinstance(each, Copied)]
        if self._wanted.mode == "move":
            for folder in {os.path.dirname(entry.target) for entry in moved}:
                sync(f"{self._wanted.folder}/{folder}")
        self._note(batch, later, last=last)
        if self._wanted.mode == "move":
            self._note(batch, self._remove_originals(batch, moved), last=last)

    def _note(self, batch: Batch, lines: Sequence[Copied | Left], *, last: bool) -> None:
        """Add lines to a batch. A batch that others are behind was whole once: the journal needs nothing more of it."""
        if last and lines:
            self._journal.append_later(lines)
        for line in lines:
            batch.add(line)

    def _remove_originals(self, batch: Batch, moved: list[SortedFile]) -> list[Left]:
        """Remove what is at the target, too; returns what could not be removed, and is at its place only."""
        stayed = []
        for entry in moved:
            places = self._places(batch, entry)
            try:
                remove_moved(places)
            except (UnfitError, PermissionError) as err:
                stayed.append(self._left(entry, err, places))
        return stayed

    def _left(self, entry: SortedFile, err: Exception, places: Places) -> Left:
        return Left(entry.row, entry.source, self._reason(err, places), not is_of_errors(entry.target))

    def _reason(self, err: Exception, places: Places) -> Reason:
        """Why a file stays where it is. Raises the error where it is the target's."""
        if isinstance(err, UnfitError):
            return err.reason
        if isinstance(err, FileExistsError):
            return "taken"
        folder = os.path.dirname(places.target)
        if isinstance(err, FileNotFoundError):
            if os.path.lexists(places.source) or not os.path.isdir(folder):
                raise err
            return "missing"
        if not os.access(folder, os.W_OK | os.X_OK):
            raise err
        return "permission"
