"""Does every push get one decision in time, and at most one record, while workers and servers are killed?

    python -m benchmarks.chaos --lines --pushes 10000

Two runs with a server and two workers of their own, an open-loop load at a quarter of their capacity, a deadline of 2 s
a push. `workers`: the two are killed in turns every 20 s, and started again. `all`: workers are killed and frozen, the
server is killed, frozen and emptied, and the alias is moved, at seeded moments. Afterwards every decision is compared
with the records on the server and in the files. It prints decisions by reason; exit code 1 if a promise was broken.
"""

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import redis

from benchmarks.lines.bench import WARM_UP, WINDOW
from benchmarks.lines.ideal import poisson_arrivals_ms
from benchmarks.lines.load import Load
from benchmarks.lines.runs import MARGIN_MS, Generator, Outcome, Place
from benchmarks.lines.system import ALIAS, FALLBACK, LINE, PHOTOGRAPHS, line_settings, publish, publish_again
from benchmarks.throughput_folders import FOLDERS
from modeling.registry.store import ModelStore, ModelVersion
from orchestrator.contract.lines.answers import request_key
from orchestrator.contract.lines.archive import AnswerArchive
from orchestrator.contract.lines.registry import LineRegistry
from orchestrator.contract.lines.status import read_status
from orchestrator.contract.lines.store import LineStore
from orchestrator.contract.server import connect_raw
from tests.support.server import Server, wait_until
from tests.support.workers import Cluster, Worker

NUM_WORKERS = 2
LOAD, DEADLINE_MS = 0.25, 2_000
KILL_EVERY_S = 20.0
PREDICTED_SHARE = 0.80  # where workers alone were killed
OPEN_S = 300.0
NUM_IMAGES = 200


@dataclass
class Arena:
    """The system under test, and the faults so far."""

    cluster: Cluster
    versions: list[ModelVersion]
    place: Place
    chance: random.Random
    server_up: bool = True
    server_lost: bool = False  # it lost what it knew: records may be gone or doubled
    faults: Counter[str] = field(default_factory=Counter)
    due: list[tuple[float, Callable[[], None]]] = field(default_factory=list)
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

    def living(self) -> list[Worker]:
        return [worker for worker in self.cluster.workers if worker.alive]

    def log(self, text: str) -> None:
        print(f"[{time.monotonic() - self.started:6.1f} s] {text}", flush=True)

    def later(self, seconds: float, repair: Callable[[], None]) -> None:
        self.due.append((time.monotonic() + seconds, repair))

    def repair(self, *, everything: bool = False) -> None:
        """Make the repairs that are due, or all."""
        now = time.monotonic()
        ready = [entry for entry in self.due if everything or entry[0] <= now]
        self.due = [entry for entry in self.due if entry not in ready]
        for _, repair in ready:
            repair()


# Faults: each returns what it did, or None where it could do nothing.


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
    children = psutil.Process(living[-1].process.pid).children() if living else []
    child = next((each for each in children if "spawn_main" in " ".join(each.cmdline())), None)
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
    arena.later(seconds, lambda: _signal(frozen, signal.SIGCONT))
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
    arena.server_up, arena.server_lost = False, True
    server.kill()
    if empty:
        server.lose_files()

    def restart() -> None:
        server.start()
        arena.server_up = True

    arena.later(seconds, restart)
    return f"SIGKILL to the server; back {'empty' if empty else 'with its file'} after {seconds:.1f} s"


def empty_server(arena: Arena) -> str | None:
    """Delete all keys."""
    if not arena.server_up:
        return None
    arena.server_lost = True
    arena.cluster.server.empty()
    return "FLUSHALL"


def freeze_server(arena: Arena) -> str | None:
    """Freeze the server, mostly for longer than a deadline."""
    if not arena.server_up:
        return None
    seconds, server = arena.chance.uniform(0.5, 6), arena.cluster.server
    arena.server_up = False
    server.freeze()

    def thaw() -> None:
        server.thaw()
        arena.server_up = True

    arena.later(seconds, thaw)
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


@contextmanager
def open_arena(folder: Path, seed: int) -> Iterator[Arena]:
    """A server, two workers with the line open, and a load generator's place; all ended at the end."""
    cluster = Cluster(folder / "home", Server(), {"PYTHONPATH": str(Path(__file__).resolve().parents[1])})
    try:
        cluster.server.start()
        store = ModelStore(cluster.settings.models)
        version, _ = publish(store, PHOTOGRAPHS)
        versions = [version, publish_again(store, version, folder / "again")]
        store.set_alias(version, ALIAS)
        FOLDERS[PHOTOGRAPHS.folder](folder / "images", NUM_IMAGES)
        (folder / "runs").mkdir()
        load = Load("line", cluster.server.url, str(folder / "images"), "", "push", line=LINE, fallback=FALLBACK)
        arena = Arena(cluster, versions, Place(load, folder / "runs"), random.Random(seed))
        arena.registry.create(line_settings(version))
        for _ in range(NUM_WORKERS):
            cluster.start_worker(wait=False)
        wait_until(lambda: arena.num_open() == NUM_WORKERS, what="both workers have the line open", timeout_s=OPEN_S)
        yield arena
    finally:
        for worker in cluster.workers:
            with suppress(ProcessLookupError):
                os.killpg(worker.process.pid, signal.SIGKILL)
            worker.process.wait()
        cluster.server.stop()


