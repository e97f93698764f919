"""A few cells of `benchmarks.steps`, which tries every fault at every named step of a job."""

from collections.abc import Iterator

import pytest

from benchmarks.steps.cells import Cell
from benchmarks.steps.scenarios import Scenario, open_scenario
from benchmarks.steps.trial import Trial
from tests.support.steps.faults import Fault, Faults
from tests.support.workers import Cluster

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def classify(session_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenario]:
    session_cluster.one_worker()
    with open_scenario("classify", session_cluster, tmp_path_factory.mktemp("steps") / "classify") as scenario:
        yield scenario


@pytest.mark.parametrize(
    ("fault", "end", "helped"),
    [
        (Fault("shard.link", "kill"), "identical", []),
        (Fault("end.manifest", "error", error="EROFS"), "stated", ["resumed"]),
    ],
    ids=["shard.link-kill", "end.manifest-EROFS"],
)
def test_a_fault_at_a_step_gives_the_undisturbed_result_or_the_stated_error(
    fault: Fault, end: str, helped: list[str], classify: Scenario, session_faults: Faults
):
    tried = Trial(Cell("classify", fault), classify, session_faults).run()

    assert tried.problems == []
    assert (tried.end, tried.helped) == (end, helped)
