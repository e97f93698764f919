"""Latency, throughput and memory of jobs through queue, workers and manifest: the figures in the documentation.

    make bench-jobs                       about four minutes on 2 CPU cores
    python -m benchmarks.job_flow --num-images 20000 --repeats 3

Starts its own server and worker in a temporary home. Prints a table; the last line is JSON, and both go to
`benchmarks/results/`. Speed is a ratio of two ways measured in turns in one run; absolute figures are of the
machine named in the result.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.machine import describe_run, keep
from modeling.inference.classifier import Classifier
from modeling.inference.pipeline import predict_units
from modeling.registry.store import ModelStore
from orchestrator.contract.jobs.listing import ListingWriter
from orchestrator.contract.jobs.rows import summary_path
from orchestrator.contract.ledger.ledger import Ledger
from orchestrator.contract.queues import ALL_QUEUES
from orchestrator.contract.server import connect
from orchestrator.contract.settings import Settings
from orchestrator.jobs.follow import follow
from orchestrator.jobs.prepare import prepare
from orchestrator.jobs.specs import ClassifySpec
from orchestrator.jobs.submit import JobClient
from orchestrator.stack.stack import Stack
from tests.support.published_models import make_pngs, publish_model
from workers.classify.read import ImageReader


@dataclass
class Bench:
    """A home with a running stack, a model and images."""

    home: Path
    images: Path
    num_images: int
    repeats: int

    def __post_init__(self) -> None:
        self.settings = Settings(home=self.home, server_url=None)
        self.jobs = JobClient(self.settings)
        self.server = connect(self.settings.require_server_url())
        self._number = 0

    def classify(self, source: Path) -> tuple[float, Path]:
        """Submit and follow one job in this process; returns seconds until its end, and its manifest."""
        self._number += 1
        output = self.home.parent / f"out-{self._number}.csv"
        started = time.perf_counter()
        job = self.jobs.submit(prepare(self.settings, ClassifySpec(str(source), "digits", output=output))).job
        for snapshot in follow(self.settings, self.jobs.ledger, job):
            record = snapshot.record
        elapsed_s = time.perf_counter() - started
        assert record.state == "succeeded", record
        return elapsed_s, output


@contextmanager
def open_bench(num_images: int, repeats: int) -> Iterator[Bench]:
    """Start the stack, wait for a warm worker, stop it at the end."""
    with tempfile.TemporaryDirectory(prefix="ph-bench-") as name:
        folder = Path(name)
        publish_model(folder / "home" / "models", "digits")
        make_pngs(folder / "images", num_images)
        stack = Stack(Settings(home=folder / "home", server_url=None))
        stack.up(["cpu"])
        try:
            bench = Bench(folder / "home", folder / "images", num_images, repeats)
            make_pngs(folder / "one", 1)
            bench.classify(folder / "one")  # waits for torch in the worker, and loads the model
            yield bench
        finally:
            stack.down()


def measure_help(bench: Bench) -> dict[str, float]:
    """Seconds of `pigeonhole --help`, and of a Python that does nothing."""
    helping, nothing = [], []
    for _ in range(max(bench.repeats, 5)):
        helping.append(_seconds(lambda: _run("-m", "orchestrator", "--help")))
        nothing.append(_seconds(lambda: _run("-c", "pass")))
    return {"help_s": statistics.median(helping), "python_s": statistics.median(nothing)}


def measure_one_image(bench: Bench) -> dict[str, float]:
    """Seconds from submitting a job of one image to its published manifest, on a warm worker."""
    times = [bench.classify(bench.home.parent / "one")[0] for _ in range(max(bench.repeats * 3, 9))]
    return {"one_image_s": statistics.median(times), "one_image_worst_s": max(times)}


def measure_throughput(bench: Bench) -> dict[str, float]:
    """Images per second of whole jobs, and of the same library in this process, alternating."""
    queued, library = [], []
    for _ in range(bench.repeats):
        library.append(bench.num_images / _seconds(lambda: _classify_in_process(bench)))
        elapsed_s, output = bench.classify(bench.images)
        queued.append(bench.num_images / elapsed_s)
    summary = json.loads(summary_path(output).read_bytes())
    stages = {f"job_{stage}_s": seconds for stage, seconds in summary["timings"]["stage_seconds"].items()}
    return {
        "job_images_per_sec": statistics.median(queued),
        "library_images_per_sec": statistics.median(library),
        "job_to_library": statistics.median(a / b for a, b in zip(queued, library, strict=True)),
        **stages,
    }


def _classify_in_process(bench: Bench) -> None:
    """The decode-batch-predict path over all images, without queue, parts or manifest."""
    classifier = Classifier.load(ModelStore(bench.settings.models).resolve("digits").path)
    reader = ImageReader(str(bench.images), follow_symlinks=False, max_file_bytes=1 << 28)
    paths = sorted(str(path.relative_to(bench.images)) for path in bench.images.rglob("*.png"))
    results = predict_units([map(reader.source, paths)], classifier, top_k=5)
    count = sum(len(result.predictions) for result in results)
    assert count == bench.num_images


def measure_load(bench: Bench) -> dict[str, float]:
    """While a job of all images runs: memory of the submitting command, and the largest number of waiting doorbells."""
    output = bench.home.parent / "load.csv"
    command = ["-m", "orchestrator", "classify", str(bench.images), "--model", "digits", "-o", str(output)]
    environment = os.environ | {"PIGEONHOLE_HOME": str(bench.home)}
    process = subprocess.Popen([sys.executable, *command], env=environment, stderr=subprocess.DEVNULL)
    inside, sizes, most_doorbells = psutil.Process(process.pid), [], 0
    while process.poll() is None:
        most_doorbells = max(most_doorbells, sum(bench.jobs.ledger.queue_length(queue) for queue in ALL_QUEUES))
        sizes.append(inside.memory_info().rss)
        time.sleep(0.05)
    assert process.returncode == 0
    return {"submitter_peak_mb": max(sizes) / 1e6, "most_doorbells": float(most_doorbells)}


def measure_ledger_memory(bench: Bench) -> dict[str, float]:
    """Bytes on the server for each shard of a job of 100,000 shards: all unclaimed, and with a thousand claimed."""
    num_shards, job = 100_000, "c000000-000000-000000"
    ledger = Ledger(bench.server)
    ledger.create(job, {"kind": "classify", "listed": 0})
    ledger.extend(job, num_shards, num_shards * 512, listed=True)
    for _ in range(1000):
        claim = ledger.claim(job, "a-worker-with-a-long-name-cuda0-12345", 600)
        assert not isinstance(claim, str), claim
    claimed = _key_bytes(bench, job)
    while not isinstance(claim := ledger.claim(job, "w", 600), str):
        if claim.shard >= 20_000:
            break
        ledger.commit(claim, num_rows=512, num_failed=0)
    done = _key_bytes(bench, job)
    ledger.finish(job, "cancelled")
    return {"bytes_per_shard_1000_claimed": claimed / num_shards, "bytes_per_shard_20_percent_done": done / num_shards}


def _key_bytes(bench: Bench, job: str) -> int:
    return sum(int(bench.server.memory_usage(key) or 0) for key in bench.server.scan_iter(f"*{job}*"))


def measure_listing(bench: Bench) -> dict[str, float]:
    """Paths per second into a listing on the disk."""
    num_paths = 1_000_000
    folder = bench.home.parent / "listing"
    folder.mkdir()

    def write() -> None:
        with ListingWriter(folder, 512) as writer:
            for number in range(num_paths):
                writer.add(f"2026/11/23/image-{number:09d}.jpg")
            writer.close({})

    return {"listed_paths_per_sec": num_paths / _seconds(write)}


MEASUREMENTS: tuple[Callable[[Bench], dict[str, float]], ...] = (
    measure_help,
    measure_one_image,
    measure_throughput,
    measure_load,
    measure_ledger_memory,
    measure_listing,
)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _run(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)


def main() -> None:
    """Measure, print, and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-images", type=int, default=20_000, help="28x28 PNGs in the large job")
    parser.add_argument("--repeats", type=int, default=3, help="of each comparison; medians are reported")
    arguments = parser.parse_args()
    figures: dict[str, float] = {}
    with open_bench(arguments.num_images, arguments.repeats) as bench:
        for measure in MEASUREMENTS:
            print(f"{measure.__name__.removeprefix('measure_')}: {measure.__doc__}")
            for name, value in measure(bench).items():
                figures[name] = round(value, 4)
                print(f"    {name:34}{value:>14,.3f}", flush=True)
    result = describe_run("job_flow") | {
        "num_images": arguments.num_images,
        "repeats": arguments.repeats,
        "figures": figures,
    }
    keep(result, "job_flow")


if __name__ == "__main__":
    main()
