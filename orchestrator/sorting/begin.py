"""The first and the last step of a sort: the target and its journal appear, and go again."""

import contextlib
import os
import secrets
from pathlib import Path

from modeling.names import path_to_text, text_to_path
from orchestrator.contract.access import explain_refused_write
from orchestrator.contract.errors import NotFoundError, PigeonholeError, UsageError
from orchestrator.sorting.journal import JOURNAL, NEW, Journal
from orchestrator.sorting.lines import VERSION, Head
from orchestrator.sorting.manifest import SortedManifest
from orchestrator.sorting.plan import Wanted
from orchestrator.sorting.record import HomeRecord
from orchestrator.sorting.target import remove_probe


class StoppedError(PigeonholeError):
    """A sort or an unsort that cannot go on; what is done stays, and can be gone on with or undone."""


def explain(err: OSError, folder: str) -> str:
    """One line on an error of the system; of two names in it, the new one is where something could not be written."""
    err.filename = err.filename if err.filename2 is None else err.filename2
    return explain_refused_write(err, Path(folder))


def check_root(head: Head) -> None:
    """Raises NotFoundError where the source that was sorted is away: its images would seem to be gone."""
    root = text_to_path(head.root)
    if not os.path.isdir(root):
        raise NotFoundError(f"the source {head.root!r} is not there; mount it, or put the folder back")
    if os.stat(root).st_ino != head.root_inode and not os.listdir(root):
        raise NotFoundError(f"the source {head.root!r} is another folder than before, and empty; is it mounted?")


def open_or_begin(record: HomeRecord, wanted: Wanted, manifest: SortedManifest) -> tuple[Journal, Head]:
    """The journal of this sort, with its head; it is begun unless it was before.

    Raises UsageError where another sort is in the folder, NotFoundError where the source is away.
    """
    recover(record, wanted.folder)
    if not has_journal(wanted.folder):
        manifest.check_source(wanted)
        return _begin(record, wanted, manifest)
    journal = Journal.open(wanted.folder)
    try:
        assert journal.head is not None
        check_same(journal.head, wanted, manifest)
    except BaseException:
        journal.close()
        raise
    return journal, journal.head


def recover(record: HomeRecord, folder: str) -> bool:
    """Undo a beginning, or finish an end, that a kill has cut off; whether there was one."""
    if has_journal(folder):
        journal = Journal.open(folder)
        try:
            if journal.head is not None:
                record.clear()
                return False
            journal.remove()
        finally:
            journal.close()
    return record.undo()


def has_journal(folder: str) -> bool:
    return os.path.lexists(f"{folder}/{JOURNAL}")


def take_away(record: HomeRecord, folder: str, journal: Journal, head: Head) -> None:
    """Remove the journal, and the folder if the sort made it and it is empty; times are put back."""
    remove_remains(folder)
    around = os.stat(os.path.dirname(folder))
    is_changed = head.made and around.st_mtime_ns != head.around_ns  # by somebody else, since the target was made
    record.begin(head.made, {} if is_changed else head.mtimes_ns)
    journal.remove()
    record.undo()


def remove_remains(folder: str) -> None:
    """Remove what a killed process has left beside the journal."""
    remove_probe(folder)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{folder}/{JOURNAL}{NEW}")


def _begin(record: HomeRecord, wanted: Wanted, manifest: SortedManifest) -> tuple[Journal, Head]:
    folder = wanted.folder
    made = not os.path.isdir(folder)
    around = os.path.dirname(folder) if made else folder
    mtimes_ns = {path_to_text(around): os.stat(around).st_mtime_ns}
    record.begin(made, mtimes_ns)
    try:
        if made:
            os.mkdir(folder)
        head = Head(
            VERSION, secrets.token_hex(4), path_to_text(str(manifest.path)), manifest.sha256, wanted.by, wanted.mode,
            path_to_text(wanted.root), os.stat(wanted.root).st_ino, made, mtimes_ns,
            os.stat(around).st_mtime_ns if made else None,
        )  # fmt: skip
        journal = Journal.open(folder, head)
    except (OSError, UsageError):
        with contextlib.suppress(OSError):  # the first error is the one to report
            record.undo()  # it stays where something could not be undone: the next sort or unsort does that
        raise
    record.clear()
    return journal, head


def check_same(found: Head, wanted: Wanted, manifest: SortedManifest) -> None:
    """Raises UsageError where the journal is that of another sort."""
    shown = path_to_text(wanted.folder)
    undo = "undo it with `pigeonhole results unsort`, or name another target"
    if found.left:
        raise UsageError(
            f"{shown!r} holds files that an unsort has left (`pigeonhole results unsort --dry-run` names them); "
            "put them in order and run unsort again, or name another target"
        )
    if (found.by, found.mode) != (wanted.by, wanted.mode):
        raise UsageError(f"{shown!r} is sorted --by {found.by} --{found.mode} already; {undo}")
    if (found.sha256, found.root) != (manifest.sha256, path_to_text(wanted.root)):
        raise UsageError(f"{shown!r} holds the sort of another manifest, {found.manifest!r}; {undo}")
