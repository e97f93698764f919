"""A home, a server and two workers whose surroundings fail; and the job that each fault happens to."""

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.chaos import COUNT_STARTS
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.server import SERVER_ERRORS
from tests.support.cut_proxy import CutProxy
from tests.support.frozen_share import CAN_MOUNT, Share, shared
from tests.support.hanging_disk import HangingDisk
from tests.support.published_models import make_photographs, publish_model
from tests.support.server import Server, wait_until
from tests.support.set_clock import CAN_SET_CLOCKS, SetClock
from tests.support.small_disk import SmallDisk
from tests.support.workers import Cluster, Worker

LEASE_S = 3.0
NUM_BEFORE = 32  # images that are done before a fault
JOB_S = 300.0  # bounds how long a failure takes, and nothing else
IDENTICAL = "the same manifest"


@dataclass(frozen=True)
class Found:
    """What happened, and whether that was expected."""

    text: str
    ok: bool


@dataclass
class Rig:
    """What faults are injected into. Each of the two workers has a network and a clock of its own."""

    folder: Path
    cluster: Cluster
    source: Path
    proxies: list[CutProxy]
    server_clock: SetClock | None
    worker_clocks: list[SetClock]
    num_images: int
    disks: list[Any] = field(default_factory=list)  # of the home, and of outputs; Any: of the kind that was asked for
    share: Share | None = None  # shows the images
    undisturbed: bytes = b""
    workers: list[Worker] = field(default_factory=list)
    starts: Path = Path()  # of shards, see benchmarks.chaos
    killed: list[Worker] = field(default_factory=list)
    num_jobs: int = 0

    def submit(self, source: Path | None = None) -> tuple[str, Path]:
        """A job over the photographs, and its output."""
        self.num_jobs += 1
        output = self.folder / "out" / f"{self.num_jobs}.csv"
        return self.cluster.submit(
            "classify", str(source or self.source), "--model", "digits", "-o", str(output), "--shard-size", "8"
        ), output

    def ensure_workers(self) -> None:
        """Two workers that are ready; those that ended are replaced."""
        for place in range(2):
            if place < len(self.workers) and self.workers[place].alive:
                continue
            worker = self.cluster.start_worker(wait=False, **self._environment(place))
            self.workers[place : place + 1] = [worker]
        for worker in self.workers:
            wait_until(worker.ready, what="the worker is ready", timeout_s=JOB_S)

    def _environment(self, place: int) -> Mapping[str, str]:
        clock = self.worker_clocks[place].environment if self.worker_clocks else {}
        return {"PIGEONHOLE_SERVER_URL": self.proxies[place].url} | dict(clock)

    def disturbed(
        self, fault: Callable[[], contextlib.AbstractContextManager[None]], *, most_again: int | None = None
    ) -> Found:
        """A job that the fault happens to once some images are done; it is over when its block ends."""
        self.ensure_workers()
        job, output = self.submit()
        self.cluster.wait_for(job, NUM_BEFORE)
        with fault():
            pass
        return self.judge(job, output, most_again=most_again)

    def judge(self, job: str, output: Path, *, most_again: int | None = None) -> Found:
        """Wait for the end of a job whose fault is over, and compare it with the undisturbed one.

        most_again: how many shards may be done twice; None: any number.
        """
        repaired = time.monotonic()
        going_on_s = self._wait_for_progress(job) - repaired
        outcome = self.cluster.outcome(job)
        problems, again = [], self._num_again(job)
        if outcome.state != "succeeded":
            problems.append(f"ended as {outcome.state}: {outcome.error}")
        elif output.read_bytes() != self.undisturbed:
            problems.append("another manifest")
        elif self.cluster.run("results", "verify", str(output)).returncode:
            problems.append("`results verify` refuses it")
        if any(not worker.alive and worker not in self.killed for worker in self.workers):
            problems.append("a worker ended")
        if problems:
            return Found("; ".join(problems), ok=False)
        text = f"{IDENTICAL}; work went on {going_on_s:.1f} s after the fault, {again} shards done again"
        return Found(text, ok=most_again is None or again <= most_again)

    def _wait_for_progress(self, job: str) -> float:
        """When the next shard was done, or the job ended."""
        folder, done = JobFolder.open(self.cluster.settings, job), None

        def went_on() -> bool:
            nonlocal done
            if folder.outcome() is not None:
                return True
            with contextlib.suppress(*SERVER_ERRORS):
                record = self.cluster.ledger.record(job)
                now = record.num_done if record is not None else 0  # a server that was emptied knows it later
                done = now if done is None else done
                return now > done
            return False

        wait_until(went_on, what=f"job {job} goes on\n{self.cluster.logs()}", timeout_s=JOB_S)
        return time.monotonic()

    def _num_again(self, job: str) -> int:
        """How often workers have begun a shard that they or others had begun already."""
        return num_again(self.starts.read_text().splitlines(), job)


def num_again(starts: Iterable[str], job: str) -> int:
    """How many starts of a job's shards are not the first of their shard. starts: lines of `COUNT_STARTS`."""
    begun = [shard for of, shard, *_ in map(str.split, starts) if of == job]
    return len(begun) - len(set(begun))


@dataclass(frozen=True)
class Fault:
    """A fault by name. skip: why it cannot be injected here; None: it can."""

    name: str
    expected: str
    inject: Callable[[Rig], Found]
    skip: str | None = None


@contextlib.contextmanager
def open_rig(folder: Path, num_images: int, disk: type[SmallDisk | HangingDisk] = SmallDisk) -> Iterator[Rig]:
    """A rig with the manifest of an undisturbed job; ends every process that it started."""
    home, source = folder / "home", folder / "in"
    (folder / "out").mkdir()
    disks = [disk(home, 128 << 20), disk(folder / "out", 64 << 20)] if CAN_MOUNT else []
    publish_model(home / "models", "digits")
    make_photographs(source, num_images)
    clocks = []
    for name in ("server", "first", "second") if CAN_SET_CLOCKS else ():
        (folder / name).mkdir()
        clocks.append(SetClock(folder / name))
    server = Server(environment=clocks[0].environment if clocks else None)
    starts = folder / "starts"
    starts.touch()
    (folder / "patch").mkdir()
    (folder / "patch" / "sitecustomize.py").write_text(COUNT_STARTS)
    path = f"{folder / 'patch'}{os.pathsep}{Path(__file__).resolve().parents[1]}"
    own = {"PIGEONHOLE_LEASE_S": str(LEASE_S), "PYTHONPATH": path, "CHAOS_STARTS": str(starts)}
    cluster = Cluster(home, server, own)
    proxies = [CutProxy(server.folder / f"p{place}", f"{server.folder}/s.sock") for place in range(2)]
    mounts = contextlib.ExitStack()
    try:
        server.start()
        rig = Rig(
            folder,
            cluster,
            source,
            proxies,
            clocks[0] if clocks else None,
            clocks[1:],
            num_images,
            disks,
            starts=starts,
        )
        rig.share = mounts.enter_context(shared(source, folder / "share")) if CAN_MOUNT else None
        rig.ensure_workers()
        job, output = rig.submit()
        assert cluster.outcome(job).state == "succeeded", cluster.logs()
        rig.undisturbed = output.read_bytes()
        yield rig
    finally:
        cluster.close()
        for proxy in proxies:
            proxy.close()
        server.stop()
        mounts.close()
        for each in disks:
            each.unmount()
