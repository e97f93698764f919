"""Does every job end, with every row exactly once, whatever dies meanwhile? Workers and servers are killed at random.

    python -m benchmarks.chaos --minutes 10 --seed 7 --jobs 4

Runs classify jobs and small trainings through a real server and two real workers, while at seeded random moments
workers are killed, frozen and told to stop, the server is killed, emptied and frozen, doorbells are lost and doubled,
and part files are damaged (`chaos_faults.py`). Proves every job (`chaos_orders.py`) against an undisturbed run of the
same source, and measures how soon a dead worker's shards are taken over (`chaos_watch.py`). Prints a line a fault and
a table; the last line is JSON and is kept in `benchmarks/results/`. Ends with 1 if a promise was broken.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from redis import RedisError

from benchmarks.chaos_faults import FAULTS, Scene
from benchmarks.chaos_orders import Customer, Ended, Order, Trainer, make_orders, make_training_data
from benchmarks.chaos_watch import Watch
from benchmarks.machine import describe_run, keep
from orchestrator.contract.errors import ExitCode
from orchestrator.contract.jobs.job_folder import active_jobs
from orchestrator.contract.jobs.rows import FORMATS
from orchestrator.contract.queues import ALL_QUEUES
from tests.support.published_models import publish_model
from tests.support.server import Server, wait_until
from tests.support.workers import House

NUM_WORKERS = 2
LATE_S = 15.0  # a dead worker's shards are taken over within this
CALM_S = 240.0  # after the last fault every job ends within this
COUNT_STARTS = """
import os
if "CHAOS_STARTS" in os.environ:
    import orchestrator.contract.jobs.listing as listing
    whole = listing.read_shard
    def read_shard(folder, shard):
        with open(os.environ["CHAOS_STARTS"], "ab", buffering=0) as file:
            file.write(f"{folder.name} {shard}\\n".encode())
        return whole(folder, shard)
    listing.read_shard = read_shard
