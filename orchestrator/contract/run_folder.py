"""A worker's folder for temporary files: it goes when the worker ends, and after one that was killed with the next."""

import atexit
import contextlib
import fcntl
import json
import os
import shutil
import tempfile
import time
from functools import cache
from pathlib import Path

PREFIX = "pigeonhole-run-"
START_FILE = "start.json"  # namespace of the worker's pid, and when it began, by the monotonic clock
_NEW_PREFIX = f"new-{PREFIX}"  # until it is locked
_LONGEST_SOCKET_PATH = 107  # bytes, of the kernel
_SOCKET_BELOW = len("/pymp-12345678/listener-12345678")  # as billiard names one in the folder of temporary files


@cache
def own_run_folder() -> Path:
    """The folder of this process for all of its temporary files, made by the first call; it goes when the process ends.

    Folders of killed workers are removed. Call it before libraries make temporary files, which they remove at the end.
    """
    remove_abandoned()
    new = Path(tempfile.mkdtemp(prefix=_NEW_PREFIX))
    with contextlib.suppress(OSError):  # a full disk is said by what needs it
        (new / START_FILE).write_text(json.dumps([own_processes(), time.monotonic()]), encoding="utf-8")
    fcntl.flock(os.open(new, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), fcntl.LOCK_EX)  # open until the process ends
    folder = new.rename(new.with_name(new.name.removeprefix("new-")))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    use_run_folder(folder)
    return folder


def own_processes() -> str:
    """The namespace of this process's pid: containers may share a folder of temporary files."""
    return str(Path("/proc/self/ns/pid").readlink())


def machine_folder() -> Path:
    """The folder of temporary files that this process was started with: others on this machine find there what is not
    its own alone.
    """
    return own_run_folder().parent


def use_run_folder(folder: Path) -> None:
    """Temporary files of this process and of those that it starts go into a run folder."""
    if len(os.fsencode(folder)) + _SOCKET_BELOW <= _LONGEST_SOCKET_PATH:
        tempfile.tempdir = os.environ["TMPDIR"] = str(folder)


def remove_abandoned() -> None:
    """Remove the folders of this user's workers that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue  # another user's, or gone meanwhile
        try:
            if os.fstat(descriptor).st_uid == os.getuid():
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            pass  # its worker lives
        finally:
            os.close(descriptor)
