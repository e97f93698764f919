"""Jobs that are done while faults strike, by the names of their scenarios."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.steps.cells import Cell, cells_of
from benchmarks.steps.processes import Evaluate, Train
from benchmarks.steps.resumed import Relist, Resume
from benchmarks.steps.scenario import SHARD_SIZE, Scenario
from tests.support.receiver import receiving
from tests.support.steps.compare import differences, published
from tests.support.steps.faults import Faults
from tests.support.workers import Cluster


class Classify(Scenario):
    """A folder is classified, and a webhook is sent."""

    name = "classify"

    def __init__(self, cluster: Cluster, folder: Path, faults: Faults) -> None:
        super().__init__(cluster, folder, faults)
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

    def __init__(self, cluster: Cluster, folder: Path, faults: Faults) -> None:
        super().__init__(cluster, folder, faults)
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


SCENARIOS: dict[str, type[Scenario]] = {
    kind.name: kind for kind in (Classify, Since, Retry, Resume, Relist, Train, Evaluate)
}


@contextmanager
def open_scenario(name: str, cluster: Cluster, folder: Path, faults: Faults) -> Iterator[Scenario]:
    """A scenario that is prepared. faults: of the cluster."""
    scenario = SCENARIOS[name](cluster, folder, faults)
    with scenario.resources:
        scenario.prepare()
        yield scenario


def all_cells() -> list[Cell]:
    """The cells of all scenarios."""
    return [cell for kind in SCENARIOS.values() for cell in kind.cells()]
