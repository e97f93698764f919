"""`classify --since` against full runs: a folder in which 3 % of the images are new.

    python -m benchmarks.since                              about five minutes on 2 CPU cores
    python -m benchmarks.since --num-digits 10000 --num-photographs 0 --repeats 1
    python -m benchmarks.since --photographs ../shared/data/cats_dogs

Times are of whole commands, full and incremental runs in turns. The new images lie scattered among the others. Rows of
images that were there before must be those of the earlier manifest, byte for byte. Starts its own server and worker in
a temporary home. The last line is JSON, and goes to `benchmarks/results/`, too.
"""

import argparse
import contextlib
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import psutil

from benchmarks.machine import describe_run, keep
from modeling.images.preprocessing import Preprocessing
from modeling.registry.store import ModelStore
from orchestrator.contract.jobs.rows import FORMATS
from orchestrator.contract.settings import Settings
from orchestrator.stack.stack import Stack
from tests.support.published_models import make_photographs, make_pngs
from tests.support.small_models import make_random_model

EVERY = 33  # image that is new: 3 %
DIGITS = Preprocessing("L", 28, 28)
PHOTOGRAPHS = Preprocessing("RGB", 224, 224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Case:
    """A folder of images and the model that answers them."""

    name: str
    images: Path
    model: str
    home: Path
    repeats: int

    def classify(self, name: str, *options: str) -> tuple[float, float, Path]:
        """Run the command; returns its seconds, those of processors that it and the stack used, and the manifest."""
        output = self.home.parent / f"{self.name}-{name}.csv"
        command = [sys.executable, "-m", "orchestrator", "classify", str(self.images), "--model", self.model]
        environment = os.environ | {"PIGEONHOLE_HOME": str(self.home)}
        started, processor_started = time.perf_counter(), self._processor_s()
        subprocess.run(
            [*command, "-o", str(output), "--overwrite", *options], env=environment, check=True, capture_output=True
        )
        return time.perf_counter() - started, self._processor_s() - processor_started, output

    def _processor_s(self) -> float:
        """Seconds of processors of ended commands, and of the server and the worker in the home."""
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        total = used.ru_utime + used.ru_stime
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("PIGEONHOLE_HOME") == str(self.home):
                    total += sum(process.cpu_times()[:2])
        return total

    def measure(self) -> dict[str, float]:
        """Seconds of full and of incremental runs, their ratio, and rows that differ."""
        paths = sorted(path for path in self.images.rglob("*.*") if path.is_file())
        aside = self.home.parent / f"{self.name}-aside"
        new = paths[EVERY // 2 :: EVERY]
        _move(new, self.images, aside)
        _, _, base = self.classify("base")
        _move([aside / path.relative_to(self.images) for path in new], aside, self.images)
        full, since = [], []
        for _ in range(self.repeats):
            full.append(self.classify("full")[:2])
            *spent_s, merged = self.classify("since", "--since", str(base))
            since.append(spent_s)
        return {
            "num_images": float(len(paths)),
            "num_new": float(len(new)),
            "full_s": statistics.median(elapsed for elapsed, _ in full),
            "since_s": statistics.median(elapsed for elapsed, _ in since),
            "full_to_since": statistics.median(a[0] / b[0] for a, b in zip(full, since, strict=True)),
            "full_processor_s": statistics.median(processor for _, processor in full),
            "since_processor_s": statistics.median(processor for _, processor in since),
            "rows_that_differ_from_the_base": float(_num_differing(merged, base, len(paths))),
        }


def _move(paths: list[Path], source: Path, target: Path) -> None:
    for path in paths:
        to = target / path.relative_to(source)
        to.parent.mkdir(parents=True, exist_ok=True)
        path.rename(to)


def _num_differing(merged: Path, base: Path, num_rows: int) -> int:
    """Rows of the base that the merged manifest has otherwise; all, if it has another number of rows."""
    reader = FORMATS["csv"]
    rows = {row.path: row for row in reader.read(merged)}
    if len(rows) != num_rows:
        return num_rows
    return sum(rows[row.path] != row for row in reader.read(base))


@contextmanager
def _stack(folder: Path) -> Iterator[Path]:
    """A home with two models, a server and a warm worker."""
    home = folder / "home"
    for name, architecture, preprocessing in (("digits", "cnn", DIGITS), ("photographs", "mobilenet_v2", PHOTOGRAPHS)):
        ModelStore(home / "models").publish(make_random_model(folder / name, architecture, preprocessing), name)
        shutil.rmtree(folder / name)
    stack = Stack(Settings(home=home, server_url=None))
    stack.up(["cpu"])
    try:
        yield home
    finally:
        stack.down()


def _link_photographs(source: Path, folder: Path, num_images: int) -> None:
    """Photographs under new names, linked or copied again and again until there are enough."""
    originals = sorted(path for path in source.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    for number, original in enumerate(islice(_endless(originals), num_images)):
        path = folder / f"{number // 1000:05d}" / f"{number:08d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(original, path)


def _endless(paths: list[Path]) -> Iterator[Path]:
    while True:
        yield from paths


def main() -> None:
    """Measure, print, and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-digits", type=int, default=100_000, help="28x28 PNGs, answered by a cnn")
    parser.add_argument("--num-photographs", type=int, default=5_000, help="JPEGs, answered by mobilenet_v2")
    parser.add_argument("--photographs", type=Path, help="folder of JPEGs to take; default: made ones")
    parser.add_argument("--repeats", type=int, default=3, help="of each comparison; medians are reported")
    arguments = parser.parse_args()
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="ph-since-") as name:
        folder = Path(name)
        if arguments.num_digits:
            make_pngs(folder / "digits-images", arguments.num_digits)
        if arguments.num_photographs and arguments.photographs:
            _link_photographs(arguments.photographs, folder / "photographs-images", arguments.num_photographs)
        elif arguments.num_photographs:
            make_photographs(folder / "photographs-images", arguments.num_photographs)
        with _stack(folder) as home:
            for case_name in ("digits", "photographs"):
                if not (folder / f"{case_name}-images").exists():
                    continue
                case = Case(case_name, folder / f"{case_name}-images", case_name, home, arguments.repeats)
                figures[case_name] = {key: round(value, 4) for key, value in case.measure().items()}
                print(f"{case_name}:")
                for key, value in figures[case_name].items():
                    print(f"    {key:34}{value:>14,.3f}", flush=True)
    keep(describe_run("since") | {"repeats": arguments.repeats, "figures": figures}, "since")


if __name__ == "__main__":
    main()
