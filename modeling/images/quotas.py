"""How many processors and how much memory this process may use.

The answers count the machine, the affinity, and the quotas of control groups (cgroups, version 1 and 2) of this process
and all parents that are visible: in a container, those of the container.
"""

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_PROC = Path("/proc")
_ESCAPES = {"\\040": " ", "\\011": "\t", "\\012": "\n", "\\134": "\\"}  # of /proc/self/mountinfo


def num_cores() -> int:
    """Threads that use all of the allowed time: part of a core counts as one."""
    cores, quota = num_affine_cores(), cpu_quota()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def num_affine_cores() -> int:
    """Cores that this process may run on, whatever its quota."""
    return len(os.sched_getaffinity(0))


def cpu_quota(proc: Path = _PROC) -> float | None:
    """Cores' worth of processor time that the control groups allow, the least of all parents; None: no limit."""
    return min((quota for group in _groups("cpu", proc) if (quota := group.cpu()) is not None), default=None)


def limit_threads(environment: Mapping[str, str]) -> dict[str, str]:
    """The variable that limits the threads of numerical libraries to the quota, for the environment of a process.

    Empty where there is none, or the operator has set it: these libraries heed the affinity themselves.
    """
    if "OMP_NUM_THREADS" in environment or num_cores() == num_affine_cores():
        return {}
    return {"OMP_NUM_THREADS": str(num_cores())}


def memory_quota(proc: Path = _PROC) -> int | None:
    """Bytes that the control groups allow, the least of all parents; None: no limit that is below the machine's."""
    limits = (group.memory_limit() for group in _groups("memory", proc))
    least = min((limit for limit in limits if limit is not None), default=None)
    return None if least is None or least >= _machine_memory("MemTotal", proc) else least


def memory_total(proc: Path = _PROC) -> int:
    """Bytes that this process and its neighbours in the control group may use."""
    return memory_quota(proc) or _machine_memory("MemTotal", proc)


def memory_left(proc: Path = _PROC) -> int:
    """Bytes that this process can still take: of the machine, and of each control group. Cached files count as free."""
    left = [_machine_memory("MemAvailable", proc)]
    for group in _groups("memory", proc):
        if (limit := group.memory_limit()) is not None:
            left.append(limit - group.memory_used())
    return max(0, min(left))


def memory_used(proc: Path = _PROC) -> int:
    """Bytes of memory that this process holds; 0 where that is hidden."""
    try:
        return int((proc / "self/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


def describe_cores() -> str:
    """The cores for people, and what limits them."""
    cores, quota = num_affine_cores(), cpu_quota()
    text = f"{cores} core{'s' if cores > 1 else ''}"
    return text if quota is None or quota >= cores else f"{text}, limited to {quota:g} by the quota of a cgroup"


def describe_memory() -> str:
    """The memory for people, and what limits it."""
    quota = memory_quota()
    text = f"{_machine_memory('MemTotal', _PROC) / 1e9:.1f} GB memory"
    return text if quota is None else f"{text}, limited to {quota / 1e9:.1f} GB by the quota of a cgroup"


@dataclass(frozen=True, slots=True)
class _Group:
    """The folder of a control group, and the version of its files."""

    folder: Path
    version: int

    def cpu(self) -> float | None:
        """Cores' worth of time; None for `max` and -1, which are not limits."""
        if self.version == 2:
            quota, _, period = self._read("cpu.max").partition(" ")
        else:
            quota, period = self._read("cpu.cfs_quota_us"), self._read("cpu.cfs_period_us")
        return int(quota) / int(period) if _is_positive(quota) and _is_positive(period) else None

    def memory_limit(self) -> int | None:
        """Bytes; None for `max`. Version 1 has no word for that: its number is larger than any machine."""
        names = ("memory.max", "memory.high") if self.version == 2 else ("memory.limit_in_bytes",)
        limits = [int(text) for name in names if (text := self._read(name)).isdecimal()]
        return min(limits, default=None)

    def memory_used(self) -> int:
        """Bytes in use without the cached files that the kernel drops first, as Kubernetes counts them."""
        used = self._read("memory.current" if self.version == 2 else "memory.usage_in_bytes")
        inactive = "inactive_file " if self.version == 2 else "total_inactive_file "
        cached = (line for line in self._read("memory.stat").splitlines() if line.startswith(inactive))
        return (int(used) if used.isdecimal() else 0) - sum(int(line.rpartition(" ")[2]) for line in cached)

    def _read(self, name: str) -> str:
        try:
            return (self.folder / name).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            return ""


def _is_positive(text: str) -> bool:
    return text.isdecimal() and int(text) > 0


def _machine_memory(name: str, proc: Path) -> int:
    """MemTotal or MemAvailable of /proc/meminfo in bytes; roughly, where that is hidden from this process."""
    try:
        with (proc / "meminfo").open(encoding="utf-8") as lines:
            return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:"))
    except (OSError, StopIteration):
        pages = "SC_PHYS_PAGES" if name == "MemTotal" else "SC_AVPHYS_PAGES"
        return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")


def _groups(controller: str, proc: Path) -> Iterator[_Group]:
    """The control groups of this process that have this controller, from its own up to the top of what is mounted."""
    try:
        groups = (proc / "self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
        mounts = (proc / "self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    paths = _paths(groups, controller)
    for mount in mounts:
        before, _, after = mount.partition(" - ")
        fields, (kind, _, options) = before.split(), (after.split() + [""] * 3)[:3]
        version = 2 if kind == "cgroup2" else 1 if kind == "cgroup" and controller in options.split(",") else 0
        if version in paths and len(fields) > 4:
            for folder in _upwards(Path(_unescaped(fields[4])), _unescaped(fields[3]), paths[version]):
                yield _Group(folder, version)


def _paths(groups: list[str], controller: str) -> dict[int, str]:
    """The path of the process's control group by version: that of the controller, and that of version 2."""
    found = {}
    for line in groups:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            found[2] = path
        elif controller in controllers.split(","):
            found[1] = path
    return found


def _upwards(mounted_at: Path, root: str, path: str) -> Iterator[Path]:
    """The folders of the group `path` and of its parents, where the group `root` is mounted.

    A path that is not below the root belongs to another namespace: then only the root is visible.
    """
    below = PurePosixPath(path)
    inside = below.relative_to(root) if below.is_relative_to(root) and ".." not in below.parts else PurePosixPath()
    yield mounted_at / inside
    for parent in inside.parents:
        yield mounted_at / parent


def _unescaped(text: str) -> str:
    for escape, char in _ESCAPES.items():
        text = text.replace(escape, char)
    return text
