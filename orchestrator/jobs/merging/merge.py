"""What a prepared job merges: its base, and which images are classified beside the base's rows."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from orchestrator.contract.jobs.merge_plan import PlanFacts, PlanWriter, write_plan_facts
from orchestrator.contract.jobs.requests import MergeBase
from orchestrator.jobs.merging.base import Base
from orchestrator.jobs.merging.changed import OnCompared


class PathSelection(Protocol):
    """Chooses the images that are to be classified."""

    def choose(self, paths: Iterator[str], plan: PlanWriter, on_compared: OnCompared) -> Iterator[str]:
        """Their paths; the plan gets a step for every row of the new manifest. paths: of the source."""

    def facts(self, plan: PlanWriter) -> PlanFacts:
        """What was found, once all were chosen; the plan is durable then."""


@dataclass(frozen=True)
class Merge:
    """A base, and what is done to it. replaced: whether the new manifest takes its place."""

    kind: Literal["retry", "since"]
    base: Base
    replaced: bool
    selection: PathSelection

    def to_request(self) -> MergeBase:
        """As a request holds it."""
        return self.base.to_request(self.kind, replaced=self.replaced)

    def paths(self, folder: Path, source: Iterator[str], on_compared: OnCompared) -> Iterator[str]:
        """The paths that the job lists; its plan is complete in its folder when they end."""
        with PlanWriter(folder) as plan:
            yield from self.selection.choose(source, plan, on_compared)
            write_plan_facts(folder, self.selection.facts(plan))
