"""Does a job that takes a minute end with the same bytes, whatever is killed every two seconds?

    python -m benchmarks.schedules --seeds 50 [--first 1] [--at-once 4] [-o FILE]
    python -m benchmarks.schedules --seed 7                 one schedule again: it follows from the seed alone

Two workers with a model that sleeps (`stub_model.py`) do a job; every 2 seconds one of them, its pool child or its
parent alone, or the server is killed, or a worker is frozen for longer than a lease, as the seed has it
(`chaos_schedule.py`). What was killed is started again; a strike at a worker that still starts waits for it, so that
there are fewer of them on a busy machine. The manifest must have the bytes of an undisturbed run, with no row lost or
doubled and no error in any row; a shard may be done again only where a worker that was killed or frozen had begun it.
Schedules are printed on standard error; the last line is JSON. Exit code 1 if a promise was broken, or a job was struck
less than every 6 seconds.
"""

import argparse
import itertools
import signal
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.chaos import COUNT_STARTS
from benchmarks.chaos_jobs import compare_rows
from benchmarks.chaos_schedule import EVERY_S, Strike, Supervisor, schedule
from benchmarks.machine import describe_run, keep
from benchmarks.stub_model import BATCH_SIZE, BATCHES, as_stub
from modeling.names import text_to_path
from orchestrator.contract.errors import PigeonholeError
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.rows import FORMATS
from orchestrator.jobs.prepare import prepare
from orchestrator.jobs.results import find_published
from orchestrator.jobs.specs import ClassifySpec
from orchestrator.jobs.submit import JobClient
from orchestrator.jobs.verification import verify
from tests.support.published_models import make_pngs, publish_model
from tests.support.server import Server, wait_until
from tests.support.workers import Cluster

FAULT_CODES = ("crashed_worker", "given_up", "too_slow")
PATIENCE_S = 1200.0
TICK_S = 0.02
RARELY = 3.0  # times the seconds between two strikes: a job that is struck less often, on average, shows too little
stopping = threading.Event()  # no thread waits any longer


