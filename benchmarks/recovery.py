"""How soon does work go on after a fault, and how soon does it end after a cancel or SIGTERM?

    python -m benchmarks.recovery [--parts restarts,freezes,takeovers,cancels,stops] [--times 0.1] [-o FILE]

Two workers with a model that sleeps (`stub_model.py`) do a job of short shards. `restarts`: the server is killed and
started 100 times; `freezes`: it is frozen 30 times, some of them for longer than its clients wait; each time from its
first answer to the next committed shard, and until both workers have begun another. `takeovers`: a worker is killed 20
times, until its shards have another holder. `cancels`: 20 times from the cancel to the last batch. `stops`: 20 times
from SIGTERM to the worker's exit, with short shards and with shards of 20 s. It prints medians and worst cases; the
last line is JSON. Exit code 1 if one is over its limit.
"""

import argparse
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from redis import RedisError

from benchmarks.chaos_schedule import Supervisor
from benchmarks.chaos_watch import Monitor
from benchmarks.machine import describe_run, keep
from benchmarks.schedules import Work, open_supervisor, submit
from benchmarks.stub_model import BATCH_SIZE
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.jobs.submit import JobClient
from tests.support.published_models import make_pngs
from tests.support.server import wait_until
from tests.support.workers import Worker

BATCH_S = 0.1
SHORT, LONG = 4 * BATCH_SIZE, round(20 / BATCH_S) * BATCH_SIZE  # images in a shard
NUM_IMAGES = 8_000  # of a job: 100 seconds for both workers
PATIENCE_S = 120.0  # what takes longer hangs
# of each part: how often, and the seconds that each figure may take
COUNTS = {"restarts": 100, "freezes": 30, "takeovers": 20, "cancels": 20, "stops": 20}
LIMITS_S = {
    "restart_to_commit": 5.0, "freeze_to_commit": 5.0, "restart_to_both": 10.0, "freeze_to_both": 10.0,
    "takeover": 15.0, "cancel_to_last_batch": 2.0,
    "sigterm_to_exit_short_shards": 10.0, "sigterm_to_exit_long_shards": 10.0,
}  # fmt: skip


@dataclass
class Bench:
    """Workers with a job to do, and what was measured: seconds, by figure."""

    supervisor: Supervisor
    folder: Path
    work: Work
    chance: random.Random
    measured: dict[str, list[float]] = field(default_factory=dict)
    job: JobFolder | None = None
    num_jobs: int = 0

    def note(self, figure: str, seconds: float) -> None:
        self.measured.setdefault(figure, []).append(round(seconds, 3))
        print(f"{figure} {len(self.measured[figure])}: {seconds:.2f} s", file=sys.stderr, flush=True)

    def start_job(self, shard_size: int = SHORT) -> JobFolder:
        """Another job; both workers are at it on return."""
        self.num_jobs += 1
        work = replace(self.work, shard_size=shard_size)
        self.end_job()
        self.job = submit(self.supervisor.cluster, work, self.folder / f"{self.num_jobs}.csv")
        self.wait_for_both(time.time())
        return self.job

    def keep_busy(self, shard_size: int = SHORT) -> None:
        """Start another job where the present one is half done."""
        if self.job is None or self.job.outcome() is not None or self.num_done() > self.work.num_images / 2:
            self.start_job(shard_size)

    def end_job(self) -> None:
        """Cancel the job, and wait for its end."""
        if (job := self.job) is not None:
            JobClient(self.supervisor.cluster.settings).cancel(job.job)
            self._wait(lambda: job.outcome() is not None, "the job is cancelled")
        self.job = None

    def num_done(self) -> int:
        """Images of the job that are done; -1 where the server does not answer."""
        assert self.job is not None
        try:
            return self.supervisor.cluster.record(self.job.job).num_done
        except (RedisError, AssertionError):  # an emptied server does not know the job yet
            return -1

    def wait_for_commit(self) -> None:
        """Until another shard has been committed."""
        self._wait(lambda: self.num_done() >= 0, "the server answers")
        before = self.num_done()
        self._wait(lambda: self.num_done() > before, "a shard is committed")

    def wait_for_both(self, since: float) -> None:
        """Until two processes have predicted a batch after a moment of `time.time()`."""
        self._wait(lambda: len({pid for pid, at in self.batches() if at > since}) >= 2, "both workers work")

    def batches(self) -> list[tuple[int, float]]:
        """The last batches: by which process, and when they ended."""
        lines = (self.folder / "batches").read_bytes()[-100_000:].decode().splitlines()[1:]
        return [(int(pid), float(at)) for pid, at in (line.split() for line in lines)]

    def wait_until_at_work(self) -> None:
        """Until each worker has a child that is ready."""
        supervisor = self.supervisor

        def ready() -> bool:
            supervisor.keep_running()
            return all(worker.at_work() for worker in supervisor.workers)

        self._wait(ready, "the workers are ready")

    def _wait(self, condition: Callable[[], object], what: str) -> None:
        wait_until(condition, what=f"{what}\n{self.supervisor.cluster.logs()}", timeout_s=PATIENCE_S)


def measure_restarts(bench: Bench, count: int) -> None:
    """Kill the server, and start it within two seconds."""
    server = bench.supervisor.cluster.server
    for _ in range(count):
        bench.keep_busy()
        server.kill()
        time.sleep(bench.chance.uniform(0, 2))
        server.start()
        _note_progress(bench, "restart")
    bench.end_job()


