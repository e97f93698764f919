"""What a command or a function takes, each in a process of its own: seconds, those of processors, and memory."""

import multiprocessing
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.workers import COMMAND


@dataclass(frozen=True)
class Spent:
    """rss_mb: the largest memory of the process."""

    seconds: float
    processor_s: float
    rss_mb: float

    @classmethod
    def of(cls, seconds: float, processor_s: float, rss_kib: int) -> "Spent":
        return cls(round(seconds, 2), round(processor_s, 2), round(rss_kib / 1024, 1))


@dataclass
class Command:
    """A `pigeonhole` command while it runs. log: gets what it says on standard error."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    log: int = subprocess.DEVNULL
    process: "subprocess.Popen[bytes]" = field(init=False)

    def __post_init__(self) -> None:
        self._started = time.perf_counter()
        self.process = subprocess.Popen(
            [*COMMAND, *self.arguments],
            env=os.environ | dict(self.environment),
            stdout=subprocess.PIPE,
            stderr=self.log,
        )

    def end(self) -> tuple[str, Spent]:
        """Wait for its end; what it printed, and took. It must succeed."""
        assert self.process.stdout is not None
        with self.process.stdout as stdout:
            text = stdout.read().decode()
        _, status, used = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        assert self.process.returncode == 0, f"{self.arguments}: exit {self.process.returncode}"
        return text, Spent.of(time.perf_counter() - self._started, used.ru_utime + used.ru_stime, used.ru_maxrss)


def in_process(function: Callable[..., Any], *arguments: Any) -> tuple[Any, Spent]:
    """Call a function in a process of its own; what it returned and took."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        found: tuple[Any, Spent] = pool.submit(_measured, function, arguments).result()
    return found


def _measured(function: Callable[..., Any], arguments: Sequence[Any]) -> tuple[Any, Spent]:
    started, processor_started = time.perf_counter(), time.process_time()
    found = function(*arguments)
    seconds, processor_s = time.perf_counter() - started, time.process_time() - processor_started
    return found, Spent.of(seconds, processor_s, _peak_kib())


def _peak_kib() -> int:
    """The most memory of this program. Not ru_maxrss: that is at least the memory of the process that started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
