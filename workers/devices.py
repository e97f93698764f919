"""Which device a worker holds. Torch stays out of it: the process that asks never imports it."""

import fcntl
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from orchestrator.contract.devices import list_gpus
from orchestrator.contract.errors import UnavailableError, UsageError


@dataclass(frozen=True)
class Device:
    """A device and what its child process needs to see it."""

    name: str  # as the operator says it: cpu, cuda:1
    torch_name: str  # as the child, which sees only this one, says it: cpu, cuda:0
    visible: str | None  # CUDA_VISIBLE_DEVICES
    lock: IO[str] | None = None  # held open while the worker lives


def take_device(wish: str, *, gpus: list[int] | None = None, locks: Path | None = None) -> Device:
    """Take the device that `wish` names: auto (a free GPU, else the CPU), cpu or cuda:N.

    A GPU is taken by a lock file, so several workers of one user started with `auto` take one each.

    Raises:
        UsageError: if there is no such device.
        UnavailableError: if other workers hold it.
    """
    gpus = list_gpus() if gpus is None else gpus
    if wish == "cpu" or (wish == "auto" and not gpus):
        return Device("cpu", "cpu", visible="")
    if wish == "auto":
        candidates = gpus
    elif wish.startswith("cuda:") and wish[5:].isdecimal():
        candidates = [int(wish[5:])]
    else:
        raise UsageError(f"--device {wish!r} is none of auto, cpu, cuda:N")
    if missing := set(candidates) - set(gpus):
        raise UsageError(f"there is no GPU {min(missing)} here; this machine has {gpus or 'none'}")
    for gpu in candidates:
        lock = _try_lock(locks or _lock_folder(), gpu)
        if lock is not None:
            return Device(f"cuda:{gpu}", "cuda:0", visible=str(gpu), lock=lock)
    raise UnavailableError(
        f"other workers hold GPU {', '.join(map(str, candidates))}; stop one, or start this one with --device cpu"
    )


def _lock_folder() -> Path:
    """Locks are of this machine, unlike PIGEONHOLE_HOME, which many machines share."""
    return Path(tempfile.gettempdir()) / f"pigeonhole-{os.getuid()}"


def _try_lock(folder: Path, gpu: int) -> IO[str] | None:
    """The lock file of a GPU, locked; None where another process has it.

    The folder lies where anybody may write: it must be ours alone, and no link in it is followed.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o022:
        raise UnavailableError(f"{folder} belongs to another user, or others may write to it; remove it, or set TMPDIR")
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    file = open(os.open(folder / f"cuda-{gpu}.lock", flags, 0o600), "r+")  # noqa: SIM115 held while the worker lives
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
