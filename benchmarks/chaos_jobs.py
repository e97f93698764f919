"""The clients of the chaos run, which submit jobs repeatedly and verify each result."""

import json
import os
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from modeling.errors import ModelingError
from modeling.registry.store import ModelStore
from orchestrator.contract.errors import PigeonholeError, UnavailableError
from orchestrator.contract.jobs.job_folder import JobFolder, Outcome
from orchestrator.contract.jobs.rows import FORMATS
from orchestrator.contract.server import SERVER_ERRORS
from orchestrator.contract.settings import Settings
from orchestrator.jobs.prepare import prepare
from orchestrator.jobs.results import find_published
from orchestrator.jobs.specs import ClassifySpec, TrainSpec
from orchestrator.jobs.submit import JobClient
from orchestrator.jobs.verification import verify
from tests.support.published_models import make_photographs, make_pngs, make_shapes

POLL_S = 0.1
TRAIN_EVERY_S = 30.0
DIED_TOO_OFTEN = "times without a new checkpoint"  # what is said of a training that died too often
ODD_NAMES = (
    b"with space.png", b"new\nline.png", b'quote".png', b"comma,semi;colon:.png", b"=1+2.png", b"@at.png",
    b"latin\xe9.png", b"back\\x41slash.png", b"tab\t.png", "emoji \U0001f4ee.png".encode(),
)  # fmt: skip


@dataclass(frozen=True)
class Workload:
    """A source with the options of its jobs, and the manifest of an undisturbed run."""

    source: Path
    row_format: str
    shard_size: int
    undisturbed: Path
    num_images: int


@dataclass
class EndedJob:
    """An ended job of the chaos run, and the promises that it broke."""

    job: str
    kind: str
    seconds: float
    state: str
    num_images: int = 0
    rows_missing: int = 0
    rows_doubled: int = 0
    identical: bool = True
    verified: bool = True
    problems: list[str] = field(default_factory=list)


