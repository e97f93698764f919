"""Does every job end, with every row exactly once, while workers and servers are killed at random?

    python -m benchmarks.chaos --minutes 10 --seed 7 --jobs 4
    python -m benchmarks.chaos --lines            pushed images instead of jobs: see benchmarks/chaos_lines.py

Runs classify jobs and small trainings through a real server and two real workers. At seeded random moments it kills,
freezes and stops workers, kills, empties and freezes the server, loses and duplicates doorbells, damages part files,
and moves folders of images away (`chaos_faults.py`). It compares every job with an undisturbed run of the same source
(`chaos_jobs.py`), and measures how soon a dead worker's shards are taken over (`chaos_watch.py`). It prints a line for
each fault on standard error, and a table; the last line is JSON and is kept in `benchmarks/results/`. Exit code 1 if a
promise was broken.
"""

import argparse
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from redis import RedisError

from benchmarks import chaos_lines
from benchmarks.chaos_faults import FAULTS, Target
from benchmarks.chaos_jobs import Client, EndedJob, TrainClient, Workload, make_training_data, make_workloads
from benchmarks.chaos_watch import Monitor
from benchmarks.lines.system import DIGITS, PHOTOGRAPHS
from benchmarks.machine import describe_run, keep
from orchestrator.contract.errors import ExitCode
from orchestrator.contract.jobs.job_folder import active_jobs
from orchestrator.contract.jobs.rows import FORMATS
from orchestrator.contract.queues import ALL_QUEUES
from tests.support.cut_proxy import CutProxy
from tests.support.published_models import publish_model
from tests.support.server import Server, wait_until
from tests.support.workers import Cluster

NUM_WORKERS = 2
LATE_S = 15.0  # a dead worker's shards are taken over within this
CALM_S = 240.0  # after the last fault every job ends within this
COUNT_STARTS = """
import os, time
if "CHAOS_STARTS" in os.environ:
    import orchestrator.contract.jobs.listing as listing
    original = listing.read_shard
    def read_shard(folder, shard):
        with open(os.environ["CHAOS_STARTS"], "ab", buffering=0) as file:
            file.write(f"{folder.name} {shard} {os.getpid()} {time.time():.3f}\\n".encode())
        return original(folder, shard)
    listing.read_shard = read_shard
"""


@dataclass
class Run:
    """The state of one chaos run."""

    folder: Path
    target: Target
    workloads: list[Workload]
    clients: list[Client]
    monitor: Monitor
    started: float = field(default_factory=time.monotonic)
    faults: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    calm_s: float = CALM_S  # how long the end is waited for

    def log(self, text: str) -> None:
        """Print a line with the time since the start, on standard error."""
        now = f"[{time.strftime('%H:%M:%S')} {time.monotonic() - self.started:6.1f} s]"
        print(f"{now} {text}", file=sys.stderr, flush=True)

    def ended(self) -> list[EndedJob]:
        """Every job that has ended so far."""
        return [ended for client in self.clients for ended in client.ended]


@dataclass(frozen=True)
class Rhythm:
    """Which faults come, with their frequencies, and the seconds between two.

    takeover_pause_s: mostly, while shards of a killed worker wait, so that it can be measured how long.
    """

    faults: Mapping[Callable[[Target], str | None], int]
    pause_s: tuple[float, float]
    takeover_pause_s: tuple[float, float]


RHYTHM = Rhythm(FAULTS, pause_s=(1, 7), takeover_pause_s=(13, 18))


