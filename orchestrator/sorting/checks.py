"""What is checked before a sort changes anything."""

import errno
import os
from pathlib import Path

from modeling.names import path_to_text
from orchestrator.contract.errors import UsageError
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
    if _is_within(folder, str(home)):
        raise UsageError(f"the target {shown!r} lies in the home {str(home)!r}; name another")
    if os.path.isdir(wanted.root):
        _check_source(wanted)


def check_writable(wanted: Wanted) -> None:
    """Raises OSError where the system says that nothing can be made in the target; nothing is tried."""
    place = wanted.folder if os.path.isdir(wanted.folder) else os.path.dirname(wanted.folder)
    if os.statvfs(place).f_flag & os.ST_RDONLY:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), place)
    if not os.access(place, os.W_OK | os.X_OK):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), place)


def _check_source(wanted: Wanted) -> None:
    shown, source = path_to_text(wanted.folder), path_to_text(wanted.root)
    if _is_within(wanted.folder, wanted.root):
        raise UsageError(f"the target {shown!r} lies in the source {source!r}, which is not written to; name another")
    if os.path.isdir(wanted.folder) and _is_within(wanted.root, wanted.folder):
        raise UsageError(f"the source {source!r} lies in the target {shown!r}; name another target")
    if wanted.mode == "move" and not os.access(wanted.root, os.W_OK | os.X_OK):
        raise UsageError(
            f"nothing can be moved out of {source!r}: this user may not write to it, or it is mounted read-only; "
            "use --link or --copy"
        )


def _is_within(path: str, folder: str) -> bool:
    """Whether a path, which need not exist, is a folder or lies below it, also where that is mounted twice."""
    if not os.path.isdir(folder):
        return False
    wanted, place = os.stat(folder), os.path.realpath(path)
    while True:
        if os.path.exists(place) and os.path.samestat(os.stat(place), wanted):
            return True
        if place == os.path.dirname(place):
            return False
        place = os.path.dirname(place)
