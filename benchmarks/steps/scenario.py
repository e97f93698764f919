"""What is done while faults strike: a command, what it publishes if undisturbed, and how to begin again."""

import shutil
from abc import ABC, abstractmethod
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks.steps.cells import Cell
from orchestrator.contract.jobs.job_folder import JobFolder, active_jobs, all_jobs, undelivered_jobs
from tests.support.published_models import make_pngs
from tests.support.server import wait_until
from tests.support.steps.compare import differences, published
from tests.support.steps.faults import Faults
from tests.support.workers import Cluster

NUM_IMAGES = 96
SHARD_SIZE = 8
PATIENCE_S = 180.0  # until a fault has struck, a command has ended, a job has ended
NAMES = (b"with space.png", b"new\nline.png", b"latin\xe9.png", b"=1+2.png")


class Scenario(ABC):
    """A command that is struck again and again, in a folder of its own.

    outputs: the manifests that it publishes. expected: what an undisturbed run publishes. before: what is published
    already when it begins. resources: closed at the end. A kind of job whose result is no manifest has its own
    `published`.
    """

    name: str
    outputs: tuple[Path, ...]

    def __init__(self, cluster: Cluster, folder: Path, faults: Faults) -> None:
        self.cluster, self.folder, self.faults = cluster, folder, faults
        self.source = folder / "in"
        self.outbox = folder / "out"
        self.outbox.mkdir(parents=True)
        self.out = self.outbox / "out.csv"
        self.outputs = (self.out,)
        self.expected: dict[str, bytes] = {}
        self.before: dict[str, bytes] = {}
        self.exit_code = 0
        self.kept_jobs: set[str] = set()
        self.resources = ExitStack()

    @property
    @abstractmethod
    def arguments(self) -> tuple[str, ...]:
        """Of the command."""

    @staticmethod
    @abstractmethod
    def cells() -> list[Cell]:
        """Every cell of the scenario."""

    @abstractmethod
    def prepare_base(self) -> None:
        """Make what there is before every run of the command."""

    @abstractmethod
    def put_base(self) -> None:
        """Publish it again."""

    def prepare(self) -> None:
        """Make what the command works on, and run it undisturbed, twice: the first one loads the model."""
        make_images(self.source)
        self.prepare_base()
        self.kept_jobs = set(self.cluster.jobs())
        for _ in range(2):
            self.begin()
            done = self.cluster.run(*self.arguments)
            self.exit_code = done.returncode
            assert self.exit_code in (0, 3), f"{done.stderr}\n{self.cluster.logs()}"
            self.expected = self.published()

    def begin(self) -> None:
        """Remove what earlier runs have left, once nobody writes there any more."""
        self.wait_for_end()
        for path in self.outbox.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for job in set(all_jobs(self.cluster.settings)) - self.kept_jobs:
            wait_until(partial(_is_removed, self.cluster.settings.jobs / job), what=f"{job} is removed")
        self.put_base()
        self.before = self.published()

    def reset(self) -> None:
        """Let the server and the home forget every job: what went wrong in one cell is not in the way of others."""
        settings = self.cluster.settings
        for folder in (settings.active, settings.webhooks):
            for path in folder.glob("*"):
                path.unlink()
        self.cluster.server.empty()

    def wait_for_end(self) -> None:
        """Wait until no job is active, and no webhook waits."""
        settings, ledger = self.cluster.settings, self.cluster.ledger
        wait_until(
            lambda: not (active_jobs(settings) or ledger.active() or undelivered_jobs(settings)),
            what=f"every job ends\n{self.cluster.logs()[-1500:]}",
            timeout_s=PATIENCE_S,
        )

    def ended(self, job: str) -> bool:
        """Whether a job has ended that the command has begun."""
        folder = JobFolder(self.cluster.settings, job)
        return folder.request_file.exists() and folder.outcome() is not None

    def published(self) -> dict[str, bytes]:
        """What is published now."""
        return published(*self.outputs)

    def half_published(self) -> list[str]:
        """What differs from what was there before the command."""
        return differences(self.before, self.published())


def _is_removed(folder: Path) -> bool:
    """Remove a folder, which a worker may write a last line to."""
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


def make_images(folder: Path) -> None:
    """Small images, unusual names, and files that are no images."""
    make_pngs(folder, NUM_IMAGES)
    good = next((folder / "00000").iterdir()).read_bytes()
    for name in NAMES:
        (folder / "names").mkdir(exist_ok=True)
        Path(f"{folder}/names/{name.decode('utf-8', 'surrogateescape')}").write_bytes(good)
    (folder / "broken").mkdir()
    for number in range(8):
        (folder / "broken" / f"{number}.png").write_bytes((b"", b"words", good[:60], good[:-30])[number % 4])
