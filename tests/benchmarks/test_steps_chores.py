"""The cells of `benchmarks.steps`, and one of each of its chores that are not jobs."""

from pathlib import Path

import pytest

from benchmarks.steps.cells import Cell
from benchmarks.steps.chore import ChoreTrial
from benchmarks.steps.chores import CONSTANTS, chore_cells, open_chore
from benchmarks.steps.scenarios import all_cells
from tests.support.steps.faults import Fault, Faults
from tests.support.steps.table import STEPS

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def test_every_named_step_has_cells():
    reached = {cell.fault.step for cell in (*all_cells(), *chore_cells())}

    assert sorted(STEPS.keys() - reached) == []


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("sort-copy", Fault("sort.confirm", "kill")),
        ("hot_folder", Fault("hot_folder.move", "kill", before=False)),
        ("hot_folder", Fault("line.admitted", "kill")),
    ],
    ids=["sort.confirm-kill", "hot_folder.move-kill", "line.admitted-kill"],
)
def test_a_command_that_is_killed_at_a_step_is_run_again_and_goes_on(tmp_path: Path, name: str, fault: Fault):
    faults = Faults(tmp_path / "faults", CONSTANTS)
    with open_chore(name, tmp_path / "chore", faults) as chore:
        tried = ChoreTrial(Cell(name, fault), chore).run()

    assert tried.problems == []
    assert (tried.end, tried.helped) == ("stated", ["run again"])