@dataclass(frozen=True)
class Work:
    """The job of every seed. batch_s: how long the model sleeps for each batch."""

    source: Path
    num_images: int
    shard_size: int
    batch_s: float
    every_s: float = EVERY_S

    @property
    def num_shards(self) -> int:
        return -(-self.num_images // self.shard_size)


@dataclass
class Result:
    """What became of one seed.

    strikes: those that struck a process. rows_failed: with an error of `FAULT_CODES`. again: shards that were done
    again. unexplained: those that nobody was killed with.
    """

    seed: int
    seconds: float
    strikes: int
    identical: bool
    rows_missing: int = 0
    rows_doubled: int = 0
    rows_failed: int = 0
    shards: int = 0
    again: int = 0
    unexplained: int = 0
    problems: list[str] = field(default_factory=list)


@contextmanager
def open_supervisor(folder: Path, batch_s: float, note_batches: Path | None = None) -> Iterator[Supervisor]:
    """A server and two ready workers with the stub; all ended at the end. note_batches: a file for their ends."""
    publish_model(folder / "home" / "models", "digits")
    (folder / "tmp").mkdir()
    own = {"CHAOS_STARTS": str(folder / "starts"), "TMPDIR": str(folder / "tmp")}
    if note_batches is not None:
        note_batches.touch()
        own[BATCHES] = str(note_batches)
    cluster = Cluster(folder / "home", Server(), as_stub(own, folder / "patch", batch_s, start=COUNT_STARTS))
    supervisor = Supervisor(cluster)
    try:
        cluster.server.start()
        supervisor.start()
        wait_until(
            lambda: all(worker.ready() for worker in supervisor.workers), what="the workers are ready", timeout_s=120
        )
        yield supervisor
    finally:
        supervisor.end()
        cluster.close()
        cluster.server.stop()


def submit(cluster: Cluster, work: Work, output: Path) -> JobFolder:
    spec = ClassifySpec(str(work.source), "digits", output=output, shard_size=work.shard_size)
    job = JobClient(cluster.settings).submit(prepare(cluster.settings, spec)).job
    return JobFolder.open(cluster.settings, job)


def run_undisturbed(folder: Path, work: Work) -> tuple[Path, float]:
    """The manifest of a run that nothing happens to, and its seconds."""
    with open_supervisor(folder, work.batch_s) as supervisor:
        started, output = time.monotonic(), folder / "out.csv"
        job = submit(supervisor.cluster, work, output)
        wait_until(lambda: job.outcome() is not None, what="the undisturbed job ends", timeout_s=PATIENCE_S)
        return output, time.monotonic() - started


def run_seed(folder: Path, seed: int, work: Work, undisturbed: Path) -> Result:
    """One job under the schedule of a seed."""
    with open_supervisor(folder, work.batch_s) as supervisor:
        job, started = submit(supervisor.cluster, work, folder / "out.csv"), time.monotonic()
        strikes = strike_until_end(supervisor, job, schedule(seed, work.every_s))
        result = Result(seed, round(time.monotonic() - started, 1), len(strikes), False, shards=work.num_shards)
        judge(supervisor, job, undisturbed, result)
        starts = (folder / "starts").read_text().splitlines()
        result.again, unexplained = done_again(starts, supervisor.hit, supervisor.orphans)
        result.unexplained = len(unexplained)
        result.problems += unexplained
    if result.seconds > RARELY * work.every_s * max(result.strikes, 1):
        result.problems.append(f"struck {result.strikes} times in {result.seconds} s")
    say("\n".join([f"seed {seed}: {(is_good(result) and 'good') or 'BROKEN'} {result}", *map(str, strikes)]))
    return result


def strike_until_end(supervisor: Supervisor, job: JobFolder, planned: Iterator[Strike]) -> list[Strike]:
    """Carry out strikes until the job ends, and keep everything running; the strikes that struck a process."""
    started, late_s, strikes, following = time.monotonic(), 0.0, list[Strike](), next(planned, None)
    while job.outcome() is None and time.monotonic() - started < PATIENCE_S and not stopping.is_set():
        supervisor.keep_running()
        if following is not None and supervisor.is_due(following, time.monotonic() - started - late_s):
            strikes += [following] if supervisor.strike(following) else []
            late_s = time.monotonic() - started - following.at_s  # the next one comes as long after this one
            following = next(planned, None)
        time.sleep(TICK_S)
    supervisor.end()
    return strikes


def judge(supervisor: Supervisor, job: JobFolder, undisturbed: Path, result: Result) -> None:
    """Enter into the result how the job ended."""
    outcome = job.outcome()
    result.problems += supervisor.problems
    if outcome is None or outcome.state != "succeeded" or outcome.result is None:
        result.problems.append(f"ended as {outcome and (outcome.state, outcome.error)}\n{supervisor.cluster.logs()}")
    else:
        compare(supervisor.cluster, Path(text_to_path(outcome.result)), undisturbed, result)


def compare(cluster: Cluster, output: Path, undisturbed: Path, result: Result) -> None:
    """Enter into the result how the manifest differs from the undisturbed one."""
    result.identical = output.read_bytes() == undisturbed.read_bytes()
    result.rows_missing, result.rows_doubled = compare_rows(output, undisturbed)
    result.rows_failed = sum(row.prediction.error_code in FAULT_CODES for row in FORMATS["csv"].read(output))
    try:
        result.problems += verify(cluster.settings, find_published(cluster.settings, str(output))).differences
    except PigeonholeError as err:
        result.problems.append(str(err))


def done_again(
    starts: Iterable[str], hit: Mapping[int, Sequence[float]], orphans: Set[int] = frozenset()
) -> tuple[int, list[str]]:
    """How many shards were begun again, and which of them although nobody who had begun them was killed or frozen.

    starts: lines of `COUNT_STARTS`. hit: when each process was killed or frozen, by its id. orphans: those whose parent
    was killed.
    """
    begun: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for line in starts:
        _, shard, process, moment = line.split()
        begun[shard].append((float(moment), int(process)))
    again, unexplained = 0, []
    for shard, times in begun.items():
        for (at, pid), (later, by) in itertools.pairwise(sorted(times)):
            again += 1
            if pid not in orphans and not any(at <= when <= later for when in hit.get(pid, [])):
                unexplained.append(f"shard {shard} was begun by {pid}, and {later - at:.1f} s later by {by}")
    return again, unexplained


def run_seeds(seeds: Sequence[int], work: Work, folder: Path, at_once: int) -> tuple[list[Result], float]:
    """The results of all seeds, some at the same time, and the seconds of the undisturbed run."""
    undisturbed, seconds = run_undisturbed(folder / "undisturbed", work)
    say(f"undisturbed: {seconds:.1f} s")
    with ThreadPoolExecutor(at_once) as pool:
        try:
            results = pool.map(lambda seed: run_seed(folder / f"seed-{seed}", seed, work, undisturbed), seeds)
            return list(results), seconds
        except BaseException:
            stopping.set()
            pool.shutdown(wait=False, cancel_futures=True)  # those that run end soon
            raise


def is_good(result: Result) -> bool:
    return result.identical and not (result.problems or result.rows_failed)


def say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def figures_of(results: Sequence[Result], undisturbed_s: float) -> dict[str, Any]:
    """The table."""
    shards = sum(result.shards for result in results)
    rates = sorted(round(result.seconds / max(result.strikes, 1), 2) for result in results)
    return {
        "seeds": len(results), "identical": sum(result.identical for result in results),
        "good": sum(is_good(result) for result in results), "undisturbed_s": round(undisturbed_s, 1),
        "job_s": sorted(result.seconds for result in results)[len(results) // 2],
        "job_worst_s": max(result.seconds for result in results),
        "strikes": sum(result.strikes for result in results),
        "seconds_per_strike": rates[len(rates) // 2], "seconds_per_strike_worst": rates[-1],
        "rows_missing": sum(result.rows_missing for result in results),
        "rows_doubled": sum(result.rows_doubled for result in results),
        "rows_failed": sum(result.rows_failed for result in results),
        "shards": shards, "shards_done_again": sum(result.again for result in results),
        "done_again_without_a_kill": sum(result.unexplained for result in results),
    }  # fmt: skip


def _stop(*_: object) -> None:
    """End, with the processes that were started."""
    stopping.set()
    sys.exit(1)


def main() -> None:
    """Run the schedules of all seeds, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=50, help="how many")
    parser.add_argument("--first", type=int, default=1, help="the first one")
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--at-once", type=int, default=4, help="seeds at the same time")
    parser.add_argument("--every", type=float, default=EVERY_S, help="seconds between two strikes")
    parser.add_argument("--seconds", type=float, default=65.0, help="of an undisturbed job")
    parser.add_argument("-o", "--output", type=Path, help="file for the result instead of one in results/")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _stop)
    first, number = (options.first, options.seeds) if options.seed is None else (options.seed, 1)
    with tempfile.TemporaryDirectory(prefix="ph-schedules-") as name:
        work = make_work(Path(name), options.seconds, options.every)
        results, undisturbed_s = run_seeds(range(first, first + number), work, Path(name), options.at_once)
    figures = figures_of(results, undisturbed_s)
    for name, value in figures.items():
        print(f"    {name:30}{value!s:>14}")
    kept = {"figures": figures, "results": [asdict(result) for result in results]}
    keep(describe_run("schedules") | kept, "schedules", options.output)
    sys.exit(figures["good"] != figures["seeds"])


def make_work(folder: Path, seconds: float, every_s: float, batch_s: float = 0.25) -> Work:
    """A job that takes two workers so long, in shards of a second."""
    num_images = round(2 * seconds / batch_s) * BATCH_SIZE
    make_pngs(folder / "in", num_images)
    return Work(folder / "in", num_images, round(1 / batch_s) * BATCH_SIZE, batch_s, every_s)


if __name__ == "__main__":
    main()
