"""What is done while faults strike: a command, what it publishes if undisturbed, and how to begin again."""

import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from benchmarks.steps.cells import Cell, cells_of
from modeling.registry.card import CARD_FILE, WEIGHTS_FILE
from modeling.registry.store import ModelStore
from orchestrator.contract.jobs.job_folder import active_jobs, all_jobs, undelivered_jobs
from tests.support.published_models import make_pngs, make_shapes
from tests.support.receiver import receiving
from tests.support.server import wait_until
from tests.support.steps.compare import differences, published
from tests.support.workers import Cluster

NUM_IMAGES = 96
SHARD_SIZE = 8
_MODEL = "struck"  # what a training publishes
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

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
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
            path.unlink()
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

    def published(self) -> dict[str, bytes]:
        """What is published now."""
        return published(*self.outputs)

    def half_published(self) -> list[str]:
        """What differs from what was there before the command."""
        return differences(self.before, self.published())


class Classify(Scenario):
    """A folder is classified, and a webhook is sent."""

    name = "classify"

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        super().__init__(cluster, folder)
        self._webhook = self.resources.enter_context(receiving()).url

    @property
    def arguments(self) -> tuple[str, ...]:
        options = ("--model", "digits", "-o", str(self.out), "--shard-size", str(SHARD_SIZE))
        return ("classify", str(self.source), *options, "--notify", self._webhook)

    @staticmethod
    def cells() -> list[Cell]:
        return cells_of("classify", "submit", "shard", "end")

    def prepare_base(self) -> None:
        pass  # nothing is there

    def put_base(self) -> None:
        pass


class Since(Scenario):
    """The images that are new are classified and merged into an earlier manifest, which is kept as `OUT.1`."""

    name = "since"

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        super().__init__(cluster, folder)
        self.outputs = (self.out, self.outbox / "out.csv.1")
        self._base = folder / "base"
        self.base_job = ""

    @property
    def arguments(self) -> tuple[str, ...]:
        return (*self._classify(), "--since", str(self.out))

    def _classify(self) -> tuple[str, ...]:
        options = ("--model", "digits", "-o", str(self.out), "--shard-size", str(SHARD_SIZE))
        return ("classify", str(self.source), *options)

    def prepare_base(self) -> None:
        away = self.folder / "away"
        away.mkdir()
        new = sorted((self.source / "00000").iterdir())[5::7]
        for path in new:
            path.rename(away / path.name)
        self.classify_base()
        for path in new:
            (away / path.name).rename(path)

    def classify_base(self) -> None:
        """Run the job whose manifest is merged."""
        others = set(self.cluster.jobs())
        self.cluster.run_ok(*self._classify())
        shutil.copytree(self.outbox, self._base)
        [self.base_job] = set(self.cluster.jobs()) - others

    def put_base(self) -> None:
        for path in self._base.iterdir():
            shutil.copy2(path, self.outbox / path.name)

    def half_published(self) -> list[str]:
        """The base may have its second name already: whole, it harms nobody, and the next finalizer finds it."""
        found = self.published()
        kept = published(self.outputs[1])
        if list(kept.values()) == list(self.before.values()):
            found = {name: data for name, data in found.items() if name not in kept}
        return differences(self.before, found)

    @staticmethod
    def cells() -> list[Cell]:
        return cells_of("since", "merge")


class Retry(Since):
    """The failed images of a job are classified once more."""

    name = "retry"

    @property
    def arguments(self) -> tuple[str, ...]:
        return ("jobs", "retry", self.base_job)

    def prepare_base(self) -> None:
        self.classify_base()
        good = next((self.source / "00000").iterdir()).read_bytes()
        for path in sorted((self.source / "broken").iterdir())[:5]:
            path.write_bytes(good)

    @staticmethod
    def cells() -> list[Cell]:
        return cells_of("retry", "merge")


def _is_removed(folder: Path) -> bool:
    """Remove a folder, which a worker may write a last line to."""
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


class Train(Scenario):
    """A small network is trained on a CPU, and published."""

    name = "train"

    @property
    def arguments(self) -> tuple[str, ...]:
        return ("train", str(self.source), "--name", _MODEL, "--arch", "mlp", "--epochs", "8")

    @staticmethod
    def cells() -> list[Cell]:
        return cells_of("train", "train")

    def prepare(self) -> None:
        """Make the images, and train undisturbed, twice."""
        self.outputs = ()
        make_shapes(self.source)
        self.kept_jobs = set(self.cluster.jobs())
        for _ in range(2):
            self.begin()
            self.cluster.run_ok(*self.arguments)
            self.expected = self.published()

    def prepare_base(self) -> None:
        pass  # nothing is there

    def put_base(self) -> None:
        shutil.rmtree(self.cluster.settings.models / _MODEL, ignore_errors=True)

    def published(self) -> dict[str, bytes]:
        """The weights and the card of every version."""
        store = ModelStore(self.cluster.settings.models)
        return {
            f"{version.ref} {file}": (version.path / file).read_bytes()
            for version in store.list()
            if version.name == _MODEL
            for file in (WEIGHTS_FILE, CARD_FILE)
        }


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


SCENARIOS: dict[str, type[Scenario]] = {kind.name: kind for kind in (Classify, Since, Retry, Train)}


@contextmanager
def open_scenario(name: str, cluster: Cluster, folder: Path) -> Iterator[Scenario]:
    """A scenario that is prepared."""
    scenario = SCENARIOS[name](cluster, folder)
    with scenario.resources:
        scenario.prepare()
        yield scenario


def all_cells() -> list[Cell]:
    """The cells of all scenarios."""
    return [cell for kind in SCENARIOS.values() for cell in kind.cells()]
