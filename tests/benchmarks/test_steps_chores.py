"""The cells of `benchmarks.steps`, and one of its chores: a sort is killed at a step, gone on with, and undone."""

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


def test_a_sort_that_is_killed_between_a_copy_and_its_confirmation_is_gone_on_with_and_undone(tmp_path):
    faults = Faults(tmp_path / "faults", CONSTANTS)
    with open_chore("sort-copy", tmp_path / "chore", faults) as chore:
        tried = ChoreTrial(Cell("sort-copy", Fault("sort.confirm", "kill")), chore).run()

    assert tried.problems == []
    assert (tried.end, tried.helped) == ("stated", ["run again"])