def make_workloads(folder: Path, num_images: int) -> list[Workload]:
    """Sources of many small images, of damaged ones and unusual names, and of few large ones."""
    make_pngs(folder / "small", num_images)
    make_pngs(folder / "odd", num_images // 2)
    _add_unusual_files(folder / "odd")
    make_photographs(folder / "large", 240)
    wanted = (("small", "csv", 16), ("odd", "jsonl", 8), ("large", "json", 4))
    return [
        Workload(folder / name, row_format, size, folder / f"undisturbed-{name}.{row_format}", _count(folder / name))
        for name, row_format, size in wanted
    ]


def _count(folder: Path) -> int:
    return sum(not path.is_dir() for path in folder.rglob("*"))


def _add_unusual_files(folder: Path) -> None:
    """Add unusual names, and files that are not images."""
    png = next(folder.rglob("*.png"))
    for name in ODD_NAMES:
        os.link(png, os.fsencode(folder) + b"/" + name)
    for number in range(40):
        path = folder / "broken" / f"{number:02d}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes((b"", b"these are words", png.read_bytes()[:60], png.read_bytes()[:-30])[number % 4])
    (folder / "gone.png").symlink_to("nowhere.png")
    os.mkfifo(folder / "pipe.png")


class Client(threading.Thread):
    """Submits one job after another, waits for each, and verifies its manifest."""

    def __init__(self, settings: Settings, workloads: list[Workload], outputs: Path, seed: str) -> None:
        super().__init__(name=f"client-{seed}", daemon=True)
        self.settings, self.workloads, self.outputs = settings, workloads, outputs
        self.random = random.Random(seed)
        self.stopping = threading.Event()
        self.listing = threading.Lock()  # held while a source is listed
        self.ended: list[EndedJob] = []
        self.waiting_for: str | None = None
        self.broken: list[str] = []
        self.pause_s = 0.0  # between two jobs
        self._number = 0

    def run(self) -> None:
        """Run jobs until `stopping` is set; any error here is a broken promise."""
        try:
            while not self.stopping.is_set():
                self.run_one()
                self.stopping.wait(self.pause_s)
        except Exception as err:
            self.broken.append(f"{self.name}: {type(err).__name__}: {err}")
            raise

    def run_one(self) -> None:
        """Submit, follow and verify one job."""
        workload = self.random.choice(self.workloads)
        if (submitted := self._submit(workload)) is not None:
            started = time.monotonic()
            job, output = submitted
            self.ended.append(self._verify(job, workload, output, self._outcome(job), time.monotonic() - started))

    def classify(self, workload: Workload, output: Path) -> str:
        """Submit one job."""
        spec = ClassifySpec(str(workload.source), "digits", output=output, shard_size=workload.shard_size)
        return JobClient(self.settings).submit(prepare(self.settings, spec)).job

    def _submit(self, workload: Workload) -> tuple[str, Path] | None:
        """Submit, and retry while the server is away or no worker listens."""
        while not self.stopping.is_set():
            self._number += 1
            output = self.outputs / f"{self.name}-{self._number}.{workload.row_format}"
            try:
                with self.listing:
                    return self.classify(workload, output), output
            except (UnavailableError, *SERVER_ERRORS):
                self.stopping.wait(POLL_S)
        return None

    def _outcome(self, job: str) -> Outcome:
        self.waiting_for, folder = job, JobFolder.open(self.settings, job)
        while (outcome := folder.outcome()) is None:
            time.sleep(POLL_S)
        self.waiting_for = None
        return outcome

    def _verify(self, job: str, workload: Workload, output: Path, outcome: Outcome, seconds: float) -> EndedJob:
        ended = EndedJob(job, "classify", seconds, outcome.state, workload.num_images)
        if outcome.state not in ("succeeded", "partial"):
            ended.problems.append(f"ended as {outcome.state}: {outcome.error}")
            ended.rows_missing, ended.identical, ended.verified = workload.num_images, False, False
            return ended
        ended.identical = output.read_bytes() == workload.undisturbed.read_bytes()
        if not ended.identical:
            ended.rows_missing, ended.rows_doubled = compare_rows(output, workload.undisturbed)
            ended.problems.append("differs from the undisturbed run")
        try:
            differences = verify(self.settings, find_published(self.settings, str(output))).differences
        except PigeonholeError as err:
            differences = [str(err)]
        ended.verified = not differences
        ended.problems += differences
        return ended


class TrainClient(Client):
    """Submits a small training at intervals."""

    def __init__(self, settings: Settings, workloads: list[Workload], outputs: Path, seed: str) -> None:
        super().__init__(settings, workloads, outputs, seed)
        self.pause_s = TRAIN_EVERY_S

    def run_one(self) -> None:
        """One training."""
        self._number += 1
        name = f"bars-{self._number}"
        spec = TrainSpec(self.workloads[0].source.parent / "shapes", name, {"architecture": "mlp", "epochs": 60})
        try:
            job = JobClient(self.settings).submit(prepare(self.settings, spec)).job
        except (UnavailableError, *SERVER_ERRORS):
            self.stopping.wait(1)
            return
        started = time.monotonic()
        outcome = self._outcome(job)
        ended = EndedJob(job, "train", time.monotonic() - started, outcome.state)
        if outcome.state == "succeeded":
            ended.problems = self._check_model(name)
        elif DIED_TOO_OFTEN not in (outcome.error or ""):
            ended.problems.append(f"ended as {outcome.state}: {outcome.error}")
        self.ended.append(ended)

    def _check_model(self, name: str) -> list[str]:
        try:
            version = ModelStore(self.settings.models).resolve(name).version
        except ModelingError as err:
            return [str(err)]
        return [] if version == 1 else [f"{name} was published {version} times"]


def make_training_data(folder: Path) -> None:
    """Make the images of the trainings, beside the other sources."""
    make_shapes(folder / "shapes")


def compare_rows(found: Path, expected: Path) -> tuple[int, int]:
    """The number of rows of `expected` that `found` lacks, and of rows that it has too often."""
    row_format = FORMATS[expected.suffix[1:]]
    wanted = Counter(json.dumps(row.path) for row in row_format.read(expected))
    there = Counter(json.dumps(row.path) for row in row_format.read(found))
    return (wanted - there).total(), (there - wanted).total()
