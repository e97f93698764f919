"""The system under test of `benchmarks.chaos --lines`, and its faults.

Each fault returns a line that says what it did, or None where it could do nothing.
"""

import math
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import psutil
import redis

from benchmarks.chaos_repairs import Repairs
from benchmarks.lines.runs import Place
from benchmarks.lines.system import ALIAS, LINE
from modeling.registry.store import ModelStore, ModelVersion
from orchestrator.contract.lines.registry import LineRegistry
from orchestrator.contract.lines.status import read_status
from orchestrator.contract.lines.store import LineStore
from orchestrator.contract.server import connect_raw
from tests.support.workers import Cluster, Worker

NUM_WORKERS = 2


@dataclass
class Arena:
    """The system under test, and the faults so far."""

    cluster: Cluster
    versions: list[ModelVersion]
    place: Place
    chance: random.Random
    server_up: bool = True
    server_lost: bool = False  # it lost what it knew: records may be gone or doubled
    strikes: list[tuple[float, float]] = field(default_factory=list)  # at the server: from, until, of time.monotonic()
    faults: Counter[str] = field(default_factory=Counter)
    repairs: Repairs = field(default_factory=Repairs)
    started: float = field(default_factory=time.monotonic)

    @property
    def store(self) -> LineStore:
        return LineStore(connect_raw(self.cluster.server.url), LINE)

    @property
    def registry(self) -> LineRegistry:
        return LineRegistry(self.cluster.settings, connect_raw(self.cluster.server.url))

    def num_open(self) -> int:
        """Workers that have the line open; 0 where the server does not answer."""
        with suppress(redis.RedisError):
            return sum(worker.is_open for worker in read_status(self.store, self.registry.get(LINE)).workers)
        return 0

    def server_goes(self) -> None:
        """The server is struck, and does not answer any more."""
        self.server_up = False
        self.strikes.append((time.monotonic(), math.inf))

    def server_is_back(self) -> None:
        """It answers again."""
        self.strikes[-1] = (self.strikes[-1][0], time.monotonic())
        self.server_up = True

    def living(self) -> list[Worker]:
        return [worker for worker in self.cluster.workers if worker.alive]

    def log(self, text: str) -> None:
        print(f"[{time.monotonic() - self.started:6.1f} s] {text}", flush=True)


def kill_worker(arena: Arena) -> str | None:
    """Kill a worker with its child, the one that has lived longest, and start another."""
    living = arena.living()
    if len(living) < NUM_WORKERS:
        return None
    living[0].kill_group()
    arena.cluster.start_worker(wait=False)
    return f"SIGKILL to worker {living[0].process.pid} and its child; another is started"


def kill_child(arena: Arena) -> str | None:
    """Kill the child alone: its parent starts another."""
    living = arena.living()
    child = living[-1].pool_child() if living else None
    if child is None:
        return None
    child.kill()
    return f"SIGKILL to the child of worker {living[-1].process.pid}"


def freeze_workers(arena: Arena) -> str | None:
    """Freeze one worker or all for some seconds, children included."""
    living, seconds = arena.living(), arena.chance.uniform(0.5, 5)
    if not living:
        return None
    chosen = living if arena.chance.random() < 0.5 else living[-1:]
    frozen: list[psutil.Process] = []
    for worker in chosen:
        parent = psutil.Process(worker.process.pid)
        frozen += [parent, *parent.children(recursive=True)]
    _signal(frozen, signal.SIGSTOP)
    arena.repairs.later(seconds, lambda: _signal(frozen, signal.SIGCONT))
    return f"SIGSTOP to {len(chosen)} workers for {seconds:.1f} s"


def _signal(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def kill_server(arena: Arena) -> str | None:
    """Kill the server; it comes back with its file, or sometimes without."""
    if not arena.server_up:
        return None
    server, seconds = arena.cluster.server, arena.chance.uniform(0, 4)
    empty = arena.chance.random() < 0.3
    arena.server_lost = True
    arena.server_goes()
    server.kill()
    if empty:
        server.lose_files()

    def restart() -> None:
        server.start()
        arena.server_is_back()

    arena.repairs.later(seconds, restart)
    return f"SIGKILL to the server; back {'empty' if empty else 'with its file'} after {seconds:.1f} s"


def empty_server(arena: Arena) -> str | None:
    """Delete all keys."""
    if not arena.server_up:
        return None
    arena.server_lost = True
    arena.server_goes()
    arena.cluster.server.empty()
    arena.server_is_back()
    return "FLUSHALL"


def freeze_server(arena: Arena) -> str | None:
    """Freeze the server, mostly for longer than a deadline."""
    if not arena.server_up:
        return None
    seconds, server = arena.chance.uniform(0.5, 6), arena.cluster.server
    arena.server_goes()
    server.freeze()

    def thaw() -> None:
        server.thaw()
        arena.server_is_back()

    arena.repairs.later(seconds, thaw)
    return f"SIGSTOP to the server for {seconds:.1f} s"


def move_alias(arena: Arena) -> str | None:
    """Point the alias to the other version."""
    store, name = ModelStore(arena.cluster.settings.models), arena.versions[0].name
    number = 3 - store.aliases(name)[ALIAS]
    store.set_alias(arena.versions[number - 1], ALIAS)
    return f"{name}@{ALIAS} points to version {number}"


FAULTS: dict[Callable[[Arena], str | None], int] = {
    kill_worker: 3, kill_child: 2, freeze_workers: 3, kill_server: 2, empty_server: 1, freeze_server: 2, move_alias: 3,
}  # fmt: skip
