"""A job of ten million images by a list, with flat memory: listed, classified, published and verified.

    python -m benchmarks.ten_million                    half an hour on 2 quiet cores, 6 GB of disk
    python -m benchmarks.ten_million --images 100000 --workers 1

Real commands, a real server and real workers, but for the reading of files and the model: there are no ten million
images here, and workers read and answer them from memory (`benchmarks/stub_worker.py`). Every answer of the manifest is
compared with what its path should have got. The memory of every process is recorded from start to end; it is flat
where it grows by at most 32 MB after a quarter of the images. The last line is JSON, and is kept in
`benchmarks/results/`. Exit code 1 if anything differs, or if memory grew.
"""

import argparse
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.machine import describe_run, keep
from benchmarks.spent import Command
from benchmarks.stub_worker import answer_of, stub_environment
from orchestrator.contract.jobs.rows import FORMATS
from orchestrator.contract.ledger.record import JobRecord
from tests.support.images import grey_png
from tests.support.published_models import publish_model
from tests.support.server import running_server, wait_until
from tests.support.workers import Cluster, Worker

NUM_IMAGES = 10_000_000
SHARD_SIZE = 4096
TOP_K = 1
SAMPLE_S = 2.0
LOOK_S = 0.2
FLAT_MB = 32.0
MILESTONES: dict[str, Callable[[JobRecord], object]] = {
    "first shard": lambda record: record.shards_done,
    "listed": lambda record: record.listed,
    "classified": lambda record: record.state == "finalizing" or record.ended,
    "published": lambda record: record.ended,
}


