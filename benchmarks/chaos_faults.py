"""What can go wrong in a chaos run. Each fault says in a line what it did, or None where there was nothing to hurt."""

import os
import random
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import redis

from benchmarks.chaos_watch import Watch
from orchestrator.contract.errors import UnavailableError
from orchestrator.contract.jobs.job_folder import active_jobs
from orchestrator.contract.queues import ALL_QUEUES, CLASSIFY, FINALIZE
from orchestrator.jobs.submit import JobClient
from tests.support.workers import House, Worker


@dataclass
class Scene:
    """The house, who is whole in it, and what is to be mended when."""

    house: House
    random: random.Random
    workers: list[Worker] = field(default_factory=list)  # those that should be at work
    told_to_stop: list[Worker] = field(default_factory=list)
    hurt_until: dict[int, float] = field(default_factory=dict)  # worker's process id -> moment
    deaths: Counter[int] = field(default_factory=Counter)  # children that were killed, by their worker's process id
    server_is_up: bool = True
    due: list[tuple[float, Callable[[], None]]] = field(default_factory=list)
    watch: Watch | None = None

    def hire(self) -> None:
        """One more worker; it is at work as soon as it has loaded torch."""
        self.workers.append(self.house.hire(wait=False))

    def whole(self) -> list[Worker]:
        """The workers that are ready and were not hurt lately."""
        now = time.monotonic()
        workers = [worker for worker in self.workers if self.hurt_until.get(worker.process.pid, 0) < now]
        return [
            worker for worker in workers if worker.process.poll() is None and worker.ready() and self._has_child(worker)
        ]

    def _has_child(self, worker: Worker) -> bool:
        """Whether it has a new child for every one that was killed."""
        return worker.log.read_text().count(" ready\n") > self.deaths[worker.process.pid]

    def pick(self) -> Worker | None:
        """A whole worker, if there is one."""
        return self.random.choice(whole) if (whole := self.whole()) else None

    def later(self, seconds: float, mend: Callable[[], None]) -> None:
        """Mend something after a while."""
        self.due.append((time.monotonic() + seconds, mend))

    def mend(self, *, everything: bool = False) -> None:
        """Mend what is due, or all there is."""
        now = time.monotonic()
        ready = [entry for entry in self.due if everything or entry[0] <= now]
        self.due = [entry for entry in self.due if entry not in ready]
        for _, mend in ready:
            mend()

    def hurt_server(self) -> None:
        """What the watch measures from now on is not the workers' affair."""
        if self.watch is not None:
            self.watch.disturb("the server was hurt")

    def died(self, worker: Worker) -> int:
        """Follow the shards of a worker that was just killed."""
        name = f"{socket.gethostname()}-cpu-{worker.process.pid}"
        return self.watch.died(name) if self.watch is not None and self.server_is_up else 0


def child_of(worker: Worker) -> psutil.Process | None:
    """The process that holds the device."""
    try:
        children = psutil.Process(worker.process.pid).children()
        return next((child for child in children if "spawn_main" in " ".join(child.cmdline())), None)
    except psutil.Error:
        return None


def kill_parent(scene: Scene) -> str | None:
    """The child works on by itself until its slice ends."""
    if (worker := scene.pick()) is None:
        return None
    worker.kill()
    scene.workers.remove(worker)
    scene.hire()
    return f"SIGKILL to the parent of worker {worker.process.pid}; another is started"


def kill_child(scene: Scene) -> str | None:
    """The parent starts another child."""
    worker = scene.pick()
    if worker is None or (child := child_of(worker)) is None:
        return None
    child.kill()
    scene.deaths[worker.process.pid] += 1
    return f"SIGKILL to the child of worker {worker.process.pid}, which held {scene.died(worker)} shards"


def kill_both(scene: Scene) -> str | None:
    """As when a machine is switched off."""
    if (worker := scene.pick()) is None:
        return None
    os.killpg(worker.process.pid, signal.SIGKILL)
    worker.process.wait()
    scene.workers.remove(worker)
    held = scene.died(worker)
    scene.hire()
    return f"SIGKILL to worker {worker.process.pid} and its child, which held {held} shards; another is started"


