"""Decodes mutated files of every format: none may crash, hang, take too much memory, or be `ok` though Pillow fails.

`python -m benchmarks.fuzz_files [--count N] [--seed S] [--data DIR]` (`make fuzz-files`) makes files by mutating small
ones of every format, and real ones where the folder is there, and decodes each as jobs, trainings and scans do.
Processes that are watched decode them: the processor time of a file and the memory of a process are limited. Every
finding is printed with the command that repeats it. JSON on the last line; exit code 1 if anything was found.
"""

import argparse
import json
import multiprocessing
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil

from benchmarks import fuzz_cases
from benchmarks.machine import describe_run

BOUND_S = 20.0  # processor time of one file, decoded three times; the estimates allow some 5 s each
MEMORY_BYTES = 6 << 30  # of addresses, beyond what a process has when it begins: the budget is 2 GiB an image
START_METHOD = "spawn"  # a process of its own, as workers are
_CHUNK = 50  # cases that a process is given at a time
_POLL_S = 0.5


@dataclass(slots=True)
class Found:
    """The outcome of all cases so far."""

    codes: Counter[str] = field(default_factory=Counter)
    findings: list[tuple[int, str]] = field(default_factory=list)


def main() -> int:
    """Run, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=50_000, help="files to decode; 50,000 take 4 minutes on 2 cores")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the mutations; default: a new one")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/pathological"), help="folder of real files")
    parser.add_argument("--only", type=int, help="decode the file of this number alone, in this process")
    parser.add_argument("--keep", type=Path, help="with --only: write the file here")
    options = parser.parse_args()
    data = options.data if options.data.is_dir() else None
    if options.only is not None:
        file = fuzz_cases.case(options.seed, options.only, data)
        if options.keep is not None:
            options.keep.write_bytes(file)
        print(*fuzz_cases.try_case(file))
        return 0
    print(f"seed {options.seed}, {len(fuzz_cases.samples(data))} samples, {options.count} files", flush=True)
    found = fuzz(options.seed, options.count, data, len(os.sched_getaffinity(0)))
    repeat = f"python -m benchmarks.fuzz_files --seed {options.seed} --data {options.data} --only"
    for number, what in found.findings:
        print(f"{what}\n    {repeat} {number} --keep found-{number}")
    figures = {
        "seed": options.seed,
        "files": options.count,
        "findings": len(found.findings),
        "codes": dict(found.codes),
    }
    print(json.dumps({**describe_run("fuzz_files"), **figures}))
    return 1 if found.findings else 0


def fuzz(seed: int, count: int, data: Path | None, num_processes: int, bound_s: float = BOUND_S) -> Found:
    """Decode the files of numbers 0 to count - 1 in watched processes."""
    found = Found()
    chunks = iter([range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)])
    with _Workers(seed, data, bound_s) as workers:
        for _ in range(num_processes):
            workers.start()
        workers.run(chunks, found, count)
    return found


class _Workers:
    """Processes that decode; one that hangs or dies is replaced, and goes on after the file that it was at."""

    def __init__(self, seed: int, data: Path | None, bound_s: float) -> None:
        self._seed = seed
        self._data = data
        self._bound_s = bound_s
        self._context: Any = multiprocessing.get_context(START_METHOD)
        self._workers: list[_Worker] = []
        self._reported_s = time.monotonic()

    def __enter__(self) -> "_Workers":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.process.kill()
            worker.process.join()

    def start(self) -> "_Worker":
        """One more process."""
        ours, theirs = self._context.Pipe()
        process: BaseProcess = self._context.Process(
            target=_decode_cases, args=(theirs, self._seed, self._data), daemon=True
        )
        process.start()
        theirs.close()
        worker = _Worker(process, ours)
        self._workers.append(worker)
        return worker

    def run(self, chunks: Iterator[range], found: Found, count: int) -> None:
        """Give out all chunks, and watch until every case is done."""
        for worker in self._workers:
            worker.give(next(chunks, range(0)))
        while busy := [worker for worker in self._workers if worker.left]:
            wait([worker.pipe for worker in busy], timeout=_POLL_S)
            for worker in busy:
                alive = worker.process.is_alive()  # first: what it sent before its end counts
                worker.collect(found)
                if worker.left and (wrong := worker.trouble(self._bound_s, alive)):
                    found.findings.append((worker.left[0], wrong))
                    found.codes["hang" if "seconds" in wrong else "crash"] += 1
                    self._replace(worker)
                elif not worker.left:
                    worker.give(next(chunks, range(0)))
            self._report(found, count)

    def _replace(self, worker: "_Worker") -> None:
        worker.process.kill()
        worker.process.join()
        self._workers.remove(worker)
        self.start().give(worker.left[1:])

    def _report(self, found: Found, count: int) -> None:
        if time.monotonic() - self._reported_s > 30:
            self._reported_s = time.monotonic()
            print(f"{found.codes.total()} of {count}, {len(found.findings)} findings", flush=True)


@dataclass(slots=True, eq=False)
class _Worker:
    """A process, and the cases that it has not answered yet."""

    process: BaseProcess
    pipe: Connection
    left: range = range(0)
    began_s: float | None = None  # processor time of the process when it began the first of `left`

    def give(self, cases: range) -> None:
        self.left, self.began_s = cases, None
        if cases:
            self.pipe.send(cases)

    def collect(self, found: Found) -> None:
        """Take the answers that have come."""
        try:
            while self.left and self.pipe.poll():
                code, wrong = self.pipe.recv()
                found.codes[code] += 1
                if wrong:
                    found.findings.append((self.left[0], wrong))
                self.left, self.began_s = self.left[1:], None
        except (EOFError, ConnectionError):
            self.process.join(timeout=5)

    def trouble(self, bound_s: float, alive: bool) -> str:
        """What is wrong with the process; empty if it is at work."""
        if not alive:
            return f"the process died with exit code {self.process.exitcode}"
        try:
            used = psutil.Process(self.process.pid).cpu_times()
        except psutil.NoSuchProcess:  # since it was looked at: the next look says how it ended
            return ""
        used_s = used.user + used.system
        self.began_s = used_s if self.began_s is None else self.began_s
        spent_s = used_s - self.began_s
        return f"more than {bound_s:.0f} seconds of processor time" if spent_s > bound_s else ""


def _decode_cases(pipe: Connection, seed: int, data: Path | None) -> None:
    """The process: cases in, a code and what is wrong with it out, for each."""
    from modeling.images.decode import warm_up  # torch

    warm_up()
    fuzz_cases.try_case(fuzz_cases.samples(data)[0])
    used = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, resource.RLIM_INFINITY))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries complain of each file
    while True:
        try:
            cases: range = pipe.recv()
        except EOFError:
            return
        for number in cases:
            pipe.send(fuzz_cases.try_case(fuzz_cases.case(seed, number, data)))


if __name__ == "__main__":
    sys.exit(main())
