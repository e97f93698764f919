"""Does a job that is resumed give the bytes of an undisturbed one, and do only what is missing?

    python -m benchmarks.resume --runs 30 --seed 7

Classifies one folder undisturbed, then again and again: each time the job is cancelled at a random moment, and resumed
by `pigeonhole jobs resume`. After that it is resumed after a loss: the server and its workers were killed and another
server is started, the server was emptied, the job's entry in the ledger was deleted, half of its parts were deleted.
Every manifest is compared with the undisturbed one byte for byte; the shards that workers read after a resume are
counted, and are to be those that were missing. It prints a line for each resume; the last line is JSON and is kept in
`benchmarks/results/`. Exit code 1 if a manifest differs or a finished shard was done again. A real server, real
workers.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.chaos import COUNT_STARTS
from benchmarks.machine import describe_run, keep
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.listing import count_shards
from orchestrator.jobs.prepare import prepare
from orchestrator.jobs.specs import ClassifySpec
from orchestrator.jobs.submit import JobClient
from tests.support.published_models import make_pngs, publish_model
from tests.support.server import Server, wait_until
from tests.support.workers import Cluster

NUM_WORKERS = 2
SHARD_SIZE = 16


@dataclass(frozen=True)
class Result:
    """One resume: shards that were missing, and shards that workers read after it."""

    what: str
    identical: bool
    num_shards: int
    num_missing: int
    num_read: int
    code: int  # of `jobs resume`
    seconds: float

    @property
    def good(self) -> bool:
        return self.identical and self.num_read == self.num_missing


@dataclass
class Bench:
    """A cluster, a folder of images, and the undisturbed manifest."""

    cluster: Cluster
    folder: Path
    random: random.Random
    num_images: int
    undisturbed: bytes = b""
    undisturbed_s: float = 0.0
    num_jobs: int = 0

    def submit(self) -> tuple[str, Path]:
        """Submit one job; its images are listed when this returns."""
        self.num_jobs += 1
        output = self.folder / "out" / f"{self.num_jobs}.csv"
        spec = ClassifySpec(str(self.folder / "in"), "digits", output=output, shard_size=SHARD_SIZE, need_worker=False)
        return JobClient(self.cluster.settings).submit(prepare(self.cluster.settings, spec)).job, output

    def run_undisturbed(self) -> None:
        """Run a job to its end, twice: the first one loads the model."""
        for _ in range(2):
            started = time.monotonic()
            job, output = self.submit()
            assert self.cluster.outcome(job).state == "succeeded", self.cluster.logs()
            self.undisturbed, self.undisturbed_s = output.read_bytes(), time.monotonic() - started

    def cancel_somewhere(self) -> tuple[str, Path]:
        """A job that was cancelled at a random moment before its end."""
        while True:
            job, output = self.submit()
            time.sleep(self.random.uniform(0, self.undisturbed_s * 0.8))
            JobClient(self.cluster.settings).cancel(job)
            if self.cluster.outcome(job).state == "cancelled":
                return job, output

    def cancel_halfway(self) -> tuple[str, Path]:
        """A job that was cancelled when half of its images were done."""
        job, output = self.submit()
        self.cluster.wait_for(job, self.num_images // 2)
        JobClient(self.cluster.settings).cancel(job)
        state = self.cluster.outcome(job).state
        return (job, output) if state == "cancelled" else self.cancel_halfway()

    def resume(self, what: str, job: str, output: Path, *, before_end: Callable[[], None] = lambda: None) -> Result:
        """Resume a job, wait for its end, and compare; `before_end` is called once it is resumed."""
        folder = JobFolder.open(self.cluster.settings, job)
        num_shards, _ = count_shards(folder.work)
        missing = num_shards - len(list(folder.parts.glob("*.part")))
        self._starts().write_bytes(b"")
        started = time.monotonic()
        done = self.cluster.run("jobs", "resume", job, "--detach")
        before_end()
        wait_until(
            lambda: JobFolder.open(self.cluster.settings, job).outcome() is not None,
            what=f"job {job} ends: {done.stderr}",
            timeout_s=240,
        )
        identical = output.exists() and output.read_bytes() == self.undisturbed
        read = Counter(self._starts().read_text().split("\n")[:-1])
        num_read = sum(number for line, number in read.items() if line.startswith(f"{job} "))
        seconds = round(time.monotonic() - started, 2)
        result = Result(what, identical, num_shards, missing, num_read, done.returncode, seconds)
        print(
            f"{what}: {result}" if not result.good else f"{what}: {missing} of {num_shards} shards missing, identical"
        )
        return result

    def _starts(self) -> Path:
        return self.folder / "starts"


@contextmanager
def open_bench(seed: int, num_images: int) -> Iterator[Bench]:
    """A server, warm workers and the undisturbed manifest; ends every process that it started."""
    with tempfile.TemporaryDirectory(prefix="ph-resume-") as name:
        folder = Path(name)
        publish_model(folder / "home" / "models", "digits")
        make_pngs(folder / "in", num_images)
        for inner in ("patch", "out"):
            (folder / inner).mkdir()
        (folder / "starts").touch()
        (folder / "patch" / "sitecustomize.py").write_text(COUNT_STARTS)
        path = f"{folder / 'patch'}{os.pathsep}{Path(__file__).resolve().parents[1]}"
        cluster = Cluster(folder / "home", Server(), {"PYTHONPATH": path, "CHAOS_STARTS": str(folder / "starts")})
        bench = Bench(cluster, folder, random.Random(seed), num_images)
        try:
            cluster.server.start()
            for _ in range(NUM_WORKERS):
                cluster.start_worker()
            bench.run_undisturbed()
            yield bench
        finally:
            cluster.close()
            cluster.server.stop()


def after_a_loss(bench: Bench) -> Iterator[Result]:
    """Resumes after each loss. The last one kills the workers."""
    job, output = bench.cancel_halfway()
    parts = sorted(JobFolder.open(bench.cluster.settings, job).parts.glob("*.part"))
    for part in parts[::2]:
        part.unlink()
    yield bench.resume("half of the parts deleted", job, output)

    job, output = bench.cancel_halfway()
    bench.cluster.server.empty()
    yield bench.resume("an emptied server", job, output)

    job, output = bench.cancel_halfway()
    client = bench.cluster.ledger.client
    client.delete(*client.keys(f"*job:{job}*"))
    yield bench.resume("the job's entry deleted", job, output)
    yield from _after_deaths(bench)


def _after_deaths(bench: Bench) -> Iterator[Result]:
    """Workers and server die in the middle of a job; another server is started, with nothing in it."""
    job, output = bench.submit()
    bench.cluster.wait_for(job, bench.num_images // 2)
    bench.cluster.dismiss()
    bench.cluster.server.kill()
    bench.cluster.server.lose_files()
    bench.cluster.server.start()
    yield bench.resume("another server", job, output, before_end=lambda: start_workers(bench))


def start_workers(bench: Bench) -> None:
    for _ in range(NUM_WORKERS):
        bench.cluster.start_worker()


def main() -> None:
    """Cancel and resume, lose and resume, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=30, help="jobs that are cancelled at a random moment and resumed")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the moments")
    parser.add_argument("--num-images", type=int, default=20_000, help="28x28 PNGs in each job")
    parser.add_argument(
        "-o", "--output", type=Path, help="where to keep the result; default: below benchmarks/results/"
    )
    arguments = parser.parse_args()
    with open_bench(arguments.seed, arguments.num_images) as bench:
        cancelled = []
        for number in range(arguments.runs):
            cancelled.append(bench.resume(f"cancelled {number + 1}", *bench.cancel_somewhere()))
        lost = list(after_a_loss(bench))
    results = [*cancelled, *lost]
    figures = {
        "undisturbed_s": round(bench.undisturbed_s, 2),
        "cancelled_and_resumed": len(cancelled),
        "identical": sum(result.identical for result in cancelled),
        "shards_missing": sum(result.num_missing for result in results),
        "shards_read": sum(result.num_read for result in results),
        "losses": [asdict(result) for result in lost],
        "not_good": [asdict(result) for result in results if not result.good],
    }
    asked = {"runs": arguments.runs, "seed": arguments.seed, "num_images": arguments.num_images}
    keep(describe_run("resume") | asked | {"figures": figures}, "resume", arguments.output)
    sys.exit(bool(figures["not_good"]))


if __name__ == "__main__":
    main()