@contextmanager
def open_run(seed: int, num_jobs: int, num_images: int, *, can_cut: bool = False) -> Iterator[Run]:
    """A server, two warm workers and the undisturbed results; ends every process that it started.

    can_cut: the workers' network is one that can be cut.
    """
    with tempfile.TemporaryDirectory(prefix="ph-chaos-") as home:
        folder = Path(home)
        publish_model(folder / "home" / "models", "digits")
        for name in ("patch", "out", "tmp"):
            (folder / name).mkdir()
        (folder / "patch" / "sitecustomize.py").write_text(COUNT_STARTS)
        path = f"{folder / 'patch'}{os.pathsep}{Path(__file__).resolve().parents[1]}"
        own = {"PYTHONPATH": path, "CHAOS_STARTS": str(folder / "starts"), "TMPDIR": str(folder / "tmp")}
        cluster = Cluster(folder / "home", Server(), own)
        target = Target(cluster, random.Random(seed))
        try:
            cluster.server.start()
            if can_cut:
                target.network = CutProxy(cluster.server.folder / "p", f"{cluster.server.folder}/s.sock")
            yield _prepare(folder, target, seed, num_jobs, num_images)
        finally:
            _kill_all(cluster)
            if target.network is not None:
                target.network.close()
            cluster.server.stop()


def _prepare(folder: Path, target: Target, seed: int, num_jobs: int, num_images: int) -> Run:
    cluster = target.cluster
    for _ in range(NUM_WORKERS):
        target.start_worker()
    make_training_data(folder / "in")
    workloads = make_workloads(folder / "in", num_images)
    wait_until(lambda: len(target.healthy()) == NUM_WORKERS, what="the workers are ready", timeout_s=120)
    wanted = [(Client, f"{seed}-{number}") for number in range(num_jobs)] + [(TrainClient, f"{seed}-t")]
    clients = [kind(cluster.settings, workloads, folder / "out", name) for kind, name in wanted]
    for workload in workloads:
        job = clients[0].classify(workload, workload.undisturbed)
        assert cluster.outcome(job).state in ("succeeded", "partial"), cluster.logs()
        rows = [row.path for row in FORMATS[workload.row_format].read(workload.undisturbed)]
        assert len(rows) == len(set(rows)) == workload.num_images, (len(rows), workload)
    (folder / "starts").write_bytes(b"")
    target.sources = [workload.source for workload in workloads]
    for client in clients:
        client.listing = target.listing
    target.monitor = Monitor(cluster.server.url, lambda: bool(target.healthy()), LATE_S)
    return Run(folder, target, workloads, clients, target.monitor)


def _kill_all(cluster: Cluster) -> None:
    """Kill the workers, and the children of killed parents: each worker has its own session."""
    for worker in cluster.workers:
        with suppress(ProcessLookupError):
            os.killpg(worker.process.pid, signal.SIGKILL)
        worker.process.wait()


def start_clients(run: Run) -> None:
    """From here on jobs are submitted, and watched."""
    for thread in (run.monitor, *run.clients):
        thread.start()


def inject_faults(run: Run, seconds: float, rhythm: Rhythm) -> None:
    """Inject faults at random moments."""
    target, end, next_fault, num_printed = run.target, time.monotonic() + seconds, 0.0, 0
    while time.monotonic() < end:
        target.repairs.make()
        _keep_workers(run)
        if time.monotonic() > next_fault:
            fault = target.random.choices(list(rhythm.faults), list(rhythm.faults.values()))[0]
            if (text := fault(target)) is not None:
                run.faults[fault.__name__] += 1
                run.log(text)
                waits = run.monitor.is_following() and target.random.random() < 0.8
                pause = target.random.uniform(*(rhythm.takeover_pause_s if waits else rhythm.pause_s))
                next_fault = time.monotonic() + pause
        num_printed = _print_failures(run, num_printed)
        time.sleep(0.05)


def _keep_workers(run: Run) -> None:
    """Replace a worker that ended without a fault; it may do so only if it found no server at its start."""
    for worker in list(run.target.workers):
        if worker.process.poll() == ExitCode.UNAVAILABLE and "no server answers" in worker.log.read_text():
            run.faults["worker_found_no_server"] += 1
            run.target.workers.remove(worker)
            run.target.start_worker()
        elif worker.process.poll() is not None:
            run.broken.append(f"worker {worker.process.pid} ended by itself with {worker.process.returncode}")
            run.log(f"{run.broken[-1]}:\n{worker.log.read_text()[-3000:]}")
            run.target.workers.remove(worker)
            run.target.start_worker()


