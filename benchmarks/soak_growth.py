"""Whether the processes of a soak grow: samples of their memory, files, descriptors and threads, and what these show.

Growth is measured in two ways for each kind of process. `slope`: by a line through the samples of each process, from
the end of its warm-up on, with one slope for all processes of the kind. `later`: restarted processes are compared by
their peaks soon after the start: do those that start late in the run need more than those that started early? A third
is shown: `settled`, the slope of processes that are older than `SETTLED_S`. What grows ever more slowly (an allocator,
caches of a library) has a smaller one than in its first minutes, and a leak the same.
"""

import ctypes
import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

EVERY_S = 5.0
BLOCK_S = 60.0  # neighbouring samples are no independent observations; medians of a minute nearly are
YOUNG_S = 90.0  # restarted processes are compared at this age
SETTLED_S = 1200.0
HOUR_S = 3600.0
SURE = 3.0  # standard errors above zero: less may be chance
# What a process may grow by in an hour and count as flat: this share of its median, but at least so much. Threads are
# only shown: pools start theirs when they need them, up to a bound.
SHARE = 0.05
LEAST = {"rss_mb": 4.0, "descriptors": 2.0, "files": 1.0, "threads": float("inf")}
ONE_TASK = ("training",)  # goes through the phases of one piece of work: only compared with later ones
SERVES = ("server",)  # its descriptors are its clients' connections, who have more of them the longer they live


@dataclass(frozen=True)
class Sample:
    """One process at one moment. at_s: from the start of the soak; age_s: from the start of the process."""

    at_s: float
    kind: str
    pid: int
    age_s: float
    rss_mb: float
    descriptors: int
    files: int
    threads: int


@dataclass(frozen=True)
class Slope:
    """A growth in an hour with its standard error; None where there is too little to tell."""

    per_hour: float
    error: float


def kind_of_child(command: Sequence[str]) -> str:
    """What a process below a worker's parent does."""
    text = " ".join(command)
    if "modeling.training" in text:
        return "training"
    if "spawn_main" in text:
        return "worker child"
    return "tracker" if "tracker" in text else "other child"


def sample(kind: str, process: psutil.Process, started: float) -> Sample | None:
    """One process now; None where it has ended. started: `time.time()` of the soak's start."""
    try:
        with process.oneshot():
            now = time.time()
            return Sample(
                round(now - started, 1), kind, process.pid, round(now - process.create_time(), 1),
                round(process.memory_info().rss / 1e6, 2), process.num_fds(), len(process.open_files()),
                process.num_threads(),
            )  # fmt: skip
    except (psutil.Error, OSError):
        return None


class Sampler(threading.Thread):
    """Writes samples of all processes into a file every few seconds."""

    def __init__(self, path: Path, processes: Callable[[], Iterable[tuple[str, psutil.Process]]]) -> None:
        """processes: those that live now, with their kinds."""
        super().__init__(name="sampler", daemon=True)
        self._path, self._processes = path, processes
        self.stopping = threading.Event()

    def run(self) -> None:
        """Sample until `stopping` is set."""
        started = time.time()
        with self._path.open("w") as file:
            while not self.stopping.wait(EVERY_S):
                _give_back_free_memory()
                taken = (sample(kind, process, started) for kind, process in self._processes())
                file.writelines(json.dumps(asdict(each)) + "\n" for each in taken if each is not None)
                file.flush()


def _give_back_free_memory() -> None:
    """What the C library holds free in this process goes back to the system.

    This process submits, forwards the bytes of every connection in threads of their own, and judges: it is none of
    Pigeonhole's. Its heap has holes, some 5 MB after a hundred jobs, and what it has in use does not grow.
    """
    ctypes.CDLL(None).malloc_trim(0)


def read_samples(path: Path) -> list[Sample]:
    """What a sampler has written."""
    return [Sample(**json.loads(line)) for line in path.read_text().splitlines()]


