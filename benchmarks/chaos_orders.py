"""What the chaos run asks for again and again, and the proof of each answer."""

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
from orchestrator.jobs.results import find_published, verify
from orchestrator.jobs.specs import ClassifySpec, TrainSpec
from orchestrator.jobs.submit import JobClient
from tests.support.published_models import make_photographs, make_pngs, make_shapes

POLL_S = 0.1
TRAIN_EVERY_S = 30.0
DIED_TOO_OFTEN = "workers died of it"  # the documented end of a training that lost three workers
ODD_NAMES = (
    b"with space.png", b"new\nline.png", b'quote".png', b"comma,semi;colon:.png", b"=1+2.png", b"@at.png",
    b"latin\xe9.png", b"back\\x41slash.png", b"tab\t.png", "emoji \U0001f4ee.png".encode(),
)  # fmt: skip


@dataclass(frozen=True)
class Order:
    """A source, how it is asked for, and what an undisturbed run of it published."""

    source: Path
    row_format: str
    shard_size: int
    undisturbed: Path
    num_images: int


@dataclass
class Ended:
    """One job of the chaos run, and every promise it broke."""

    job: str
    kind: str
    seconds: float
    state: str
    num_images: int = 0
    rows_missing: int = 0
    rows_doubled: int = 0
    identical: bool = True
    verified: bool = True
    trouble: list[str] = field(default_factory=list)


def make_orders(folder: Path, num_images: int) -> list[Order]:
    """Sources of many small images, of broken ones and odd names, and of few large ones."""
    make_pngs(folder / "small", num_images)
    make_pngs(folder / "odd", num_images // 2)
    _spoil(folder / "odd")
    make_photographs(folder / "large", 240)
    wanted = (("small", "csv", 16), ("odd", "jsonl", 8), ("large", "json", 4))
    return [
        Order(folder / name, row_format, size, folder / f"undisturbed-{name}.{row_format}", _count(folder / name))
        for name, row_format, size in wanted
    ]


def _count(folder: Path) -> int:
    return sum(not path.is_dir() for path in folder.rglob("*"))


def _spoil(folder: Path) -> None:
    """Add names that break careless writers, and files that are no images."""
    png = next(folder.rglob("*.png"))
    for name in ODD_NAMES:
        os.link(png, os.fsencode(folder) + b"/" + name)
    for number in range(40):
        path = folder / "broken" / f"{number:02d}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes((b"", b"these are words", png.read_bytes()[:60], png.read_bytes()[:-30])[number % 4])
    (folder / "gone.png").symlink_to("nowhere.png")
    os.mkfifo(folder / "pipe.png")


class Customer(threading.Thread):
    """Hands in one job after another, waits for each, and proves what it published."""

    def __init__(self, settings: Settings, orders: list[Order], outputs: Path, seed: str) -> None:
        super().__init__(name=f"customer-{seed}", daemon=True)
        self.settings, self.orders, self.outputs = settings, orders, outputs
        self.random = random.Random(seed)
        self.leaving = threading.Event()
        self.ended: list[Ended] = []
        self.waits_for: str | None = None
        self.broken: list[str] = []
        self._number = 0

    def run(self) -> None:
        """Until told to leave; whatever goes wrong here is a broken promise."""
        try:
            while not self.leaving.is_set():
                self.serve_one()
        except Exception as err:
            self.broken.append(f"{self.name}: {type(err).__name__}: {err}")
            raise

    def serve_one(self) -> None:
        """One job from submitting to proof."""
        order = self.random.choice(self.orders)
        if (handed_in := self._submit(order)) is not None:
            started = time.monotonic()
            job, output = handed_in
            self.ended.append(self._prove(job, order, output, self._outcome(job), time.monotonic() - started))

    def classify(self, order: Order, output: Path) -> str:
        """Submit one job."""
        spec = ClassifySpec(str(order.source), "digits", output=output, shard_size=order.shard_size)
        return JobClient(self.settings).submit(prepare(self.settings, spec)).job

    def _submit(self, order: Order) -> tuple[str, Path] | None:
        """Submit until somebody listens: with the server away a submission is refused, which is no fault."""
        while not self.leaving.is_set():
            self._number += 1
            output = self.outputs / f"{self.name}-{self._number}.{order.row_format}"
            try:
                return self.classify(order, output), output
            except (UnavailableError, *SERVER_ERRORS):
                self.leaving.wait(POLL_S)
        return None

    def _outcome(self, job: str) -> Outcome:
        self.waits_for, folder = job, JobFolder.open(self.settings, job)
        while (outcome := folder.outcome()) is None:
            time.sleep(POLL_S)
        self.waits_for = None
        return outcome

    def _prove(self, job: str, order: Order, output: Path, outcome: Outcome, seconds: float) -> Ended:
        ended = Ended(job, "classify", seconds, outcome.state, order.num_images)
        if outcome.state not in ("succeeded", "partial"):
            ended.trouble.append(f"ended as {outcome.state}: {outcome.error}")
            ended.rows_missing, ended.identical, ended.verified = order.num_images, False, False
            return ended
        ended.identical = output.read_bytes() == order.undisturbed.read_bytes()
        if not ended.identical:
            ended.rows_missing, ended.rows_doubled = compare_rows(output, order.undisturbed)
            ended.trouble.append("differs from the undisturbed run")
        try:
            differences = verify(self.settings, find_published(self.settings, str(output))).differences
        except PigeonholeError as err:
            differences = [str(err)]
        ended.verified = not differences
        ended.trouble += differences
        return ended


class Trainer(Customer):
    """Hands in a small training now and then."""

    def serve_one(self) -> None:
        """One training, then a pause."""
        self._number += 1
        name = f"bars-{self._number}"
        spec = TrainSpec(self.orders[0].source.parent / "shapes", name, {"architecture": "mlp", "epochs": 60})
        try:
            job = JobClient(self.settings).submit(prepare(self.settings, spec)).job
        except (UnavailableError, *SERVER_ERRORS):
            self.leaving.wait(1)
            return
        started = time.monotonic()
        outcome = self._outcome(job)
        ended = Ended(job, "train", time.monotonic() - started, outcome.state)
        if outcome.state == "succeeded":
            ended.trouble = self._look_at_model(name)
        elif DIED_TOO_OFTEN not in (outcome.error or ""):
            ended.trouble.append(f"ended as {outcome.state}: {outcome.error}")
        self.ended.append(ended)
        self.leaving.wait(TRAIN_EVERY_S)

    def _look_at_model(self, name: str) -> list[str]:
        try:
            version = ModelStore(self.settings.models).resolve(name).version
        except ModelingError as err:
            return [str(err)]
        return [] if version == 1 else [f"{name} was published {version} times"]


def make_training_data(folder: Path) -> None:
    """Where a trainer finds its images, beside the sources of the orders."""
    make_shapes(folder / "shapes")


def compare_rows(found: Path, expected: Path) -> tuple[int, int]:
    """Rows of `expected` that `found` lacks, and rows that it has too often."""
    row_format = FORMATS[expected.suffix[1:]]
    wanted = Counter(json.dumps(row.path) for row in row_format.read(expected))
    there = Counter(json.dumps(row.path) for row in row_format.read(found))
    return (wanted - there).total(), (there - wanted).total()