def _print_failures(run: Run, num_printed: int) -> int:
    """Print the failed jobs after the first `num_printed`; returns their number."""
    bad = [ended for ended in run.ended() if ended.problems]
    for ended in bad[num_printed:]:
        run.log(f"FAILED {ended.job} after {ended.seconds:.1f} s: {'; '.join(ended.problems)}")
    return len(bad)


def wait_for_end(run: Run, calm_s: float = CALM_S) -> None:
    """Without further faults, every job ends, every stopped worker ends, and every doorbell is taken."""
    run.calm_s = calm_s
    run.target.repairs.make(everything=True)
    run.log("no more faults; waiting for the active jobs")
    for client in run.clients:
        client.stopping.set()
    await_or_report(run, lambda: not any(client.is_alive() for client in run.clients), "every job ends")
    run.broken += [f"job {client.waiting_for} does not end" for client in run.clients if client.waiting_for]
    run.broken += [text for client in run.clients for text in client.broken]
    stopping = run.target.stopped
    await_or_report(
        run, lambda: all(worker.process.poll() is not None for worker in stopping), "every stopped worker ends"
    )
    run.broken += [f"a stopped worker ended with {w.process.returncode}" for w in stopping if w.process.returncode]
    await_or_report(run, lambda: not _num_doorbells(run), "every doorbell is taken")
    await_or_report(run, lambda: not active_jobs(run.target.cluster.settings), "no job is active")
    await_or_report(run, lambda: not _orphans(run), "the children of killed workers end")
    run.monitor.stopping.set()
    run.monitor.join()


