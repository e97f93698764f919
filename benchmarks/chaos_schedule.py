"""Schedules of kills that follow from a seed alone, and what they are carried out on: two workers and a server.

What was killed is started again at once, as a supervisor does. Most strikes wait until the worker that they are for is
at work again: on a busy machine none would ever come to work. The others hit it while it starts.
"""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, get_args

import psutil

from benchmarks.chaos_repairs import Repairs
from orchestrator.contract.errors import ExitCode
from tests.support.workers import Cluster, Worker

EVERY_S = 2.0
NUM_WORKERS = 2
How = Literal["kill", "kill child", "kill parent", "freeze"]
HOWS: dict[How, int] = {"kill": 6, "kill child": 5, "kill parent": 2, "freeze": 1}  # of workers, with frequencies
assert set(HOWS) == set(get_args(How))
SERVER_SHARE = 1 / 3
WAITING_SHARE = 0.85  # of strikes at workers
DOWN_S, FROZEN_S = 1.5, (7.0, 10.0)  # at most, of a killed server; longer than a lease, of a frozen worker


@dataclass(frozen=True)
class Strike:
    """What happens when, to whom.

    at_s: after the job's start, at the earliest. seconds: how long the server is down, or a worker frozen. waits: until
    the worker is at work.
    """

    at_s: float
    victim: str
    how: How
    seconds: float = 0.0
    waits: bool = False

    def __str__(self) -> str:
        span = f" for {self.seconds:.2f} s" if self.seconds else ""
        return f"{self.at_s:6.1f} s  {self.how} {self.victim}{span}{' once it is at work' if self.waits else ''}"


def schedule(seed: int, every_s: float = EVERY_S) -> Iterator[Strike]:
    """The strikes of a seed, without an end."""
    chance, number = random.Random(f"schedule {seed}"), 0
    while True:
        number += 1
        at_s = round(number * every_s, 3)
        if chance.random() < SERVER_SHARE:
            yield Strike(at_s, "server", "kill", round(chance.uniform(0, DOWN_S), 2))
            continue
        victim = f"worker {chance.randrange(NUM_WORKERS)}"
        [how] = chance.choices(list(HOWS), list(HOWS.values()))
        seconds = round(chance.uniform(*FROZEN_S), 2) if how == "freeze" else 0.0
        yield Strike(at_s, victim, how, seconds, waits=chance.random() < WAITING_SHARE)


@dataclass
class Supervisor:
    """Keeps two workers and a server running, and strikes them.

    hit: every process that was killed or frozen, by its id, with the times of `time.time()` just after it. orphans:
    children of killed parents, which may begin another shard, and end in the middle of it.
    """

    cluster: Cluster
    workers: list[Worker] = field(default_factory=list)
    repairs: Repairs = field(default_factory=Repairs)
    hit: dict[int, list[float]] = field(default_factory=dict)
    orphans: set[int] = field(default_factory=set)
    server_is_up: bool = True
    started: int = 0
    found_no_server: int = 0
    problems: list[str] = field(default_factory=list)

    def start(self) -> None:
        self.workers = [self._started() for _ in range(NUM_WORKERS)]

    def keep_running(self) -> None:
        """Make the repairs that are due, and start what has ended."""
        self.repairs.make()
        for number, worker in enumerate(self.workers):
            if (code := worker.process.poll()) is None:
                continue
            if code == ExitCode.UNAVAILABLE:
                self.found_no_server += 1
            elif worker.process.pid not in self.hit:
                self.problems.append(f"worker {number} ended by itself with {code}: {worker.log.read_text()[-1500:]}")
            self.workers[number] = self._started()

    def is_due(self, strike: Strike, elapsed_s: float) -> bool:
        """Whether its time has come, and what it waits for. elapsed_s: since the job's start."""
        return elapsed_s >= strike.at_s and (not strike.waits or self._victim(strike).at_work())

    def strike(self, strike: Strike) -> bool:
        """Carry out a strike; whether there was a process to strike."""
        if strike.victim == "server":
            return self._kill_server(strike.seconds)
        worker = self._victim(strike)
        before = self._num_hit()
        if strike.how == "kill":
            self._kill(worker)
        elif strike.how == "kill child":
            self._kill_child(worker)
        elif strike.how == "kill parent":
            self._kill_parent(worker)
        else:
            self._freeze(worker, strike.seconds)
        return self._num_hit() > before

    def end(self) -> None:
        """Make all repairs, so that nothing stays frozen."""
        self.repairs.make(everything=True)

    def _victim(self, strike: Strike) -> Worker:
        return self.workers[int(strike.victim.split()[1])]

    def _started(self) -> Worker:
        self.started += 1
        return self.cluster.start_worker(wait=False)

    def _num_hit(self) -> int:
        return sum(map(len, self.hit.values()))

    def _hit(self, *pids: int) -> None:
        """Note what was done to processes, once it was: until then they begin work."""
        for pid in pids:
            self.hit.setdefault(pid, []).append(time.time())

    def _kill(self, worker: Worker) -> None:
        processes = processes_of(worker)
        with suppress(ProcessLookupError):
            os.killpg(worker.process.pid, signal.SIGKILL)
        self._hit(*(process.pid for process in processes))
        worker.process.wait()

    def _kill_child(self, worker: Worker) -> None:
        if (child := worker.pool_child()) is not None:
            _each([child], psutil.Process.kill)
            self._hit(child.pid)

    def _kill_parent(self, worker: Worker) -> None:
        """Its child works on for a moment."""
        processes = processes_of(worker)
        self.orphans |= {process.pid for process in processes}
        worker.kill()
        self._hit(*(process.pid for process in processes))

    def _freeze(self, worker: Worker, seconds: float) -> None:
        frozen = processes_of(worker)
        _each(frozen, psutil.Process.suspend)
        self._hit(*(process.pid for process in frozen))
        self.repairs.later(seconds, lambda: _each(frozen, psutil.Process.resume))

    def _kill_server(self, seconds: float) -> bool:
        if not self.server_is_up:
            return False
        self.server_is_up = False
        self.cluster.server.kill()
        self.repairs.later(seconds, self._start_server)
        return True

    def _start_server(self) -> None:
        self.cluster.server.start()
        self.server_is_up = True


def processes_of(worker: Worker) -> list[psutil.Process]:
    """A worker's parent and everything below it."""
    with suppress(psutil.Error):
        parent = psutil.Process(worker.process.pid)
        return [parent, *parent.children(recursive=True)]
    return []


def _each(processes: list[psutil.Process], call: Callable[[psutil.Process], None]) -> None:
    for process in processes:
        with suppress(psutil.Error):
            call(process)