class Memory(threading.Thread):
    """Records the memory of processes while a job runs, by what each of them is, and how far the job was."""

    def __init__(self, progress: Callable[[], float]) -> None:
        """progress: the share of the job that is done."""
        super().__init__(name="memory", daemon=True)
        self.processes: dict[str, psutil.Process] = {}
        self.samples: list[tuple[float, dict[str, float]]] = []
        self.ended = threading.Event()
        self._progress = progress

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Look while the block runs."""
        self.start()
        try:
            yield
        finally:
            self.ended.set()
            self.join()

    def run(self) -> None:
        """Look every few seconds."""
        while not self.ended.wait(SAMPLE_S):
            found = {}
            for name, process in list(self.processes.items()):
                try:
                    found[name] = process.memory_info().rss / 2**20
                except psutil.NoSuchProcess:
                    del self.processes[name]
            self.samples.append((self._progress(), found))

    def table(self, parts: int = 10) -> list[dict[str, float]]:
        """The largest memory of each process by tenths of the job."""
        found: list[dict[str, float]] = [defaultdict(float) for _ in range(parts + 1)]
        for share, sizes in self.samples:
            for name, size in sizes.items():
                row = found[int(share * parts)]
                row[name] = round(max(row[name], size), 1)
        return [dict(row) for row in found]

    def growth(self) -> dict[str, float]:
        """How much more memory each process had after a quarter of the images than at that moment."""
        late = [(share, sizes) for share, sizes in self.samples if share >= 0.25]
        first: dict[str, float] = {}
        grown: dict[str, float] = {}
        for _, sizes in late:
            for name, size in sizes.items():
                before = first.setdefault(name, size)
                grown[name] = round(max(grown.get(name, 0.0), size - before), 1)
        return grown


@dataclass
class Run:
    """A cluster and the list of its images."""

    folder: Path
    cluster: Cluster
    num_images: int
    log: int
    job: str | None = None
    commands: dict[str, Any] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        return {"PIGEONHOLE_HOME": str(self.cluster.home), "PIGEONHOLE_SERVER_URL": self.cluster.server.url}

    @property
    def output(self) -> Path:
        return self.folder / "out.csv"

    def write_list(self) -> Path:
        """Write the list; the first image exists, since the command looks for some of the first ones."""
        path = self.folder / "images.txt"
        with path.open("w") as file:
            file.writelines(f"{image_path(number)}\n" for number in range(self.num_images))
        first = self.folder / "images" / image_path(0)
        first.parent.mkdir(parents=True)
        first.write_bytes(grey_png(0))
        return path

    def classify(self, images: Path, memory: Memory) -> dict[str, float]:
        """Submit the job, and watch it to its end; returns seconds to its milestones."""
        started = time.perf_counter()
        lister = self._start(
            "classify", str(images), "--root", str(self.folder / "images"), "--model", "stub", "-o", str(self.output),
            "--top-k", str(TOP_K), "--shard-size", str(SHARD_SIZE), "--detach",
        )  # fmt: skip
        memory.processes["classify"] = psutil.Process(lister.process.pid)
        wait_until(self.cluster.ledger.active, what="the job is there")
        [self.job] = self.cluster.ledger.active()
        watcher = self._start("watch", self.job)
        memory.processes["watch"] = psutil.Process(watcher.process.pid)
        reached: dict[str, float] = {}
        while len(reached) < len(MILESTONES):
            record = self.cluster.record(self.job)
            for name, is_reached in MILESTONES.items():
                if name not in reached and is_reached(record):
                    reached[name] = round(time.perf_counter() - started, 2)
                    print(f"    {name:30}{reached[name]:>10.1f} s", flush=True)
            time.sleep(LOOK_S)
        self._end("classify --detach", lister)
        self._end("watch", watcher)
        return reached

    def done(self) -> float:
        """The share of the images that are classified."""
        if self.job is None or (record := self.cluster.ledger.record(self.job)) is None:
            return 0.0
        return record.num_done / self.num_images

    def command(self, name: str, *arguments: str) -> None:
        """Run a command to its end, and note what it took."""
        self._end(name, self._start(*arguments))

    def num_wrong(self) -> int:
        """Rows that are not what their path should have got, or out of order, or missing."""
        num_rows = num_wrong = 0
        for number, row in enumerate(FORMATS["csv"].read(self.output)):
            num_rows += 1
            num_wrong += row.path != image_path(number) or row.prediction != answer_of(row.path, TOP_K)
        return num_wrong + abs(self.num_images - num_rows)

    def disk_mb(self) -> float:
        """What the home, the list and the published files take."""
        return round(sum(path.lstat().st_blocks for path in self.folder.rglob("*")) * 512 / 2**20, 1)

    def _start(self, *arguments: str) -> Command:
        return Command(arguments, self.environment, self.log)

    def _end(self, name: str, command: Command) -> None:
        _, spent = command.end()
        self.commands[name] = asdict(spent)
        print(f"    {name:30}{spent.seconds:>10.1f} s {spent.processor_s:>9.1f} s of processors{spent.rss_mb:>9.1f} MB",
              flush=True)  # fmt: skip


def image_path(number: int) -> str:
    return f"{number // 100_000:03d}/{number // 1000 % 100:02d}/{number:08d}.png"


def measure(folder: Path, num_images: int, num_workers: int) -> dict[str, Any]:
    """The figures of a run in an empty folder."""
    publish_model(folder / "home" / "models", "stub")
    with running_server() as server, (folder / "log").open("wb") as log:
        cluster = Cluster(folder / "home", server)
        try:
            stubs = stub_environment(folder / "stubs")
            workers = [cluster.start_worker(wait=True, **stubs) for _ in range(num_workers)]
            return _measure(Run(folder, cluster, num_images, log.fileno()), workers)
        finally:
            cluster.close()


def _measure(run: Run, workers: list[Worker]) -> dict[str, Any]:
    memory = Memory(run.done)
    memory.processes["server"] = psutil.Process(run.cluster.server.pid)
    for number, worker in enumerate(workers):
        parent = psutil.Process(worker.process.pid)
        child = max(parent.children(recursive=True), key=lambda each: each.memory_info().rss)  # the one with torch
        memory.processes |= {f"worker {number}": parent, f"pool child {number}": child}
    images = run.write_list()
    processes = dict(memory.processes)
    before = {name: sum(process.cpu_times()[:2]) for name, process in processes.items()}
    with memory.recorded():
        reached = run.classify(images, memory)
    processor_s = {name: round(sum(each.cpu_times()[:2]) - before[name], 1) for name, each in processes.items()}
    assert run.job is not None
    run.command("results verify", "results", "verify", run.job)
    run.command("results show", "results", "show", run.job, "--limit", "5")
    run.command("results errors", "results", "errors", run.job)
    run.command("jobs show", "jobs", "show", run.job)
    return {
        "num_images": run.num_images,
        "num_workers": len(workers),
        "seconds_to": reached,
        "images_per_sec": round(run.num_images / (reached["classified"] - reached["first shard"])),
        "publish_s": round(reached["published"] - reached["classified"], 2),
        "processor_s": processor_s,
        "commands": run.commands,
        "rows_wrong": run.num_wrong(),
        "disk_mb": run.disk_mb(),
        "server_key_bytes": run.cluster.server.key_bytes(),
        "memory_mb_by_tenths": memory.table(),
        "memory_grown_mb": memory.growth(),
    }


def main() -> None:
    """Measure, print, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=NUM_IMAGES)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--output", type=Path, help="file for the figures, instead of benchmarks/results/")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ph-ten-million-") as name:
        figures = measure(Path(name), arguments.images, arguments.workers)
    for key in ("images_per_sec", "publish_s", "processor_s", "rows_wrong", "disk_mb", "memory_grown_mb"):
        print(f"    {key:30}{figures[key]}")
    keep(describe_run("ten_million") | {"figures": figures}, "ten_million", arguments.output)
    sys.exit(bool(figures["rows_wrong"]) or max(figures["memory_grown_mb"].values()) > FLAT_MB)


if __name__ == "__main__":
    main()
