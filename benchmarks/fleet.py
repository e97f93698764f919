"""A simulated fleet: how many workers and jobs does one server carry, and does every job get its share?

    python -m benchmarks.fleet                     200 workers, 1,000 jobs, 100,000 shards; minutes on quiet cores
    python -m benchmarks.fleet --workers 20 --jobs 30 --shards 1200 --shard-s 0.02

A real server and real job folders; workers take doorbells, turns, claims and leases by the product's code, and wait
instead of classifying (`benchmarks/fleet_workers.py`). A shard of 0.2 s makes the fleet ten times as fast as one whose
shards take two seconds, so it loads the server as ten times as many workers do. A third of the jobs has each priority.

Measured: claims a second, the time of a processor that the server takes for a shard, calls and their latency; the
shares of workers' time by priority while all jobs have work, and how far jobs of one priority are apart; the longest
wait of a job with work, in shards of others and in rounds, which are a shard of each job; sweeps, lists of jobs and of
workers. The last line is JSON, and is kept in `benchmarks/results/`. Exit code 1 if a job did not end, a worker saw an
error, or a job waited for more than `MOST_ROUNDS`.
"""

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from benchmarks.fleet_workers import IMAGES_A_SHARD, Fleet, Noted, TimedLedger, run_workers
from benchmarks.machine import describe_run, keep
from benchmarks.spent import Command
from orchestrator.contract.app import create_app, ring
from orchestrator.contract.jobs.job_folder import JobFolder, new_job_id
from orchestrator.contract.jobs.listing import ListingWriter
from orchestrator.contract.jobs.requests import ClassifyRequest, ModelPin
from orchestrator.contract.ledger.ledger import Ledger
from orchestrator.contract.ledger.words import Priority
from orchestrator.contract.queues import ALL_QUEUES, CLASSIFY
from orchestrator.contract.server import connect
from orchestrator.contract.settings import Settings
from tests.support.fakes import enter_job
from tests.support.server import Server, running_server, wait_until
from workers.sweep import sweep

PIN = ModelPin(name="fake", number=1, digest="d" * 64, preprocessing_digest="p" * 64)
PRIORITIES: tuple[Priority, ...] = ("high", "normal", "low")
WORKERS_A_PROCESS = 50
PATIENCE_S = 3600.0
REAL_SHARD_S = 2.0
MOST_ROUNDS = 3.0  # that a job waits: every second turn goes to the one that has waited longest, so two and some
SHARE_OF_CORE = 0.5  # of the server's core that may be busy: others use the rest


@dataclass(frozen=True)
class Size:
    """Of a fleet and its work."""

    num_workers: int
    num_jobs: int
    num_shards: int
    shard_s: float

    @property
    def shards_a_job(self) -> int:
        return self.num_shards // self.num_jobs


