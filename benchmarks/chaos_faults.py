"""The faults of a chaos run. Each returns a line that says what it did, or None where it could do nothing."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil
import redis

from benchmarks.chaos_repairs import Repairs
from benchmarks.chaos_watch import Monitor
from orchestrator.contract.errors import UnavailableError
from orchestrator.contract.jobs.job_folder import active_jobs
from orchestrator.contract.queues import ALL_QUEUES, CLASSIFY, FINALIZE, queue_key
from orchestrator.jobs.submit import JobClient
from tests.support.cut_proxy import CutProxy
from tests.support.workers import Cluster, Worker


@dataclass
class Target:
    """The system under test, which of its workers are healthy, and the repairs that are due."""

    cluster: Cluster
    random: random.Random
    workers: list[Worker] = field(default_factory=list)  # those that should be running
    stopped: list[Worker] = field(default_factory=list)
    impaired_until: dict[int, float] = field(default_factory=dict)  # by the worker's process id
    server_is_up: bool = True
    repairs: Repairs = field(default_factory=Repairs)
    monitor: Monitor | None = None
    sources: list[Path] = field(default_factory=list)  # folders of images that may go away
    listing: threading.Lock = field(default_factory=threading.Lock)  # held while one of them is listed, or is away
    network: CutProxy | None = None  # between the workers and the server; None: they are connected directly

    def start_worker(self) -> None:
        """Start another worker; it works as soon as it has imported torch."""
        environment = {"PIGEONHOLE_SERVER_URL": self.network.url} if self.network is not None else {}
        self.workers.append(self.cluster.start_worker(wait=False, **environment))

    def healthy(self) -> list[Worker]:
        """The workers that are ready and without a recent fault."""
        now = time.monotonic()
        workers = [worker for worker in self.workers if self.impaired_until.get(worker.process.pid, 0) < now]
        return [worker for worker in workers if worker.alive and worker.at_work()]

    def pick_healthy(self) -> Worker | None:
        """A healthy worker, if there is one."""
        return self.random.choice(healthy) if (healthy := self.healthy()) else None

    def report_server_fault(self) -> None:
        """Tell the monitor that the server has a fault, so that pending takeovers do not count."""
        self.disturb("the server had a fault")

    def disturb(self, what: str) -> None:
        """Tell the monitor what delays pending takeovers."""
        if self.monitor is not None:
            self.monitor.disturb(what)

    def died(self, worker: Worker) -> int:
        """Follow the shards of a worker that was just killed."""
        return self.monitor.died(worker.name) if self.monitor is not None and self.server_is_up else 0


def kill_parent(target: Target) -> str | None:
    """Kill the parent; the child continues until its slice ends."""
    if (worker := target.pick_healthy()) is None:
        return None
    worker.kill()
    target.workers.remove(worker)
    target.start_worker()
    return f"SIGKILL to the parent of worker {worker.process.pid}; another is started"


def kill_child(target: Target) -> str | None:
    """Kill the child; the parent starts another."""
    worker = target.pick_healthy()
    if worker is None or (child := worker.pool_child()) is None:
        return None
    child.kill()
    return f"SIGKILL to the child of worker {worker.process.pid}, which held {target.died(worker)} shards"


def kill_both(target: Target) -> str | None:
    """Kill parent and child, as when a machine is switched off."""
    if (worker := target.pick_healthy()) is None:
        return None
    os.killpg(worker.process.pid, signal.SIGKILL)
    worker.process.wait()
    target.workers.remove(worker)
    held = target.died(worker)
    target.start_worker()
    return f"SIGKILL to worker {worker.process.pid} and its child, which held {held} shards; another is started"


def _resume(processes: list[psutil.Process]) -> None:
    for process in processes:
        if process.is_running():
            process.resume()


def freeze_worker(target: Target) -> str | None:
    """Freeze parent and child, or only the child, for longer than a lease."""
    worker = target.pick_healthy()
    if worker is None or (child := worker.pool_child()) is None:
        return None
    seconds = target.cluster.settings.lease_s + target.random.uniform(1, 6)
    both = target.random.random() < 0.6
    frozen = [psutil.Process(worker.process.pid), child] if both else [child]
    for process in frozen:
        process.suspend()
    target.impaired_until[worker.process.pid] = time.monotonic() + seconds + 2
    target.repairs.later(seconds, partial(_resume, frozen))
    return f"SIGSTOP to {'worker' if both else 'the child of worker'} {worker.process.pid} for {seconds:.1f} s"


def stop_worker(target: Target) -> str | None:
    """Stop a worker, as an operator does."""
    if (worker := target.pick_healthy()) is None:
        return None
    worker.terminate()
    target.workers.remove(worker)
    target.stopped.append(worker)
    target.start_worker()
    return f"SIGTERM to worker {worker.process.pid}; another is started"


def kill_server(target: Target) -> str | None:
    """Kill the server; it comes back with its append-only file."""
    return _kill_server(target, lose_files=False)


def lose_server(target: Target) -> str | None:
    """Kill the server; it comes back empty."""
    return _kill_server(target, lose_files=True)


def _kill_server(target: Target, *, lose_files: bool) -> str | None:
    if not target.server_is_up:
        return None
    seconds = target.random.choice((0.0, target.random.uniform(0, 3), target.random.uniform(3, 8)))
    target.report_server_fault()
    target.server_is_up = False
    target.cluster.server.kill()
    if lose_files:
        target.cluster.server.lose_files()

    def restart() -> None:
        target.cluster.server.start()
        target.server_is_up = True
        target.report_server_fault()

    target.repairs.later(seconds, restart)
    return f"SIGKILL to the server; back {'empty' if lose_files else 'with its file'} after {seconds:.1f} s"


def empty_server(target: Target) -> str | None:
    """Delete all keys of the running server."""
    if not target.server_is_up:
        return None
    target.report_server_fault()
    target.cluster.server.empty()
    return "FLUSHALL"


def freeze_server(target: Target) -> str | None:
    """Freeze the server, sometimes for longer than the sockets' timeout of 15 s."""
    if not target.server_is_up:
        return None
    seconds = target.random.uniform(16, 20) if target.random.random() < 0.2 else target.random.uniform(1, 6)
    target.report_server_fault()
    target.server_is_up = False
    target.cluster.server.freeze()

    def thaw() -> None:
        target.cluster.server.thaw()
        target.server_is_up = True
        target.report_server_fault()

    target.repairs.later(seconds, thaw)
    return f"SIGSTOP to the server for {seconds:.1f} s"