"""


@dataclass
class Run:
    """Everything of one chaos run."""

    folder: Path
    scene: Scene
    orders: list[Order]
    customers: list[Customer]
    watch: Watch
    started: float = field(default_factory=time.monotonic)
    faults: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """One line with the time since the start."""
        print(f"[{time.strftime('%H:%M:%S')} {time.monotonic() - self.started:6.1f} s] {text}", flush=True)

    def ended(self) -> list[Ended]:
        """Every job that has ended so far."""
        return [ended for customer in self.customers for ended in customer.ended]


@contextmanager
def open_run(seed: int, num_jobs: int, num_images: int) -> Iterator[Run]:
    """A server, two warm workers and the undisturbed results; ends every process that it started."""
    with tempfile.TemporaryDirectory(prefix="ph-chaos-") as home:
        folder = Path(home)
        publish_model(folder / "home" / "models", "digits")
        for name in ("patch", "out", "tmp"):
            (folder / name).mkdir()
        (folder / "patch" / "sitecustomize.py").write_text(COUNT_STARTS)
        path = f"{folder / 'patch'}{os.pathsep}{Path(__file__).resolve().parents[1]}"
        own = {"PYTHONPATH": path, "CHAOS_STARTS": str(folder / "starts"), "TMPDIR": str(folder / "tmp")}
        house = House(folder / "home", Server(), own)
        scene = Scene(house, random.Random(seed))
        try:
            house.server.start()
            yield _prepare(folder, scene, seed, num_jobs, num_images)
        finally:
            _kill_all(house)
            house.server.stop()


def _prepare(folder: Path, scene: Scene, seed: int, num_jobs: int, num_images: int) -> Run:
    house = scene.house
    for _ in range(NUM_WORKERS):
        scene.hire()
    make_training_data(folder / "in")
    orders = make_orders(folder / "in", num_images)
    wait_until(lambda: len(scene.whole()) == NUM_WORKERS, what="the workers are ready", timeout_s=120)
    wanted = [(Customer, f"{seed}-{number}") for number in range(num_jobs)] + [(Trainer, f"{seed}-t")]
    customers = [kind(house.settings, orders, folder / "out", name) for kind, name in wanted]
    for order in orders:
        job = customers[0].classify(order, order.undisturbed)
        assert house.outcome(job).state in ("succeeded", "partial"), house.logs()
        rows = [row.path for row in FORMATS[order.row_format].read(order.undisturbed)]
        assert len(rows) == len(set(rows)) == order.num_images, (len(rows), order)
    (folder / "starts").write_bytes(b"")
    scene.watch = Watch(house.server.url, lambda: bool(scene.whole()), LATE_S)
    return Run(folder, scene, orders, customers, scene.watch)


def _kill_all(house: House) -> None:
    """Workers, and the children of those whose parent was killed: each worker has a session of its own."""
    for worker in house.workers:
        with suppress(ProcessLookupError):
            os.killpg(worker.process.pid, signal.SIGKILL)
        worker.process.wait()


def disturb(run: Run, seconds: float) -> None:
    """Faults at random moments, while customers hand in jobs."""
    for thread in (run.watch, *run.customers):
        thread.start()
    scene, end, following, told = run.scene, time.monotonic() + seconds, 0.0, 0
    while time.monotonic() < end:
        scene.mend()
        _keep_workers(run)
        if time.monotonic() > following:
            fault = scene.random.choices(list(FAULTS), FAULTS.values())[0]
            if (text := fault(scene)) is not None:
                run.faults[fault.__name__] += 1
                run.say(text)
                undisturbed = run.watch.is_following() and scene.random.random() < 0.8  # so that takeovers show
                following = time.monotonic() + scene.random.uniform(*((13, 18) if undisturbed else (1, 7)))
        told = _tell_trouble(run, told)
        time.sleep(0.05)


def _keep_workers(run: Run) -> None:
    """Replace a worker that ended though nobody hurt it; it may do so only where it found no server at its start."""
    for worker in list(run.scene.workers):
        if worker.process.poll() == ExitCode.UNAVAILABLE and "no server answers" in worker.log.read_text():
            run.faults["worker_found_no_server"] += 1
            run.scene.workers.remove(worker)
            run.scene.hire()
        elif worker.process.poll() is not None:
            run.broken.append(f"worker {worker.process.pid} ended by itself with {worker.process.returncode}")
            run.say(f"{run.broken[-1]}:\n{worker.log.read_text()[-3000:]}")
            run.scene.workers.remove(worker)
            run.scene.hire()


def _tell_trouble(run: Run, told: int) -> int:
    """Say what is new since `told` troubles."""
    bad = [ended for ended in run.ended() if ended.trouble]
    for ended in bad[told:]:
        run.say(f"TROUBLE {ended.job} after {ended.seconds:.1f} s: {'; '.join(ended.trouble)}")
    return len(bad)


def calm_down(run: Run) -> None:
    """No more faults: every job ends by itself, every worker told to stop stops, every bell is heard."""
    run.scene.mend(everything=True)
    run.say("no more faults; waiting for the jobs that are open")
    for customer in run.customers:
        customer.leaving.set()
    _await(run, lambda: not any(customer.is_alive() for customer in run.customers), "every job ends")
    run.broken += [f"job {customer.waits_for} does not end" for customer in run.customers if customer.waits_for]
    run.broken += [text for customer in run.customers for text in customer.broken]
    told = run.scene.told_to_stop
    _await(run, lambda: all(worker.process.poll() is not None for worker in told), "every worker told to stop ends")
    run.broken += [f"worker told to stop ended with {w.process.returncode}" for w in told if w.process.returncode]
    _await(run, lambda: not _bells(run), "every doorbell is heard")
    _await(run, lambda: not active_jobs(run.scene.house.settings), "every job is off the list of active ones")
    _await(run, lambda: not _orphans(run), "the children of killed workers end")
    run.watch.leaving.set()
    run.watch.join()


def _await(run: Run, condition: Callable[[], bool], what: str) -> None:
    try:
        wait_until(condition, what=what, timeout_s=CALM_S)
    except TimeoutError as err:
        run.broken.append(str(err))


def _bells(run: Run) -> int:
    try:
        return sum(run.scene.house.ledger.queue_length(queue) for queue in ALL_QUEUES)
    except RedisError:
        return 1


def _orphans(run: Run) -> list[int]:
    """Processes of workers whose parent is dead."""
    dead = {worker.process.pid for worker in run.scene.house.workers if worker.process.poll() is not None}
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            if process.status() != psutil.STATUS_ZOMBIE and os.getsid(process.pid) in dead:
                found.append(process.pid)
    return found


def check_promises(run: Run) -> dict[str, object]:
    """The figures; adds to `run.broken` what was promised and not kept."""
    ended = run.ended()
    jobs = [job for job in ended if job.kind == "classify"]
    starts = (run.folder / "starts").read_text().split("\n")[:-1]
    clean = [t for t in run.watch.takeovers if not t.disturbed]
    taken = [t.seconds or 0 for t in clean if not t.waited_its_turn()]
    queued = [t.seconds or 0 for t in clean if t.waited_its_turn()]
    left = [path.name for path in (run.folder / "out").iterdir() if path.name.startswith(".") or ".tmp" in path.name]
    most = (len(run.customers) + 1) * NUM_WORKERS * 3 + 6  # a worker counts as a listener for 10 s after its death
    run.broken += [f"{job.job}: {text}" for job in ended for text in job.trouble]
    run.broken += [
        f"taken over after {t.seconds:.1f} s: {t}"
        for t in clean
        if (t.seconds or 0) > LATE_S and not t.waited_its_turn()
    ]
    run.broken += [f"left beside outputs: {name}" for name in left]
    run.broken += [f"{run.watch.most_bells} doorbells hung at once"] if run.watch.most_bells > most else []
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
        "shards": len(set(starts)),
        "shards_done_again_percent": round(100 * (len(starts) / max(len(set(starts)), 1) - 1), 2),
        "takeovers_measured": len(taken),
        "takeover_median_s": round(statistics.median(taken), 2) if taken else None,
        "takeover_worst_s": round(max(taken), 2) if taken else None,
        "takeovers_behind_other_jobs": len(queued),
        "takeover_behind_other_jobs_worst_s": round(max(queued), 2) if queued else None,
        "takeovers_with_other_faults": len(run.watch.takeovers) - len(clean),
        "longest_standstill_s": round(run.watch.standstill_s, 1),
        "standstill": run.watch.standstill,
        "most_doorbells": run.watch.most_bells,
        "temporaries_left": len(left),
        "broken_promises": run.broken,
    }


def show(figures: dict[str, object]) -> None:
    """The table."""
    for name, value in figures.items():
        if name == "faults":
            for fault, count in value.items():
                print(f"    {fault:30}{count:>14,}")
        elif name not in ("broken_promises", "standstill"):
            print(f"    {name:30}{json.dumps(value) if isinstance(value, dict) else value!s:>14}")
    for text in figures["broken_promises"]:
        print(f"    BROKEN: {text}")


def main() -> None:
    """Disturb, calm down, check the promises, and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="how long faults happen")
    parser.add_argument("--seed", type=int, default=0, help="of the faults and of the jobs' order")
    parser.add_argument("--jobs", type=int, default=4, help="classify jobs at once")
    parser.add_argument("--num-images", type=int, default=4000, help="28x28 PNGs in the largest job")
    parser.add_argument("--logs", type=Path, help="keep the workers' logs here")
    arguments = parser.parse_args()
    with open_run(arguments.seed, arguments.jobs, arguments.num_images) as run:
        disturb(run, arguments.minutes * 60)
        calm_down(run)
        figures = check_promises(run)
        for worker in run.scene.house.workers if arguments.logs is not None else ():
            arguments.logs.mkdir(parents=True, exist_ok=True)
            (arguments.logs / worker.log.name).write_bytes(worker.log.read_bytes())
    show(figures)
    asked = {"minutes": arguments.minutes, "seed": arguments.seed, "jobs_at_once": arguments.jobs}
    result = describe_run("chaos") | asked | {"figures": figures}
    keep(result, "chaos")
    sys.exit(bool(figures["broken_promises"]))


if __name__ == "__main__":
    main()
