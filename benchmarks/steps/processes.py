"""Trainings and evaluations, which processes of their own do."""

import shutil

from benchmarks.steps.cells import Cell, cells_of
from benchmarks.steps.scenario import Scenario
from modeling.registry.card import CARD_FILE, WEIGHTS_FILE
from modeling.registry.store import ModelStore
from tests.support.published_models import make_shapes
from tests.support.pushes import digit_png

_MODEL = "struck"  # what a training publishes
_NUM_LABELLED = 40
# Of an evaluation's own process there are no steps: it has no checkpoints, and its worker renames what it has made.
_ONLY_OF_TRAININGS = frozenset({
    "train.machine", "train.images", "train.checkpoint", "train.later-checkpoint", "train.history", "train.write-file",
    "train.write", "train.write-rename", "train.publish", "train.publish-rename",
})  # fmt: skip


class Train(Scenario):
    """A small network is trained on a CPU, and published."""

    name = "train"

    @property
    def arguments(self) -> tuple[str, ...]:
        return ("train", str(self.source), "--name", _MODEL, "--arch", "mlp", "--epochs", "8")

    @staticmethod
    def cells() -> list[Cell]:
        return cells_of("train", "train")

    def make_data(self) -> None:
        """Make labelled images."""
        make_shapes(self.source)

    def prepare(self) -> None:
        """Make the images, and run the command undisturbed, twice."""
        self.outputs = ()
        self.make_data()
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


class Evaluate(Train):
    """A model is measured on labelled images."""

    name = "evaluate"

    @property
    def arguments(self) -> tuple[str, ...]:
        return ("models", "evaluate", "digits", str(self.source), "-o", str(self.outbox / "measured"))

    @staticmethod
    def cells() -> list[Cell]:
        cells = cells_of("evaluate", "train", "evaluate")
        return [cell for cell in cells if cell.fault.step not in _ONLY_OF_TRAININGS]

    def make_data(self) -> None:
        for number in range(_NUM_LABELLED):
            path = self.source / str(number % 10) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(digit_png(number))

    def put_base(self) -> None:
        pass  # nothing is there

    def published(self) -> dict[str, bytes]:
        """Every file of the result, and of what should not be beside it."""
        files = (path for path in self.outbox.rglob("*") if path.is_file())
        return {str(path.relative_to(self.outbox)): path.read_bytes() for path in files}