def lose_bells(target: Target) -> str | None:
    """Delete all queues."""
    if not target.server_is_up:
        return None
    try:
        lost = sum(target.cluster.ledger.queue_length(queue) for queue in ALL_QUEUES)
        target.cluster.ledger.client.delete(*map(queue_key, ALL_QUEUES))
    except redis.RedisError:
        return None
    return f"deleted the queues with {lost} doorbells"


def double_bells(target: Target) -> str | None:
    """Ring for a random active job without need."""
    jobs = active_jobs(target.cluster.settings)
    if not target.server_is_up or not jobs:
        return None
    try:
        client = JobClient(target.cluster.settings)
    except UnavailableError:
        return None
    job = target.random.choice(jobs)
    for _ in range(3):
        client.ring(CLASSIFY, job)
        client.ring(FINALIZE, job)
    return f"rang 3 times without need for {job} on {CLASSIFY} and {FINALIZE}"


def damage_part(target: Target) -> str | None:
    """Damage a part, as a failing disk does: a bit, the end, all bytes, or the file itself."""
    folders = [target.cluster.settings.jobs / job / "parts" for job in active_jobs(target.cluster.settings)]
    parts = sorted(path for folder in folders for path in folder.glob("*.part"))
    if not parts:
        return None
    part = target.random.choice(parts)
    how = target.random.choice(("a bit of", "the end of", "the contents of", "the name of"))
    try:
        _damage(part, how, target.random)
    except FileNotFoundError:
        return None
    return f"damaged {how} {part.parent.parent.name}/{part.name}"


def _damage(part: Path, how: str, chance: random.Random) -> None:
    size = part.stat().st_size
    if how == "the name of" or size == 0:
        part.unlink()
    elif how == "a bit of":
        with part.open("r+b") as file:
            at = chance.randrange(size)
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 1 << chance.randrange(8)]))
    else:
        os.truncate(part, 0 if how == "the contents of" else chance.randrange(size))


def move_source(target: Target) -> str | None:
    """Move a folder of images away for some seconds; sometimes an empty one takes its place, as without its mount."""
    if not target.sources or not target.listing.acquire(blocking=False):
        return None
    source = target.random.choice(target.sources)
    away, seconds = source.with_name(f"{source.name}-away"), target.random.uniform(0.1, 8)
    is_empty = target.random.random() < 0.5
    target.disturb("a source was away")
    source.rename(away)
    if is_empty:
        source.mkdir()

    def move_back() -> None:
        if is_empty:
            source.rmdir()
        away.rename(source)
        target.disturb("a source was away")
        target.listing.release()

    target.repairs.later(seconds, move_back)
    return f"moved {source.name} away for {seconds:.1f} s{', an empty folder in its place' if is_empty else ''}"


# The relative frequency of each fault; results name a fault by its function.
FAULTS: dict[Callable[[Target], str | None], int] = {
    kill_parent: 2, kill_child: 4, kill_both: 4, freeze_worker: 4, stop_worker: 3,
    kill_server: 2, lose_server: 1, empty_server: 2, freeze_server: 2,
    lose_bells: 3, double_bells: 3, damage_part: 6, move_source: 4,
}  # fmt: skip
