"""Which device a worker holds. Torch is not used: the process that asks never imports it."""

import fcntl
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from orchestrator.contract.devices import list_gpus
from orchestrator.contract.errors import UnavailableError, UsageError
from orchestrator.contract.run_folder import machine_folder


@dataclass(frozen=True)
class Device:
    """A device, or several GPUs that train together, and what makes them visible to the pool child."""

    name: str  # as the operator names it: cpu, cuda:1, cuda:0,1
    torch_name: str  # the first one, as the pool child names it, which sees only these: cpu, cuda:0
    visible: str | None  # CUDA_VISIBLE_DEVICES
    locks: tuple[IO[str], ...] = ()  # held open while the worker lives


def take_device(wanted: str, *, gpus: list[int] | None = None, locks: Path | None = None) -> Device:
    """Take the device that `wanted` names: auto (a free GPU, else the CPU), cpu, cuda:N, or several as cuda:N,M.

    Several GPUs train one model together; everything else runs on the first of them. A GPU is taken by a lock file, so
    several workers of one user started with `auto` take one each. Raises UsageError if there is no such device,
    UnavailableError if other workers hold it.
    """
    gpus = list_gpus() if gpus is None else gpus
    if wanted == "cpu" or (wanted == "auto" and not gpus):
        return Device("cpu", "cpu", visible="")
    choices = [[gpu] for gpu in gpus] if wanted == "auto" else [_numbers(wanted)]
    named = sorted({gpu for choice in choices for gpu in choice})
    if missing := set(named) - set(gpus):
        raise UsageError(f"there is no GPU {min(missing)} here; this machine has {gpus or 'none'}")
    for choice in choices:
        if held := _lock_all(locks or _lock_folder(), choice):
            visible = ",".join(map(str, choice))
            return Device(f"cuda:{visible}", "cuda:0", visible, held)
    raise UnavailableError(
        f"other workers hold GPU {', '.join(map(str, named))}; stop one, or start this one with --device cpu"
    )


def _numbers(wanted: str) -> list[int]:
    """The indices of the GPUs in a name such as cuda:0,1."""
    numbers = wanted.removeprefix("cuda:").split(",")
    if not wanted.startswith("cuda:") or not all(number.isdecimal() for number in numbers):
        raise UsageError(f"--device {wanted!r} is not one of auto, cpu, cuda:N, cuda:N,M,...")
    return sorted({int(number) for number in numbers})


def _lock_all(folder: Path, gpus: list[int]) -> tuple[IO[str], ...]:
    """The lock files of all these GPUs, locked; empty where another process holds one of them."""
    held: list[IO[str]] = []
    for gpu in gpus:
        lock = _try_lock(folder, gpu)
        if lock is None:
            for other in held:
                other.close()
            return ()
        held.append(lock)
    return tuple(held)


def _lock_folder() -> Path:
    """Locks belong to this machine, unlike PIGEONHOLE_HOME, which many machines share."""
    return machine_folder() / f"pigeonhole-{os.getuid()}"


def _try_lock(folder: Path, gpu: int) -> IO[str] | None:
    """The lock file of a GPU, locked; None where another process holds it.

    All users may write to the parent folder: so this folder must be ours alone, and no link in it is followed.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o022:
        raise UnavailableError(f"{folder} belongs to another user, or others may write to it; remove it, or set TMPDIR")
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(folder / f"cuda-{gpu}.lock", flags, 0o600)
    file = open(descriptor, "r+", encoding="utf-8")  # noqa: SIM115 held while the worker lives
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
