"""A few cells of `benchmarks.steps`, which tries every fault at every named step of a job."""

import contextlib
from collections.abc import Callable, Iterator
from functools import cache

import pytest

from benchmarks.steps.cells import Cell
from benchmarks.steps.scenario import Scenario
from benchmarks.steps.scenarios import open_scenario
from benchmarks.steps.trial import Trial
from tests.support.steps.faults import Fault, Faults
from tests.support.workers import Cluster

LOST_ANSWER = "redis.exceptions.ConnectionError"
pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def scenario_of(
    session_cluster: Cluster, session_faults: Faults, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Scenario]]:
    session_cluster.one_worker()
    with contextlib.ExitStack() as opened:

        @cache
        def open_once(name: str) -> Scenario:
            folder = tmp_path_factory.mktemp("steps") / name
            return opened.enter_context(open_scenario(name, session_cluster, folder, session_faults))

        yield open_once


@pytest.mark.parametrize(
    ("name", "fault", "end", "helped"),
    [
        ("classify", Fault("shard.link", "kill"), "identical", []),
        ("classify", Fault("end.manifest", "error", error="EROFS"), "stated", ["resumed"]),
        ("resume", Fault("resume.activate", "kill", before=False), "identical", []),
        ("classify", Fault("shard.commit", "freeze"), "identical", []),
        ("classify", Fault("shard.commit", "error", before=False, error=LOST_ANSWER), "identical", []),
        ("train", Fault("train.write-rename", "error", error="ESTALE"), "identical", []),
        ("train", Fault("train.write-rename", "error", error="ESTALE", times=9), "stated", ["resumed"]),
    ],
    ids=[
        "shard.link-kill",
        "end.manifest-EROFS",
        "resume.activate-kill",
        "shard.commit-freeze",
        "shard.commit-answer",
        "train.write-rename-ESTALE",
        "train.write-rename-always-ESTALE",
    ],
)
def test_a_fault_at_a_step_gives_the_undisturbed_result_or_the_stated_error(
    name: str,
    fault: Fault,
    end: str,
    helped: list[str],
    scenario_of: Callable[[str], Scenario],
    session_faults: Faults,
):
    tried = Trial(Cell(name, fault), scenario_of(name), session_faults).run()

    assert tried.problems == []
    assert (tried.end, tried.helped) == (end, helped)