def run_workers(arena: Arena, running: Generator) -> None:
    """Kill the workers in turns."""
    following = time.monotonic() + KILL_EVERY_S / 2
    while running.sending:
        if time.monotonic() >= following:
            _inject(arena, kill_worker)
            following += KILL_EVERY_S
        time.sleep(0.05)


def run_all(arena: Arena, running: Generator) -> None:
    """Inject every kind of fault."""
    following = time.monotonic() + 3
    while running.sending:
        arena.repair()
        _replace_ended(arena)
        if time.monotonic() >= following:
            _inject(arena, arena.chance.choices(list(FAULTS), list(FAULTS.values()))[0])
            following = time.monotonic() + arena.chance.uniform(2, 9)
        time.sleep(0.05)
    arena.repair(everything=True)


def _inject(arena: Arena, fault: Callable[[Arena], str | None]) -> None:
    with suppress(redis.RedisError, psutil.Error):
        if (text := fault(arena)) is not None:
            arena.faults[fault.__name__] += 1
            arena.log(text)


def _replace_ended(arena: Arena) -> None:
    """A worker may end where it finds no server at its start."""
    while len(arena.living()) < NUM_WORKERS:
        arena.faults["worker_ended"] += 1
        arena.cluster.start_worker(wait=False)


RUNS: dict[str, Callable[[Arena, Generator], None]] = {"workers": run_workers, "all": run_all}


def run(name: str, folder: Path, num_pushes: int, seed: int) -> dict[str, Any]:
    """One run: its figures, and which promises were broken."""
    with open_arena(folder, seed) as arena:
        arena.place.closed(WINDOW, WARM_UP)
        capacity = arena.place.closed(WINDOW, 3 * WARM_UP).rate()
        due_ms = poisson_arrivals_ms(LOAD * capacity, num_pushes, seed)
        arena.log(f"{name}: {num_pushes:,} pushes at {LOAD * capacity:.0f}/s, {due_ms[-1] / 1000:.0f} s")
        with arena.place.opening(due_ms, DEADLINE_MS) as running:
            running.start()
            RUNS[name](arena, running)
            outcome = running.outcome()
            item_name = running.load.name
        wait_until(lambda: arena.num_open() > 0, what="a worker has the line open again", timeout_s=OPEN_S)
        return judge(name, arena, outcome, Records(arena, item_name))


class Records:
    """The records of the pushes of a run, on the server and in the files."""

    def __init__(self, arena: Arena, name: str) -> None:
        self._name = name
        store = arena.store
        found: dict[bytes, bytes] = store.client.hgetall(store.key("answers"))  # type: ignore[assignment]
        self._on_server = {key.decode(): [record] for key, record in found.items()}
        self._archive = AnswerArchive(arena.registry.folder(LINE) / "answers")

    def of(self, number: int) -> list[dict[str, Any]]:
        """The different records of a push: one, if all is well."""
        key = request_key(f"{self._name}-{number}", 1)
        entries = [json.loads(entry) for entry in [*self._on_server.get(key, []), *self._archive.entries(key)]]
        records = [entry for entry in entries if "bin" in entry]
        return list({(each["bin"], each.get("reason"), each["answered_ms"]): each for each in records}.values())


def judge(name: str, arena: Arena, outcome: Outcome, records: Records) -> dict[str, Any]:
    """Compare decisions with records."""
    found = [records.of(number) for number in range(len(outcome.due))]
    none, several = sum(not each for each in found), sum(len(each) > 1 for each in found)
    differ = sum(
        len(each) == 1 and each[0]["bin"] != decided for each, decided in zip(found, outcome.bin.tolist(), strict=True)
    )
    late = outcome.lateness_ms
    predicted = float(outcome.predicted.mean())
    broken = outcome.problems()
    if not arena.server_lost:
        broken += [f"{number} {what}" for number, what in (
            (none, "decisions without a record"), (several, "items with two records"),
            (differ, "decisions that differ from their record"),
        ) if number]  # fmt: skip
    if name == "workers" and predicted < PREDICTED_SHARE:
        broken.append(f"{predicted:.1%} predicted, {PREDICTED_SHARE:.0%} wanted")
    if too_late := int((late > MARGIN_MS).sum()):
        broken.append(f"{too_late} decisions later than {MARGIN_MS:.0f} ms after the deadline")
    return {
        "pushes": len(outcome.due), "decisions": int((outcome.decisions == 1).sum()),
        "predicted_share": round(predicted, 4), "reasons": outcome.reasons(), "faults": dict(arena.faults),
        "p50_ms": round(outcome.percentile(50), 1), "p99_ms": round(outcome.percentile(99), 1),
        "lateness_worst_ms": round(float(np.nanmax(late)), 1), "later_than_20_ms": too_late,
        "without_record": none, "with_two_records": several, "disagreements": differ,
        "disagreements_counted": _counted(arena, "disagreements"),
        "delivered_alone": _counted(arena, "delivered_alone"),
        "versions": sorted(set(outcome.model[outcome.predicted].tolist())), "broken_promises": broken,
    }  # fmt: skip


def _counted(arena: Arena, name: str) -> int:
    store = arena.store
    return int(store.client.hget(store.key("stats"), name) or 0)


def show(name: str, figures: dict[str, Any]) -> None:
    """Print the table of a run."""
    print(f"{name}:")
    for key, value in figures.items():
        if key == "broken_promises":
            print("\n".join(f"    BROKEN: {text}" for text in value) or "    nothing broken")
        elif isinstance(value, dict):
            print(f"    {key}")
            print("\n".join(f"        {part:26}{number:>12,}" for part, number in value.items()))
        else:
            print(f"    {key:30}{value!s:>12}")
