"""One file of a sort: what is to be done for it, whether that is done, doing it and undoing it.

Each is found from the two places alone, so that everything can be done again after a kill at any moment. A file counts
as the sort's own if it is the link that the journal names, or has the size and the time that the journal has.
"""

import contextlib
import errno
import os
import stat
from dataclasses import dataclass
from typing import Literal

from modeling.names import text_to_path
from orchestrator.sorting.copying import Copy, UnfitError, copy_file, name_once, same_content, temporary_of
from orchestrator.sorting.lines import Before, Copied, Head, SortedFile
from orchestrator.sorting.words import Mode

_COARSEST_NS = 2 * 10**9

State = Literal["open", "done", "both", "changed", "gone"]
"""open: not done, or undone. both: moved, and still at its place too. changed: what is at the target is not the sort's,
or was changed, or its place is taken. gone: it is at neither."""


@dataclass(frozen=True)
class Places:
    """Where a file comes from and goes to. sort: the mark of its sort."""

    source: str
    target: str
    sort: str
    row: int
    before: Before | None
    copied: Copied | None = None

    @property
    def temporary(self) -> str:
        """The name of a copy at the target that is not whole."""
        return temporary_of(self.target, self.sort, self.row)

    @property
    def temporary_back(self) -> str:
        """The same of a copy that goes back."""
        return temporary_of(self.source, self.sort, self.row)


def places_of(head: Head, folder: str, entry: SortedFile, copied: Copied | None) -> Places:
    source = f"{text_to_path(head.root)}/{entry.source}"
    return Places(source, f"{folder}/{entry.target}", head.mark, entry.row, entry.before, copied)


def state_of(mode: Mode, places: Places) -> State:
    """How far a file is."""
    if mode == "link":
        return _state_of_link(places)
    target, source = _lstat(places.target), _lstat(places.source)
    return _state_of_copy(places, target) if mode == "copy" else _state_of_move(places, target, source)


def _state_of_link(places: Places) -> State:
    try:
        return "done" if os.readlink(places.target) == places.source else "changed"
    except FileNotFoundError:
        return "open"
    except OSError as err:
        if err.errno == errno.ENOTDIR:
            return "open"
        if err.errno != errno.EINVAL:  # no link
            raise
        return "changed"


def _state_of_copy(places: Places, target: os.stat_result | None) -> State:
    if target is None:
        return "open"
    if places.copied is not None:
        return "done" if _is_copied(target, places.copied) else "changed"
    return "done" if _is_about(target, places.before) and _same(places) else "changed"


def _state_of_move(places: Places, target: os.stat_result | None, source: os.stat_result | None) -> State:
    if target is None:
        return "gone" if source is None else "open"
    is_own = _is_copied(target, places.copied) if places.copied else _is_before(target, places.before)
    if source is None:
        return "done" if is_own else "changed"
    if os.path.samestat(target, source):
        return "both"
    is_own = is_own or _is_about(target, places.before)
    return "both" if is_own and stat.S_ISREG(source.st_mode) and _same(places) else "changed"


def _is_copied(facts: os.stat_result, copied: Copied) -> bool:
    return stat.S_ISREG(facts.st_mode) and (facts.st_size, facts.st_mtime_ns) == (copied.size, copied.mtime_ns)


def _is_before(facts: os.stat_result, before: Before | None) -> bool:
    assert before is not None
    return stat.S_ISREG(facts.st_mode) and (facts.st_size, facts.st_mtime_ns) == (before.size, before.mtime_ns)


def _is_about(facts: os.stat_result, before: Before | None) -> bool:
    """The same where the file system may keep times in steps of two seconds, as FAT does."""
    assert before is not None
    near = abs(facts.st_mtime_ns - before.mtime_ns) <= _COARSEST_NS
    return stat.S_ISREG(facts.st_mode) and facts.st_size == before.size and near


def _same(places: Places) -> bool:
    return same_content(places.source, places.target)


def _lstat(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


# Doing


def make_link(places: Places) -> None:
    os.symlink(places.source, places.target)


def make_copy(places: Places, *, verified: bool) -> Copied:
    """Raises FileExistsError or OSError; nothing is at the target then."""
    assert places.before is not None
    made = copy_file(Copy(places.source, places.target, places.temporary, places.before, places.before, verified))
    return Copied(places.row, made.st_size, made.st_mtime_ns)


def move(places: Places) -> Copied | None:
    """Move a file within a file system; to another one it is copied, and `remove_moved` is to follow.

    Raises as `make_copy` does.
    """
    if not _is_before(os.lstat(places.source), places.before):
        raise UnfitError("changed")
    try:
        name_once(places.source, places.target)
    except OSError as err:
        if err.errno != errno.EXDEV:
            raise
        return make_copy(places, verified=True)
    return None


def remove_moved(places: Places) -> None:
    """Remove a file that is at the target, too, on the disk.

    Raises UnfitError where it was changed meanwhile, PermissionError; the target is free then.
    """
    source = _lstat(places.source)
    if source is None:
        return
    try:
        if not _is_before(source, places.before):
            raise UnfitError("changed")
        os.unlink(places.source)
    except (UnfitError, PermissionError):
        os.unlink(places.target)
        raise


# Undoing


def remove_copy_remains(mode: Mode, places: Places) -> None:
    """Remove what a killed process left of a copy; in the source only where it was moved from there."""
    for temporary in {"link": (), "copy": (places.temporary,), "move": (places.temporary, places.temporary_back)}[mode]:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(temporary)


def move_back(places: Places) -> bool:
    """Move a file back to its free place; False where it was copied, since that is on another file system."""
    os.makedirs(os.path.dirname(places.source), exist_ok=True)
    try:
        name_once(places.target, places.source)
    except OSError as err:
        if err.errno != errno.EXDEV:
            raise
    else:
        return True
    assert places.before is not None
    expected = Before.of(os.lstat(places.target))
    copy_file(Copy(places.target, places.source, places.temporary_back, expected, places.before, verified=True))
    return False


def remove_returned(places: Places, expected: Before) -> None:
    """Remove a file that is at its place again, on the disk. expected: how it was when it went back.

    Raises UnfitError where it was changed meanwhile: it stays then, beside what went back.
    """
    if Before.of(os.lstat(places.target)) != expected:
        raise UnfitError("changed")
    os.unlink(places.target)
