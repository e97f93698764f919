"""Shares of the workers' time among jobs of several priorities, measured over a minute and compared with the promise.

    python -m benchmarks.shares                      two workers, a minute for each scenario; about four minutes
    python -m benchmarks.shares --minutes 0.5 --num-workers 1

Starts its own server and workers in a temporary home. Every job classifies the same photographs with the same model,
and must have its share of the workers' time within 20 %. Its share of the images is a little smaller where its turns
are short, since each turn has to open files first. Prints a table; the last line is JSON.
"""

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.machine import describe_run, keep
from benchmarks.throughput_networks import publish_network
from orchestrator.contract.ledger.words import Priority
from orchestrator.contract.settings import Settings
from orchestrator.jobs.follow import read_record
from orchestrator.jobs.prepare import prepare
from orchestrator.jobs.specs import ClassifySpec
from orchestrator.jobs.submit import JobClient
from orchestrator.stack.stack import Stack
from tests.support.published_models import make_photographs

MODEL = "mobilenet_v2"  # with random weights: the time is that of a real one
WEIGHTS: dict[Priority, int] = {"high": 16, "normal": 4, "low": 1}
PROMISED = 0.2  # how far a share may be from that of the weights, as a part of it
SCENARIOS: dict[str, tuple[Priority, ...]] = {
    "three of one priority": ("normal", "normal", "normal"),
    "one high beside two low": ("high", "low", "low"),
    "one of each": ("high", "normal", "low"),
}
WARM_S = 10.0  # every worker has loaded the model, and the time of a shard is known
PATIENCE_S = 300.0


@dataclass(frozen=True)
class Share:
    """What a job got in the span: images, and its share of them and of the workers' time."""

    priority: Priority
    num_images: int
    promised: float
    of_images: float
    of_time: float

    @property
    def kept(self) -> bool:
        return abs(self.of_time - self.promised) <= PROMISED * self.promised


@dataclass(frozen=True)
class Bench:
    """A running stack and a list of photographs that no job finishes."""

    settings: Settings
    paths: Path
    folder: Path
    shard_size: int | None

    def measure(self, priorities: Sequence[Priority], seconds: float, warm_s: float = WARM_S) -> list[Share]:
        """The shares of jobs of these priorities, which are cancelled afterwards."""
        client = JobClient(self.settings)
        jobs = [self._submit(client, priority) for priority in priorities]
        try:
            self._wait(lambda: all(images for images, _ in self._progress(client, jobs)), "every job has begun")
            time.sleep(warm_s)
            before = self._progress(client, jobs)
            time.sleep(seconds)
            after = self._progress(client, jobs)
        finally:
            for job in jobs:
                client.cancel(job)
            self._wait(lambda: not client.ledger.active(), "the jobs have ended")
        return _shares(priorities, before, after)

    def _submit(self, client: JobClient, priority: Priority) -> str:
        spec = ClassifySpec(str(self.paths), MODEL, priority=priority, shard_size=self.shard_size)
        return client.submit(prepare(self.settings, spec)).job

    def warm_up(self) -> None:
        """Let a worker measure the engines of the model, which the size of shards depends on."""
        client = JobClient(self.settings)
        client.submit(prepare(self.settings, ClassifySpec(str(next((self.folder / "images").rglob("*.jpg"))), MODEL)))
        self._wait(lambda: not client.ledger.active(), "a first job has ended")

    def _progress(self, client: JobClient, jobs: Sequence[str]) -> list[tuple[int, int]]:
        """Images, and milliseconds of workers, of each job."""
        records = [read_record(self.settings, client.ledger, job) for job in jobs]
        assert not any(record.ended for record in records), records
        return [(record.num_done, record.worker_ms) for record in records]

    @staticmethod
    def _wait(condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {PATIENCE_S:.0f} s: {what}")
            time.sleep(0.1)


def _shares(
    priorities: Sequence[Priority], before: Sequence[tuple[int, int]], after: Sequence[tuple[int, int]]
) -> list[Share]:
    images, milliseconds = (
        [late[place] - early[place] for early, late in zip(before, after, strict=True)] for place in (0, 1)
    )
    weights = [WEIGHTS[priority] for priority in priorities]
    return [
        Share(
            priority,
            images[place],
            weights[place] / sum(weights),
            images[place] / max(sum(images), 1),
            milliseconds[place] / max(sum(milliseconds), 1),
        )
        for place, priority in enumerate(priorities)
    ]


@contextlib.contextmanager
def open_bench(num_workers: int, num_paths: int, shard_size: int | None) -> Iterator[Bench]:
    """Start the stack with a model and photographs; stop it at the end."""
    with tempfile.TemporaryDirectory(prefix="ph-shares-") as name:
        folder = Path(name)
        settings = Settings(home=folder / "home", server_url=None)
        publish_network(folder / "home" / "models", MODEL)
        make_photographs(folder / "images", 1000)
        images = sorted(str(path.relative_to(folder)) for path in (folder / "images").rglob("*.jpg"))
        paths = folder / "paths.txt"
        paths.write_text("".join(f"{images[number % len(images)]}\n" for number in range(num_paths)))
        stack = Stack(settings)
        stack.up(["cpu"] * num_workers)
        try:
            bench = Bench(Settings(home=folder / "home", server_url=None), paths, folder, shard_size)
            bench.warm_up()
            yield bench
        finally:
            stack.down()


def main() -> None:
    """Measure, print, and keep the result; exits with 1 if a share is not as promised."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0, help="for each scenario")
    parser.add_argument("--num-workers", type=int, default=2)
    parser.add_argument("--num-paths", type=int, default=200_000, help="of each job; more than are done in the time")
    parser.add_argument("--shard-size", type=int, help="images per shard; default: as jobs choose it")
    parser.add_argument("-o", "--output", type=Path, help="the file for the result; default: below results/")
    arguments = parser.parse_args()
    found: dict[str, list[Share]] = {}
    with open_bench(arguments.num_workers, arguments.num_paths, arguments.shard_size) as bench:
        for name, priorities in SCENARIOS.items():
            found[name] = bench.measure(priorities, 60 * arguments.minutes)
            print(name)
            for share in found[name]:
                text = f"    {share.priority:8}{share.num_images:9,} images  promised {share.promised:6.1%}"
                print(f"{text}  of images {share.of_images:6.1%}  of time {share.of_time:6.1%}", flush=True)
    kept = all(share.kept for shares in found.values() for share in shares)
    shares = {name: [asdict(share) | {"kept": share.kept} for share in each] for name, each in found.items()}
    described = describe_run("shares") | {"num_workers": arguments.num_workers, "minutes": arguments.minutes}
    keep(described | {"kept": kept, "scenarios": shares}, "shares", arguments.output)
    sys.exit(not kept)


if __name__ == "__main__":
    main()
