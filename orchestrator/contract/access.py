"""What the system refused, in one line: the path, whose it is, and what to do."""

import errno
import grp
import os
import pwd
import stat
from pathlib import Path, PurePath

from modeling.errors import takes_no_writes

_NO_RIGHT = {errno.EACCES, errno.EPERM}
_CURES = {
    errno.ENOSPC: "free some space, or use another disk",
    errno.EDQUOT: "delete something, or ask for a larger quota",
    errno.EFBIG: "raise the limit of `ulimit -f`, or use a file system that holds larger files",
    errno.EROFS: "the file system is mounted read-only; mount it for writing, or use another",
    errno.ENOLCK: "the file system gives no locks; mount it with locks (docs/machines.md)",
    errno.ESTALE: "the file server was restarted, or the file replaced; try again",
    errno.EIO: "check that disk; `pigeonhole doctor` tests the home",
}


def explain_os_error(err: OSError) -> str | None:
    """One line on an error of the system; None where it says nothing that an operator could use."""
    if not err.strerror:
        return None
    if err.filename is None:
        return _without_path(err)
    path = os.fsdecode(err.filename)
    if err.errno in _NO_RIGHT:
        return f"{err.strerror}: {describe_access(path)}"
    cure = _CURES.get(err.errno or 0)
    return f"{err.strerror}: {path!r}" + (f"; {cure}" if cure else "")


def explain_refused_write(err: OSError, folder: Path) -> str:
    """One line on an error while something was written to `folder` and perhaps read elsewhere."""
    if err.filename is None and takes_no_writes(err):  # as writing to an open file raises it
        err.filename = str(folder)
    return explain_os_error(err) or str(err)


def describe_access(path: str) -> str:
    """Whose the file or folder is that keeps this process from `path`, and the cure."""
    place = _barrier(path)
    try:
        facts = Path(place).stat()
    except OSError:
        return repr(path)
    leading = f", in {place!r}, which" if place != os.path.abspath(path) else ""  # noqa: PTH100 as in _barrier
    owner, group = user_name(facts.st_uid), _group_name(facts.st_gid)
    mode = stat.S_IMODE(facts.st_mode)
    whose = f"belongs to {owner} (group {group}, mode {mode:04o}), and this is {user_name(os.geteuid())}"
    return f"{path!r}{leading} {whose}; ask {owner} for access, or run as a user who has it"


def user_name(uid: int) -> str:
    """The name of a user, or the number of one without a name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _barrier(path: str) -> str:
    """What refuses: the first folder on the way that may not be entered, else the path itself, else its folder."""
    try:
        full = os.path.abspath(path)  # noqa: PTH100 links are kept: the operator's own name
    except OSError:
        return path  # the present folder is gone
    for folder in map(str, reversed(PurePath(full).parents)):
        if not os.access(folder, os.X_OK, effective_ids=True):
            return folder
    wanted = os.R_OK | os.W_OK | (os.X_OK if os.path.isdir(full) else 0)  # noqa: PTH112
    closed = os.path.lexists(full) and not os.access(full, wanted, effective_ids=True)
    return full if closed else os.path.dirname(full)  # noqa: PTH120


def _without_path(err: OSError) -> str | None:
    """An error without a path: a present folder that was deleted, or a disk."""
    if err.errno == errno.ENOENT and not present_folder_exists():
        return "the present folder was deleted; change to one that exists"
    if err.errno in _CURES:
        return f"{err.strerror}; {_CURES[err.errno]}"
    return None


def present_folder_exists() -> bool:
    """Whether the present folder was not deleted."""
    try:
        os.getcwd()  # noqa: PTH109
    except OSError:
        return False
    return True