def measure_freezes(bench: Bench, count: int) -> None:
    """Freeze the server, every fifth time for longer than its clients wait for an answer."""
    server = bench.supervisor.cluster.server
    for number in range(count):
        bench.keep_busy()
        server.freeze()
        time.sleep(bench.chance.uniform(16, 20) if number % 5 == 0 else bench.chance.uniform(0.5, 6))
        server.thaw()
        _note_progress(bench, "freeze")
    bench.end_job()


def _note_progress(bench: Bench, what: str) -> None:
    started, since = time.monotonic(), time.time()
    bench.wait_for_commit()
    bench.note(f"{what}_to_commit", time.monotonic() - started)
    bench.wait_for_both(since)
    bench.note(f"{what}_to_both", time.monotonic() - started)


def measure_takeovers(bench: Bench, count: int) -> None:
    """Kill a worker with its child while it holds shards."""
    monitor = Monitor(bench.supervisor.cluster.server.url, lambda: True, LIMITS_S["takeover"])
    monitor.start()
    killed = 0
    while killed < count:
        bench.keep_busy()
        worker = bench.chance.choice(bench.supervisor.workers)
        worker.kill_group()
        bench.supervisor.hit[worker.process.pid] = [time.time()]
        held, known = monitor.died(worker.name), len(monitor.takeovers)
        killed += held > 0
        wait_until(
            lambda known=known, held=held: len(monitor.takeovers) >= known + held,  # type: ignore[misc]
            what="the shards are taken over", timeout_s=PATIENCE_S,
        )  # fmt: skip
        for takeover in monitor.takeovers[known:]:
            bench.note("takeover", takeover.seconds or 0.0)
        bench.wait_until_at_work()
        bench.wait_for_both(time.time())
    monitor.stopping.set()
    monitor.join()
    bench.end_job()


def measure_cancels(bench: Bench, count: int) -> None:
    """Cancel a job that both workers are at."""
    for _ in range(count):
        job, cancelled = bench.start_job(), time.time()
        bench.end_job()
        assert job.outcome() is not None
        bench.note("cancel_to_last_batch", max(0.0, max(at for _, at in bench.batches()) - cancelled))


def measure_stops(bench: Bench, count: int) -> None:
    """Stop a worker in the middle of its shards."""
    for name, shard_size in (("short", SHORT), ("long", LONG)):
        bench.end_job()
        for _ in range(max(1, count // 2)):
            bench.keep_busy(shard_size)
            bench.note(f"sigterm_to_exit_{name}_shards", _stop(bench, bench.chance.choice(bench.supervisor.workers)))
            bench.wait_until_at_work()
            bench.wait_for_both(time.time())
        bench.end_job()


def _stop(bench: Bench, worker: Worker) -> float:
    time.sleep(bench.chance.uniform(0, 1))
    started = time.monotonic()
    worker.terminate()
    code = worker.process.wait(PATIENCE_S)
    assert code == 0, f"ended with {code}:\n{worker.log.read_text()[-3000:]}"
    bench.supervisor.hit[worker.process.pid] = [time.time()]
    return time.monotonic() - started


PARTS: dict[str, Callable[[Bench, int], None]] = {
    "restarts": measure_restarts, "freezes": measure_freezes, "takeovers": measure_takeovers,
    "cancels": measure_cancels, "stops": measure_stops,
}  # fmt: skip


def run(folder: Path, parts: Sequence[str], times: float, seed: int, num_images: int = NUM_IMAGES) -> dict[str, Any]:
    """The figures of some parts. times: how often, relative to `COUNTS`."""
    make_pngs(folder / "in", num_images)
    work = Work(folder / "in", num_images, SHORT, BATCH_S)
    with open_supervisor(folder / "cluster", BATCH_S, note_batches=folder / "batches") as supervisor:
        bench = Bench(supervisor, folder, work, random.Random(seed))
        for part in parts:
            PARTS[part](bench, max(1, round(COUNTS[part] * times)))
    return {name: figure_of(name, seconds) for name, seconds in bench.measured.items()}


def figure_of(name: str, seconds: Sequence[float]) -> dict[str, Any]:
    """Median and worst of a figure, and whether it is within its limit."""
    worst, limit_s = max(seconds), LIMITS_S.get(name)
    return {
        "count": len(seconds), "median_s": round(statistics.median(seconds), 2), "worst_s": round(worst, 2),
        "limit_s": limit_s, "good": limit_s is None or worst <= limit_s,
    }  # fmt: skip


def main() -> None:
    """Measure, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS), help="which, with a comma between two")
    parser.add_argument("--times", type=float, default=1.0, help="how often, relative to the above")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the moments")
    parser.add_argument("-o", "--output", type=Path, help="file for the result instead of one in results/")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that it ends the processes that it started
    with tempfile.TemporaryDirectory(prefix="ph-recovery-") as folder:
        figures = run(Path(folder), options.parts.split(","), options.times, options.seed)
    for name, each in figures.items():
        limit = f"at most {each['limit_s']}" if each["limit_s"] else ""
        print(f"{name:32}{each['count']:>6}{each['median_s']:>9.2f}{each['worst_s']:>9.2f} s  {limit}")
    keep(describe_run("recovery") | {"figures": figures}, "recovery", options.output)
    sys.exit(not all(each["good"] for each in figures.values()))


if __name__ == "__main__":
    main()
