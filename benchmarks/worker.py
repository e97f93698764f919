"""A worker's start time, its memory on large photographs, and the gain of a second worker on the same cores.

`python -m benchmarks.worker [--num-images N] [--num-large N] [--repeats N]` starts a server and workers in a temporary
home, with `resnet18` of random weights, its engines built beforehand. `first_answer_s`: from a worker's start to the
published manifest of one image. `memory`: of the worker's processes together, while it goes through 12-megapixel
photographs; flat if the second half needs no more than the first. `two_workers`: images a second of two workers, by
those of one. The last line is JSON, which goes to `benchmarks/results/`, too.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks.machine import describe_run, keep
from benchmarks.throughput_folders import FOLDERS
from benchmarks.throughput_networks import publish_network
from modeling.inference.choose_engine import load_fastest
from modeling.registry.store import ModelVersion
from orchestrator.contract.settings import Settings
from orchestrator.jobs.follow import follow
from orchestrator.jobs.prepare import prepare
from orchestrator.jobs.specs import ClassifySpec
from orchestrator.jobs.submit import JobClient
from orchestrator.stack.stack import Stack

SAMPLE_EVERY_S = 0.2


class Bench:
    """A home with a model whose engines are built, and folders of images."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.settings = Settings(home=scratch / "home", server_url=None)
        self.version: ModelVersion = publish_network(self.settings.models, "resnet18")
        self.engine = load_fastest(self.version).engine.name
        self._number = 0

    def classify(self, folder: Path) -> float:
        """Seconds of a whole job."""
        self._number += 1
        started = time.perf_counter()
        client = JobClient(self.settings)
        spec = ClassifySpec(
            str(folder), self.version.name, output=self.scratch / f"out-{self._number}.csv", shard_size=64
        )
        for snapshot in follow(self.settings, client.ledger, client.submit(prepare(self.settings, spec)).job):
            record = snapshot.record
        assert record.state == "succeeded", record
        return time.perf_counter() - started

    @contextmanager
    def worker(self) -> Iterator[Stack]:
        """A running stack with one worker."""
        stack = Stack(self.settings)
        stack.up(["cpu"])
        try:
            yield stack
        finally:
            stack.down()


def measure_start(bench: Bench, one: Path, repeats: int) -> dict[str, float]:
    """Seconds from a worker's start to its first answer; the server already runs."""
    times = []
    for _ in range(repeats):
        stack = Stack(bench.settings)
        stack.up([])
        started = time.perf_counter()
        try:
            stack.up(["cpu"])
            bench.classify(one)
            times.append(time.perf_counter() - started)
        finally:
            stack.down()
    return {"first_answer_s": round(statistics.median(times), 2), "worst_s": round(max(times), 2)}


def measure_memory(bench: Bench, large: Path) -> dict[str, float]:
    """Largest resident memory of the worker's processes in the first and in the second half of a job."""
    samples: list[int] = []
    over = threading.Event()
    with bench.worker() as stack:
        (pid,) = [process.pid for process in stack.processes() if process.name != "server"]
        watch = threading.Thread(target=_watch_memory, args=(pid, samples, over))
        watch.start()
        try:
            bench.classify(large)
        finally:
            over.set()
            watch.join()
    middle = len(samples) // 2
    return {
        "first_half_mb": round(max(samples[:middle]) / 1e6),
        "second_half_mb": round(max(samples[middle:]) / 1e6),
    }


def _watch_memory(pid: int, samples: list[int], over: threading.Event) -> None:
    parent = psutil.Process(pid)
    while not over.wait(SAMPLE_EVERY_S):
        samples.append(sum(process.memory_info().rss for process in [parent, *parent.children(recursive=True)]))


def measure_two(bench: Bench, photographs: Path, repeats: int) -> dict[str, float]:
    """Seconds of a job by one worker and by two on the same cores, alternating."""
    one, two = [], []
    with bench.worker():
        bench.classify(photographs)  # loads the model
        for _ in range(repeats):
            one.append(bench.classify(photographs))
            with _second_worker(bench.settings):
                bench.classify(photographs)
                two.append(bench.classify(photographs))
    ratio = statistics.median(a / b for a, b in zip(one, two, strict=True))
    return {
        "one_s": round(statistics.median(one), 2),
        "two_s": round(statistics.median(two), 2),
        "ratio": round(ratio, 3),
    }


@contextmanager
def _second_worker(settings: Settings) -> Iterator[None]:
    environment = os.environ | {
        "PIGEONHOLE_HOME": str(settings.home), "PIGEONHOLE_SERVER_URL": settings.require_server_url()
    }  # fmt: skip
    command = [sys.executable, "-m", "workers", "--device", "cpu"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=60)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-images", type=int, default=1000, help="photographs for the second worker's share")
    parser.add_argument("--num-large", type=int, default=300, help="12-megapixel photographs")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ph-worker-") as name:
        scratch = Path(name)
        bench = Bench(scratch)
        folders = {}
        for kind, folder, count in (
            ("photographs", "one", 1), ("photographs", "many", options.num_images), ("12mp", "large", options.num_large)
        ):  # fmt: skip
            folders[folder] = scratch / folder
            FOLDERS[kind](folders[folder], count)
        found = describe_run("worker") | {
            "engine": bench.engine,
            "start": measure_start(bench, folders["one"], options.repeats),
            "memory": measure_memory(bench, folders["large"]),
            "two_workers": measure_two(bench, folders["many"], options.repeats),
        }
    for key in ("engine", "start", "memory", "two_workers"):
        print(key, json.dumps(found[key]))
    keep(found, "worker")


if __name__ == "__main__":
    main()
