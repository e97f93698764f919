"""`results sort`: folders of a manifest's answers."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from modeling.names import path_to_text
from orchestrator.contract.errors import UsageError
from orchestrator.contract.settings import Settings
from orchestrator.jobs.results import Published
from orchestrator.sorting.begin import (
    StoppedError,
    check_root,
    check_same,
    explain,
    has_journal,
    open_or_begin,
    take_away,
)
from orchestrator.sorting.checks import check_wanted, check_writable
from orchestrator.sorting.journal import Batch, Journal
from orchestrator.sorting.lines import Folder, Head
from orchestrator.sorting.make import Maker, Tally
from orchestrator.sorting.manifest import SortedManifest, open_to_sort
from orchestrator.sorting.plan import Known, Planner, Wanted, known_folder
from orchestrator.sorting.record import HomeRecord
from orchestrator.sorting.target import FAITHFUL, Target, probed
from orchestrator.sorting.words import By, Mode

BATCH_ROWS: dict[Mode, int] = {"link": 1_000, "copy": 100, "move": 200}  # synced together
Progress = Callable[[int, int], None]
"""Called with the number of rows that are done, and of all."""


@dataclass(frozen=True)
class SortSpec:
    """What an operator asks for. folder: the target."""

    published: Published
    folder: Path
    by: By
    mode: Mode


@dataclass
class Sorted:
    """What is sorted. went_on: after an earlier sort that was stopped. was_finished: there was nothing to do."""

    tally: Tally = field(default_factory=Tally)
    went_on: bool = False
    was_finished: bool = False


def sort(settings: Settings, spec: SortSpec, progress: Progress) -> Sorted:
    """Sort the files of a manifest into folders; an earlier sort of the same into that folder is gone on with.

    Raises UsageError or NotFoundError where nothing was begun, StoppedError where it cannot go on.
    """
    manifest = open_to_sort(spec.published)
    wanted = _checked(settings, spec, manifest)
    found = Sorted()
    try:
        record = HomeRecord.open(settings, wanted.folder)
        try:
            _Run(record, wanted, manifest, progress, found).run()
        finally:
            record.close()
    except OSError as err:
        raise StoppedError(_explain(err, wanted, manifest, found.tally)) from err
    return found


def preview(settings: Settings, spec: SortSpec, progress: Progress) -> Sorted:
    """Count where the files would go, as far as that can be known without trying; changes nothing.

    Raises as `sort` does, also where the target may not be written to.
    """
    manifest = open_to_sort(spec.published)
    wanted = _checked(settings, spec, manifest)
    found, known, last_row = Sorted(), Known(), 0
    try:
        check_writable(wanted)
    except OSError as err:
        raise StoppedError(_explain(err, wanted, manifest, found.tally)) from err
    if has_journal(wanted.folder):
        last_row = _count_journal(wanted, manifest, found, known)
    if not (found.went_on or found.was_finished):
        manifest.check_source(wanted)
    for batch in () if found.was_finished else _planned(manifest, wanted, FAITHFUL, known, last_row + 1):
        found.tally.add(batch)
        progress(found.tally.num_rows, manifest.num_rows)
    return found


def _count_journal(wanted: Wanted, manifest: SortedManifest, found: Sorted, known: Known) -> int:
    """Count what an earlier sort has in its journal; returns the number of its last row."""
    last_row = 0
    journal = Journal.open(wanted.folder)
    try:
        if journal.head is not None:
            check_same(journal.head, wanted, manifest)
            found.was_finished, found.went_on = journal.finished, not journal.finished
        for batch in journal.batches():
            known.update(_known_folders(batch))
            last_row = max(last_row, batch.last_row)
            found.tally.add(batch)
    finally:
        journal.close()
    return last_row


def _known_folders(batch: Batch) -> Known:
    return dict(known_folder(folder) for folder in batch.folders if isinstance(folder, Folder))


def _checked(settings: Settings, spec: SortSpec, manifest: SortedManifest) -> Wanted:
    wanted = Wanted(manifest.root, os.path.abspath(spec.folder), spec.by, spec.mode)
    check_wanted(wanted, manifest, settings.home)
    return wanted


def _planned(
    manifest: SortedManifest, wanted: Wanted, target: Target, known: Known, first_row: int = 1
) -> Iterator[Batch]:
    """Batches of the rows from one on."""
    planner = Planner(wanted, manifest.labels, manifest.error_codes, target, known)
    batch = planner.new_batch()
    for number, row, line in manifest.rows():
        if number < first_row:
            continue
        planner.plan(batch, number, row, line)
        if batch.num_rows == BATCH_ROWS[wanted.mode]:
            yield batch
            batch = planner.new_batch()
    if batch.num_rows:
        yield batch


def _explain(err: OSError, wanted: Wanted, manifest: SortedManifest, tally: Tally) -> str:
    reason = explain(err, wanted.folder)
    if not has_journal(wanted.folder):
        return f"nothing can be sorted into {path_to_text(wanted.folder)!r}: {reason}"
    done = f"at least {tally.num_rows:,} of {manifest.num_rows:,} rows are sorted"
    return f"{reason}; {done}: run the command again to go on, or `pigeonhole results unsort` to undo it"


@dataclass
class _Run:
    record: HomeRecord
    wanted: Wanted
    manifest: SortedManifest
    progress: Progress
    found: Sorted

    def run(self) -> None:
        journal, head = open_or_begin(self.record, self.wanted, self.manifest)
        try:
            if journal.finished:
                self.found.was_finished = True
                for batch in journal.batches():
                    self.found.tally.add(batch)
                return
            with probed(self.wanted.folder) as target:
                self._check_links(target, journal, head)
                self._sort(journal, head, target)
            journal.finish()
        finally:
            journal.close()

    def _check_links(self, target: Target, journal: Journal, head: Head) -> None:
        """Raises UsageError where links are wanted and the target takes none; the target is as it was then."""
        if self.wanted.mode != "link" or (reason := target.link_refusal) is None:
            return
        if next(journal.batches(), None) is None:
            take_away(self.record, self.wanted.folder, journal, head)
        shown = path_to_text(self.wanted.folder)
        raise UsageError(f"the file system of {shown!r} takes no symbolic links ({reason}); use --copy or --move")

    def _sort(self, journal: Journal, head: Head, target: Target) -> None:
        check_root(head)
        maker, last_row = Maker(self.wanted, journal), 0
        known: Known = {}
        for batch, last in _with_last(journal.batches()):
            self.found.went_on = True
            known.update(_known_folders(batch))
            last_row = max(last_row, batch.last_row)
            maker.make(batch, again=True, last=last)
            self._count(batch)
        for batch in _planned(self.manifest, self.wanted, target, known, last_row + 1):
            check_root(head)  # else what was away meanwhile would be missing
            journal.append(batch)
            maker.make(batch)
            self._count(batch)

    def _count(self, batch: Batch) -> None:
        self.found.tally.add(batch)
        self.progress(self.found.tally.num_rows, self.manifest.num_rows)


def _with_last(batches: Iterator[Batch]) -> Iterator[tuple[Batch, bool]]:
    """Each batch, and whether it is the last one."""
    batch = next(batches, None)
    while batch is not None:
        following = next(batches, None)
        yield batch, following is None
        batch = following