class Bench:
    """A home with jobs, and a server that knows them."""

    def __init__(self, folder: Path, server: Server, size: Size) -> None:
        self.fleet = Fleet(folder / "home", server.url, size.shard_s)
        self.size = size
        self.server = server
        self.ledger = Ledger(connect(server.url))
        self.jobs: dict[str, Priority] = {}
        self.begun = 0.0
        self._app = create_app(server.url)

    @property
    def settings(self) -> Settings:
        return self.fleet.settings

    def make_jobs(self) -> float:
        """Enter all jobs, and one doorbell for each worker; returns seconds of a job's entry."""
        started = time.perf_counter()
        for number in range(self.size.num_jobs):
            priority = PRIORITIES[number % len(PRIORITIES)]
            folder = JobFolder.create(self.settings, _request(self.settings, priority))
            with ListingWriter(folder.work, IMAGES_A_SHARD) as writer:
                for image in range(self.size.shards_a_job * IMAGES_A_SHARD):
                    writer.add(f"{image}.png")
                writer.close({})
            enter_job(folder, self.ledger)
            self.jobs[folder.job] = priority
        return (time.perf_counter() - started) / self.size.num_jobs

    def sweep_alone(self) -> dict[str, Any]:
        """A sweep beside no worker."""
        noted, started, busy_before = Noted(), time.perf_counter(), time.process_time()
        sweep(self.settings, TimedLedger(self.ledger.client, noted), lambda queue, job: None)
        seconds, busy_s = time.perf_counter() - started, time.process_time() - busy_before
        calls = sum(map(len, noted.calls.values()))
        return {"seconds": round(seconds, 3), "processor_s": round(busy_s, 3), "calls": calls}

    def measure_commands(self) -> dict[str, Any]:
        """What operators look at, while all jobs are active and all workers alive."""
        environment = {"PIGEONHOLE_HOME": str(self.fleet.home), "PIGEONHOLE_SERVER_URL": self.server.url}
        commands = (["jobs", "list", "--limit", str(self.size.num_jobs)], ["workers", "list"])
        return {" ".join(words[:2]): asdict(Command(words, environment).end()[1]) for words in commands}

    def run(self) -> tuple[dict[str, Any], list[Noted]]:
        """Let the fleet work until every job has ended; figures of the server, and what workers saw."""
        process = psutil.Process(self.server.pid)
        with self._workers() as (begin, noted):
            busy_before, self.begun = sum(process.cpu_times()[:2]), time.monotonic()
            begin.set()
            for job, _ in zip(self.jobs, range(self.size.num_workers), strict=False):
                ring(self._app, CLASSIFY, job)
            wait_until(lambda: self._num_done() > self.size.num_shards // 20, what="work", timeout_s=PATIENCE_S)
            commands = self.measure_commands()
            most = Most(self.server, self.ledger)
            wait_until(lambda: most.look() or not self.ledger.active(), what="every job ends", timeout_s=PATIENCE_S)
            seconds = time.monotonic() - self.begun
            busy_s = sum(process.cpu_times()[:2]) - busy_before
            rss_mb = process.memory_info().rss / 2**20
        figures = {
            "seconds": round(seconds, 1),
            "claims_per_s": round(self.size.num_shards / seconds, 1),
            "server_busy_percent": round(100 * busy_s / seconds, 1),
            "server_ms_a_shard": round(1000 * busy_s / self.size.num_shards, 3),
            "server_memory_mb": round(most.memory / 2**20, 1),
            "server_rss_mb": round(rss_mb, 1),
            "most_doorbells": most.doorbells,
            "commands": commands,
        }
        return figures, noted

    @contextmanager
    def _workers(self) -> Iterator[tuple[Any, list[Noted]]]:
        """Processes of workers that wait for the beginning; what they saw is there after the block."""
        context = multiprocessing.get_context("spawn")
        names = [f"worker-{number:03d}" for number in range(self.size.num_workers)]
        begin, end, queue = context.Event(), context.Event(), context.Queue()
        processes = [
            context.Process(
                target=run_workers, args=(self.fleet, names[first : first + WORKERS_A_PROCESS], begin, end, queue)
            )
            for first in range(0, len(names), WORKERS_A_PROCESS)
        ]
        for process in processes:
            process.start()
        noted: list[Noted] = []
        try:
            yield begin, noted
        finally:
            begin.set()
            end.set()
            noted += [queue.get(timeout=60) for _ in processes]
            for process in processes:
                process.join()

    def _num_done(self) -> int:
        return self.ledger.counts.read().get("images:ok", 0) // IMAGES_A_SHARD


class Most:
    """The largest memory of a server, and number of doorbells, of several looks."""

    def __init__(self, server: Server, ledger: Ledger) -> None:
        self._server = server
        self._ledger = ledger
        self.memory = self.doorbells = 0

    def look(self) -> bool:
        """Look once more; always False, so that a condition can begin with it."""
        self.memory = max(self.memory, self._server.used_memory())
        self.doorbells = max(self.doorbells, sum(map(self._ledger.queue_length, ALL_QUEUES)))
        return False


def _request(settings: Settings, priority: Priority) -> ClassifyRequest:
    root = str(settings.home)
    return ClassifyRequest.model_validate({
        "job": new_job_id("classify"), "created": datetime.now(UTC), "source": root, "root": root,
        "follow_symlinks": False, "model": PIN, "output": "", "output_format": "csv", "overwrite": False,
        "top_k": 1, "shard_size": IMAGES_A_SHARD, "priority": priority,
    })  # fmt: skip


def shares(commits: Sequence[tuple[float, str]], jobs: Mapping[str, Priority], shards_a_job: int) -> dict[str, Any]:
    """What each priority got while all jobs had work: a job's share of the shards, and how far jobs are apart."""
    counts: Counter[str] = Counter()
    for _, job in commits:
        counts[job] += 1
        if counts[job] == shards_a_job:
            break
    found: dict[str, Any] = {"shards": counts.total()}
    for priority in PRIORITIES:
        of_jobs = [counts[job] for job, its in jobs.items() if its == priority]
        if of_jobs:
            mean = statistics.fmean(of_jobs)
            found[priority] = {"mean": round(mean, 2), "least": min(of_jobs), "most": max(of_jobs)}
    return found


def longest_wait(commits: Sequence[tuple[float, str]], jobs: Collection[str]) -> int:
    """The most shards of others that were done between two of a job, its first one included."""
    last = dict.fromkeys(jobs, -1)
    longest = 0
    for number, (_, job) in enumerate(commits):
        longest = max(longest, number - last[job] - 1)
        last[job] = number
    return longest


def calls(noted: Sequence[Noted]) -> dict[str, dict[str, float]]:
    """Number and latency of the calls of each script."""
    all_calls: dict[str, list[float]] = defaultdict(list)
    for each in noted:
        for script, seconds in each.calls.items():
            all_calls[script] += seconds
    return {
        script: {"calls": len(found), "p50_ms": _ms(found, 0.5), "p99_ms": _ms(found, 0.99)}
        for script, found in sorted(all_calls.items())
    }


def _ms(seconds: Sequence[float], share: float) -> float:
    return round(1000 * sorted(seconds)[int(share * (len(seconds) - 1))], 2)


def figures_of(bench: Bench, server: dict[str, Any], noted: Sequence[Noted]) -> dict[str, Any]:
    """The figures of a run."""
    size = bench.size
    commits = sorted(commit for each in noted for commit in each.commits)
    wait = longest_wait(commits, bench.jobs)
    sweeps = [seconds for each in noted for seconds in each.sweeps]
    real_workers = SHARE_OF_CORE / (server["server_ms_a_shard"] / 1000) * REAL_SHARD_S
    return server | {
        "jobs_ended": sum(each.ended for each in noted),
        "shares": shares(commits, bench.jobs, size.shards_a_job),
        "longest_wait": {"shards_of_others": wait, "rounds": round(wait / size.num_jobs, 2)},
        "sweeps": {
            "number": len(sweeps),
            "median_s": round(statistics.median(sweeps), 3),
            "most_s": round(max(sweeps), 3),
        },
        "workers_at_half_a_core": round(real_workers),
        "scripts": calls(noted),
        "errors": [error for each in noted for error in each.errors][:20],
    }


def measure(folder: Path, size: Size) -> dict[str, Any]:
    """Run a fleet in an empty folder."""
    with running_server() as server:
        bench = Bench(folder, server, size)
        entry_s = bench.make_jobs()
        alone = bench.sweep_alone()
        server_figures, noted = bench.run()
        found = figures_of(bench, server_figures, noted)
    return {"entry_s_a_job": round(entry_s, 4), "sweep_alone": alone, **found}


def is_good(figures: Mapping[str, Any], size: Size) -> bool:
    """Whether every job has ended, without an error, and none was starved."""
    starved = figures["longest_wait"]["rounds"] > MOST_ROUNDS
    return not figures["errors"] and figures["jobs_ended"] == size.num_jobs and not starved


def main() -> None:
    """Measure, print, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--shards", type=int, default=100_000, help="of all jobs")
    parser.add_argument("--shard-s", type=float, default=0.2, help="seconds that a shard takes")
    parser.add_argument("--output", type=Path, help="file for the figures, instead of benchmarks/results/")
    arguments = parser.parse_args()
    size = Size(arguments.workers, arguments.jobs, arguments.shards, arguments.shard_s)
    with tempfile.TemporaryDirectory(prefix="ph-fleet-") as name:
        figures = measure(Path(name), size)
    for key, value in figures.items():
        for inner, each in value.items() if isinstance(value, dict) else {"": value}.items():
            print(f"    {key:32}{inner:22}{each}")
    keep(describe_run("fleet") | asdict(size) | {"figures": figures}, "fleet", arguments.output)
    sys.exit(not is_good(figures, size))


if __name__ == "__main__":
    main()