def freeze_worker(scene: Scene) -> str | None:
    """Longer than its lease; sometimes only the child."""
    worker = scene.pick()
    if worker is None or (child := child_of(worker)) is None:
        return None
    seconds = scene.house.settings.lease_s + scene.random.uniform(1, 6)
    whole = scene.random.random() < 0.6
    frozen = [psutil.Process(worker.process.pid), child] if whole else [child]
    for process in frozen:
        process.suspend()
    scene.hurt_until[worker.process.pid] = time.monotonic() + seconds + 2
    scene.later(seconds, lambda: [process.resume() for process in frozen if process.is_running()])
    return f"SIGSTOP to {'worker' if whole else 'the child of worker'} {worker.process.pid} for {seconds:.1f} s"


def stop_worker(scene: Scene) -> str | None:
    """As an operator does."""
    if (worker := scene.pick()) is None:
        return None
    worker.terminate()
    scene.workers.remove(worker)
    scene.told_to_stop.append(worker)
    scene.hire()
    return f"SIGTERM to worker {worker.process.pid}; another is started"


def kill_server(scene: Scene) -> str | None:
    """It comes back with its append-only file."""
    return _kill_server(scene, lose_files=False)


def lose_server(scene: Scene) -> str | None:
    """It comes back empty."""
    return _kill_server(scene, lose_files=True)


def _kill_server(scene: Scene, *, lose_files: bool) -> str | None:
    if not scene.server_is_up:
        return None
    seconds = scene.random.choice((0.0, scene.random.uniform(0, 3), scene.random.uniform(3, 8)))
    scene.hurt_server()
    scene.server_is_up = False
    scene.house.server.kill()
    if lose_files:
        scene.house.server.lose_files()

    def restart() -> None:
        scene.house.server.start()
        scene.server_is_up = True
        scene.hurt_server()

    scene.later(seconds, restart)
    return f"SIGKILL to the server; back {'empty' if lose_files else 'with its file'} after {seconds:.1f} s"


def empty_server(scene: Scene) -> str | None:
    """FLUSHALL."""
    if not scene.server_is_up:
        return None
    scene.hurt_server()
    scene.house.server.empty()
    return "FLUSHALL"


def freeze_server(scene: Scene) -> str | None:
    """Sometimes longer than the sockets' time limit of 15 s."""
    if not scene.server_is_up:
        return None
    seconds = scene.random.uniform(16, 20) if scene.random.random() < 0.2 else scene.random.uniform(1, 6)
    scene.hurt_server()
    scene.server_is_up = False
    scene.house.server.freeze()

    def thaw() -> None:
        scene.house.server.thaw()
        scene.server_is_up = True
        scene.hurt_server()

    scene.later(seconds, thaw)
    return f"SIGSTOP to the server for {seconds:.1f} s"


def lose_bells(scene: Scene) -> str | None:
    """All queues at once."""
    if not scene.server_is_up:
        return None
    try:
        lost = sum(scene.house.ledger.queue_length(queue) for queue in ALL_QUEUES)
        scene.house.ledger.client.delete(*ALL_QUEUES)
    except redis.RedisError:
        return None
    return f"deleted the queues with {lost} doorbells"


def double_bells(scene: Scene) -> str | None:
    """For a random job, wherever it is in its life."""
    jobs = active_jobs(scene.house.settings)
    if not scene.server_is_up or not jobs:
        return None
    try:
        client = JobClient(scene.house.settings)
    except UnavailableError:
        return None
    job = scene.random.choice(jobs)
    for _ in range(3):
        client.ring(CLASSIFY, job)
        client.ring(FINALIZE, job)
    return f"rang 3 times too often for {job} on {CLASSIFY} and {FINALIZE}"


def damage_part(scene: Scene) -> str | None:
    """As a failing disk does: a bit, the end, everything, or the name."""
    folders = [scene.house.settings.jobs / job / "parts" for job in active_jobs(scene.house.settings)]
    parts = sorted(path for folder in folders for path in folder.glob("*.part"))
    if not parts:
        return None
    part = scene.random.choice(parts)
    how = scene.random.choice(("a bit of", "the end of", "the contents of", "the name of"))
    try:
        _damage(part, how, scene.random)
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


# How often each comes, against the others.
FAULTS: dict[Callable[[Scene], str | None], int] = {
    kill_parent: 2, kill_child: 4, kill_both: 4, freeze_worker: 4, stop_worker: 3,
    kill_server: 2, lose_server: 1, empty_server: 2, freeze_server: 2,
    lose_bells: 3, double_bells: 3, damage_part: 6,
}  # fmt: skip