def await_or_report(run: Run, condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition; it is a broken promise if it never comes."""
    try:
        wait_until(condition, what=what, timeout_s=run.calm_s)
    except TimeoutError as err:
        run.broken.append(str(err))


def _num_doorbells(run: Run) -> int:
    try:
        return sum(run.target.cluster.ledger.queue_length(queue) for queue in ALL_QUEUES)
    except RedisError:
        return 1


def _orphans(run: Run) -> list[int]:
    """Processes of workers whose parent is dead."""
    dead = {worker.process.pid for worker in run.target.cluster.workers if worker.process.poll() is not None}
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            if process.status() != psutil.STATUS_ZOMBIE and os.getsid(process.pid) in dead:
                found.append(process.pid)
    return found


def check_promises(run: Run, late_s: float = LATE_S) -> dict[str, Any]:
    """The figures; adds the broken promises to `run.broken`. late_s: a dead worker's shards are taken over by then."""
    ended = run.ended()
    jobs = [job for job in ended if job.kind == "classify"]
    starts = [line.split()[:2] for line in (run.folder / "starts").read_text().splitlines()]  # jobs and shards
    clean = [t for t in run.monitor.takeovers if not t.disturbed]
    taken = [t.seconds or 0 for t in clean if not t.waited_its_turn()]
    queued = [t.seconds or 0 for t in clean if t.waited_its_turn()]
    left = [path.name for path in (run.folder / "out").iterdir() if path.name.startswith(".") or ".tmp" in path.name]
    most = (len(run.clients) + 1) * NUM_WORKERS * 3 + 6  # a worker counts as a listener for 10 s after its death
    run.broken += [f"{job.job}: {text}" for job in ended for text in job.problems]
    run.broken += [
        f"taken over after {t.seconds:.1f} s: {t}"
        for t in clean
        if (t.seconds or 0) > late_s and not t.waited_its_turn()
    ]
    run.broken += [f"left beside outputs: {name}" for name in left]
    run.broken += [f"{num} doorbells waited at the same time"] if (num := run.monitor.most_doorbells) > most else []
    return {
        "num_faults": run.faults.total(),
        "faults": dict(sorted(run.faults.items())),
        "classify_jobs": len(jobs),
        "trainings": dict(Counter(job.state for job in ended if job.kind == "train")),
        "images": sum(job.num_images for job in jobs),
        "rows_missing": sum(job.rows_missing for job in jobs),
        "rows_doubled": sum(job.rows_doubled for job in jobs),
        "manifests_identical": sum(job.identical for job in jobs),
        "manifests_verified": sum(job.verified for job in jobs),
        "job_median_s": round(statistics.median(job.seconds for job in jobs), 1) if jobs else None,
        "job_worst_s": round(max((job.seconds for job in ended), default=0), 1),
        "shards": (num_shards := len({tuple(start) for start in starts})),
        "shards_done_again_percent": round(100 * (len(starts) / max(num_shards, 1) - 1), 2),
        "takeovers_measured": len(taken),
        "takeover_median_s": round(statistics.median(taken), 2) if taken else None,
        "takeover_worst_s": round(max(taken), 2) if taken else None,
        "takeovers_behind_other_jobs": len(queued),
        "takeover_behind_other_jobs_worst_s": round(max(queued), 2) if queued else None,
        "takeovers_with_other_faults": len(run.monitor.takeovers) - len(clean),
        "longest_standstill_s": round(run.monitor.standstill_s, 1),
        "standstill": run.monitor.standstill,
        "most_doorbells": run.monitor.most_doorbells,
        "temporaries_left": len(left),
        "broken_promises": run.broken,
    }


def show(figures: dict[str, Any]) -> None:
    """Print the table."""
    for name, value in figures.items():
        if name == "faults":
            for fault, count in value.items():
                print(f"    {fault:30}{count:>14,}")
        elif name not in ("broken_promises", "standstill"):
            print(f"    {name:30}{json.dumps(value) if isinstance(value, dict) else value!s:>14}")
    for text in figures["broken_promises"]:
        print(f"    BROKEN: {text}")


def main() -> None:
    """Inject faults, wait for the end, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="minutes with faults")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the faults and of the order of jobs")
    parser.add_argument("--jobs", type=int, default=4, help="classify jobs at the same time")
    parser.add_argument("--num-images", type=int, default=4000, help="28x28 PNGs in the largest job")
    parser.add_argument("--logs", type=Path, help="keep the workers' logs here")
    parser.add_argument("--lines", action="store_true", help="push images to a line, instead of submitting jobs")
    parser.add_argument("--pushes", type=int, default=10_000, help="with --lines: pushes of each run")
    parser.add_argument("--runs", default="workers,all", help="with --lines: workers, all or both, with a comma")
    parser.add_argument("--digits", action="store_true", help="with --lines: 28x28 images and a small network")
    arguments = parser.parse_args()
    if arguments.lines:
        subject = DIGITS if arguments.digits else PHOTOGRAPHS
        chaos_lines.main(arguments.runs.split(","), subject, arguments.pushes, arguments.seed)
    with open_run(arguments.seed, arguments.jobs, arguments.num_images) as run:
        start_clients(run)
        inject_faults(run, arguments.minutes * 60, RHYTHM)
        wait_for_end(run)
        figures = check_promises(run)
        for worker in run.target.cluster.workers if arguments.logs is not None else ():
            arguments.logs.mkdir(parents=True, exist_ok=True)
            (arguments.logs / worker.log.name).write_bytes(worker.log.read_bytes())
    show(figures)
    asked = {"minutes": arguments.minutes, "seed": arguments.seed, "jobs_at_once": arguments.jobs}
    result = describe_run("chaos") | asked | {"figures": figures}
    keep(result, "chaos")
    sys.exit(bool(figures["broken_promises"]))


if __name__ == "__main__":
    main()
