"""The cores that this process may use: those of its affinity, as far as the quotas of its cgroups allow."""

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

_PROC = Path("/proc/self")
_ESCAPES = {"\\040": " ", "\\011": "\t", "\\012": "\n", "\\134": "\\"}  # of /proc/self/mountinfo


def num_cores() -> int:
    """Threads that use all of the allowed time: part of a core counts as one."""
    cores, quota = num_affine_cores(), cpu_quota()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def num_affine_cores() -> int:
    """Cores that this process may run on, whatever its quota."""
    return len(os.sched_getaffinity(0))


def cpu_quota(proc: Path = _PROC) -> float | None:
    """Cores' worth of processor time that the cgroups of this process allow, the least of all parents; None: no limit.

    Both versions of cgroups count. Parents outside of a container are not visible.
    """
    return min(_quotas(proc), default=None)


def limit_threads(environment: Mapping[str, str]) -> dict[str, str]:
    """The variable that limits the threads of numerical libraries in a child process to the quota.

    Empty where there is none, or the operator has set it: these libraries heed the affinity themselves.
    """
    if "OMP_NUM_THREADS" in environment or num_cores() == num_affine_cores():
        return {}
    return {"OMP_NUM_THREADS": str(num_cores())}


def _quotas(proc: Path) -> Iterator[float]:
    """The limit of each cgroup from that of the process up to the top of what is mounted."""
    try:
        groups = (proc / "cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
        mounts = (proc / "mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    paths = _paths(groups)
    for mount in mounts:
        before, _, after = mount.partition(" - ")
        fields, (kind, _, options) = before.split(), (after.split() + [""] * 3)[:3]
        version = 2 if kind == "cgroup2" else 1 if kind == "cgroup" and "cpu" in options.split(",") else 0
        if version in paths and len(fields) > 4:
            read = _read_v2 if version == 2 else _read_v1
            for folder in _upwards(Path(_unescaped(fields[4])), _unescaped(fields[3]), paths[version]):
                if (quota := read(folder)) is not None:
                    yield quota


def _paths(groups: list[str]) -> dict[int, str]:
    """The path of the process's cgroup by version: that of the controller `cpu`, and that of version 2."""
    found = {}
    for line in groups:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            found[2] = path
        elif "cpu" in controllers.split(","):
            found[1] = path
    return found


def _upwards(mounted_at: Path, root: str, path: str) -> Iterator[Path]:
    """The folders of the cgroup `path` and of its parents, where the cgroup `root` is mounted.

    A path that is not below the root belongs to another namespace: then only the root is visible.
    """
    below = PurePosixPath(path)
    inside = below.relative_to(root) if below.is_relative_to(root) and ".." not in below.parts else PurePosixPath()
    yield mounted_at / inside
    for parent in inside.parents:
        yield mounted_at / parent


def _read_v2(folder: Path) -> float | None:
    quota, _, period = _read(folder / "cpu.max").partition(" ")
    return _share(quota, period)


def _read_v1(folder: Path) -> float | None:
    return _share(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _share(quota: str, period: str) -> float | None:
    """Microseconds a period as cores; None for `max` and -1, which are no limits."""
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() and int(quota) and int(period) else None


def _unescaped(text: str) -> str:
    for escape, char in _ESCAPES.items():
        text = text.replace(escape, char)
    return text
