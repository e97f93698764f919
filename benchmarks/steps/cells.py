"""The cells of the suite: each step of a scenario, by a kill, by a freeze, by each error of its call."""

from collections.abc import Iterator
from dataclasses import dataclass

from tests.support.steps.faults import Fault
from tests.support.steps.step import Step
from tests.support.steps.table import steps_of


@dataclass(frozen=True)
class Cell:
    """A fault and the scenario that it strikes, by name."""

    scenario: str
    fault: Fault

    def __str__(self) -> str:
        return f"{self.scenario} {self.fault}"


def faults_at(step: Step) -> Iterator[Fault]:
    """Every fault at a step.

    A process is killed before and after its call. It is frozen before it, so that it goes on with the call when its
    lease has run out. An error of the server comes before its answer and after it: the call was made, its answer is
    lost.
    """
    yield Fault(step.name, "kill")
    yield Fault(step.name, "kill", before=False)
    yield Fault(step.name, "freeze")
    for error in step.errors:
        yield Fault(step.name, "error", error=error)
        if step.fails == "server":
            yield Fault(step.name, "error", error=error, before=False)


def cells_of(scenario: str, *tables: str) -> list[Cell]:
    """All cells of the steps of some tables."""
    return [Cell(scenario, fault) for step in steps_of(*tables) for fault in faults_at(step)]
