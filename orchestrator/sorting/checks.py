"""What is checked before a sort changes anything."""

import errno
import os
from functools import lru_cache
from pathlib import Path

from modeling.names import path_to_text
from orchestrator.contract.errors import UsageError
from orchestrator.jobs.derived_outputs import is_in_source, parts_below
from orchestrator.sorting.begin import has_journal
from orchestrator.sorting.lines import is_inside
from orchestrator.sorting.manifest import SortedManifest
from orchestrator.sorting.plan import Wanted


def check_wanted(wanted: Wanted, manifest: SortedManifest, home: Path) -> None:
    """Raises UsageError where a manifest cannot be sorted so, or not into that folder."""
    if "decision" in wanted.by:
        manifest.check_decisions()
    folder, shown = wanted.folder, path_to_text(wanted.folder)
    above = os.path.dirname(folder)
    if os.path.lexists(folder) and not os.path.isdir(folder):
        raise UsageError(f"the target {shown!r} is not a folder; name another")
    if not os.path.isdir(above):
        raise UsageError(f"there is no folder {path_to_text(above)!r} for the target; make it, or name another target")
    if parts_below(folder, str(home)) is not None:
        raise UsageError(f"the target {shown!r} lies in the home {str(home)!r}; name another")
    if os.path.isdir(wanted.root):
        _check_source(wanted, manifest)


def check_writable(wanted: Wanted) -> None:
    """Raises OSError where the system says that nothing can be made in the target; nothing is tried."""
    place = wanted.folder if os.path.isdir(wanted.folder) else os.path.dirname(wanted.folder)
    if os.statvfs(place).f_flag & os.ST_RDONLY:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), place)
    if not os.access(place, os.W_OK | os.X_OK):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), place)


def _check_source(wanted: Wanted, manifest: SortedManifest) -> None:
    shown, source = path_to_text(wanted.folder), path_to_text(wanted.root)
    summary = manifest.published.summary
    if is_in_source(wanted.folder, summary):
        raise UsageError(f"the target {shown!r} lies in the source {source!r}, which is not written to; name another")
    if parts_below(wanted.folder, wanted.root) is not None and not has_journal(wanted.folder):
        _check_holds_no_image(wanted, manifest)
    if os.path.isdir(wanted.folder) and parts_below(wanted.root, wanted.folder) is not None:
        raise UsageError(f"the source {source!r} lies in the target {shown!r}; name another target")
    if wanted.mode == "move" and is_in_source(wanted.root, summary) and not os.access(wanted.root, os.W_OK | os.X_OK):
        raise UsageError(
            f"nothing can be moved out of {source!r}: this user may not write to it, or it is mounted read-only; "
            "use --link or --copy"
        )


def _check_holds_no_image(wanted: Wanted, manifest: SortedManifest) -> None:
    """Raises UsageError for a target below the root in which there are images of the manifest, such as a list names."""
    if not os.path.isdir(wanted.folder):
        return

    @lru_cache(maxsize=1 << 14)
    def is_in_target(folder: str) -> bool:
        return parts_below(f"{wanted.root}/{folder}", wanted.folder) is not None

    for _, row, _ in manifest.rows():
        if is_inside(row.path) and is_in_target(os.path.dirname(row.path)):
            shown, image = path_to_text(wanted.folder), path_to_text(row.path)
            raise UsageError(f"the target {shown!r} holds images of the manifest, such as {image!r}; name another")