def growth(
    samples: Iterable[Sample], warm_up_s: float, *, calm_s: float = 0.0, kept_mb: Mapping[str, float] | None = None
) -> dict[str, dict[str, Any]]:
    """For each kind of process, its number, its longest life, and the growth of each figure.

    warm_up_s: of a process. calm_s: from when on nobody is killed: slopes are of the time after it. kept_mb: what a
    kind is meant to hold more after an hour.
    """
    kinds: dict[str, dict[int, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for each in samples:
        kinds[each.kind][each.pid].append(each)
    return {
        kind: _growth_of_kind(
            kind, list(processes.values()), float("inf") if kind in ONE_TASK else warm_up_s, calm_s,
            (kept_mb or {}).get(kind, 0.0),
        )
        for kind, processes in sorted(kinds.items())
    }  # fmt: skip


def _growth_of_kind(
    kind: str, processes: Sequence[Sequence[Sample]], warm_up_s: float, calm_s: float, kept_mb: float
) -> dict[str, Any]:
    warm = [[each for each in process if each.age_s >= warm_up_s and each.at_s >= calm_s] for process in processes]
    settled = [[each for each in process if each.age_s >= SETTLED_S] for process in warm]
    figures: dict[str, Any] = {
        "processes": len(processes), "longest_life_s": max(process[-1].age_s for process in processes),
        "kept_mb_per_hour": round(kept_mb, 2),
        "warm_minutes": round(sum(len(_blocks(process, "rss_mb")[0]) for process in warm) * BLOCK_S / 60),
    }  # fmt: skip
    for name, least in LEAST.items():
        everything = [getattr(each, name) for process in processes for each in process]
        slope, later = slope_within(warm, name), slope_between(processes, name)
        if kind in SERVES and name == "descriptors":
            later = None
        allowed = max(least, SHARE * float(np.median(everything))) + (kept_mb if name == "rss_mb" else 0.0)
        figures[name] = {
            "median": round(float(np.median(everything)), 1), "peak": max(everything),
            "slope_per_hour": _shown(slope), "settled_per_hour": _shown(slope_within(settled, name)),
            "later_per_hour": _shown(later),
            "flat": not _grows(slope, allowed) and not _grows(later, allowed),
        }  # fmt: skip
    return figures


def slope_within(processes: Iterable[Sequence[Sample]], name: str) -> Slope | None:
    """The growth of a figure with the age of its process, one slope for all processes."""
    parts = [_blocks(process, name) for process in processes]
    parts = [part for part in parts if len(part[0]) >= 2]
    if not parts:
        return None
    ages = np.concatenate([ages - ages.mean() for ages, _ in parts])
    values = np.concatenate([values - values.mean() for _, values in parts])
    return _fit(ages, values, len(ages) - len(parts) - 1)


def slope_between(processes: Iterable[Sequence[Sample]], name: str) -> Slope | None:
    """The growth of what restarted processes need soon after their start, with the time of their start."""
    young = [found for process in processes if (found := [each for each in process if each.age_s <= YOUNG_S])]
    if not young:
        return None
    lived_s = min(YOUNG_S, float(np.median([process[-1].age_s for process in young]))) / 2  # the peak comes by then
    young = [process for process in young if process[0].age_s <= YOUNG_S / 2 and process[-1].age_s >= lived_s]
    if len(young) < 3:
        return None
    starts = np.asarray([process[0].at_s - process[0].age_s for process in young])
    peaks = np.asarray([max(getattr(each, name) for each in process) for process in young], np.float64)
    return _fit(starts - starts.mean(), peaks - peaks.mean(), len(young) - 2)


def _blocks(process: Sequence[Sample], name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ages and medians of the figure, for each whole minute of samples."""
    minutes: dict[int, list[Sample]] = defaultdict(list)
    for each in process:
        minutes[int(each.age_s // BLOCK_S)].append(each)
    whole = [block for block in minutes.values() if len(block) >= BLOCK_S / EVERY_S / 2]
    ages = np.asarray([np.mean([each.age_s for each in block]) for block in whole], np.float64)
    return ages, np.asarray([np.median([getattr(each, name) for each in block]) for block in whole], np.float64)


def _fit(times_s: NDArray[np.float64], values: NDArray[np.float64], freedom: int) -> Slope | None:
    """Least squares through the origin. None where a line leaves no freedom to estimate its error."""
    spread = float((times_s**2).sum())
    if freedom < 1 or spread == 0:
        return None
    slope = float((times_s * values).sum()) / spread
    variance = float(((values - slope * times_s) ** 2).sum()) / freedom
    return Slope(slope * HOUR_S, float(np.sqrt(variance / spread)) * HOUR_S)


def _grows(slope: Slope | None, allowed: float) -> bool:
    """Whether it is more than is allowed, and not by chance."""
    return slope is not None and slope.per_hour > allowed and slope.per_hour > SURE * slope.error


def _shown(slope: Slope | None) -> list[float] | None:
    """The slope and its standard error."""
    return None if slope is None else [round(slope.per_hour, 2), round(slope.error, 2)]


def growing(figures: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What is not flat."""
    return [
        f"{kind}: {name} grows: {facts[name]}"
        for kind, facts in figures.items()
        for name in LEAST
        if not facts[name]["flat"]
    ]
