"""The clock of a budget: over all attempts, and what a run does when it is over."""

import json

import pytest

from modeling.training.fit.budget import BudgetClock
from modeling.training.fit.checkpoint import Checkpoints
from modeling.training.fit.plan import BudgetError
from tests.support.fit_runs import DyingImages, KilledError, fit, inputs
from tests.support.manual_clock import ManualClock


@pytest.fixture
def clock():
    return ManualClock()


def test_the_seconds_of_all_attempts_count(tmp_path, clock):
    for number in (1, 2):
        attempt = BudgetClock(60.0, tmp_path, tmp_path / f"{number}.json", clock=clock)
        clock.now += 20
        assert not attempt.is_over()
        clock.now += 3  # killed here: what it did not note is not counted
    last = BudgetClock(60.0, tmp_path, tmp_path / "3.json", clock=clock)

    assert last.left_s == 20
    clock.now += 19
    assert not last.is_over()
    clock.now += 1
    assert last.is_over()


def test_an_attempt_without_a_number_goes_on_with_its_own_seconds(tmp_path, clock):
    for _ in range(2):
        attempt = BudgetClock(60.0, tmp_path, clock=clock)
        clock.now += 20
        attempt.is_over()

    assert BudgetClock(60.0, tmp_path, clock=clock).left_s == 20
    assert json.loads((tmp_path / "spent.0.json").read_text()) == {"spent_s": 40.0}


def test_what_cannot_be_read_counts_nothing_and_what_cannot_be_written_costs_only_that(tmp_path, clock):
    (tmp_path / "spent.1.json").write_text("{")
    (tmp_path / "spent.2.json").mkdir()
    attempt = BudgetClock(60.0, tmp_path, tmp_path / "2.json", clock=clock)

    clock.now += 10

    assert not attempt.is_over()
    assert attempt.left_s == 50


def test_a_run_that_is_slower_than_its_budget_ends_with_the_best_so_far(tmp_path):
    asked = iter(range(1000))
    events = []

    weights, fitted = fit(inputs(), emit=events.append, budget_is_over=lambda: next(asked) > 7)

    assert [row["epoch"] for row in fitted.history] == [1, 2]  # 5 steps, and a part of the second epoch
    assert fitted.epoch in (1, 2)
    assert events[-1] == {
        "event": "note",
        "text": f"the budget was over in epoch 2 of 3; the best weights so far, of epoch {fitted.epoch}, are kept",
    }
    assert all(tensor.isfinite().all() for tensor in weights.values())


def test_a_run_that_goes_on_after_its_budget_keeps_what_the_attempts_before_have_trained(tmp_path):
    checkpoints = Checkpoints(tmp_path, "scratch", run="one")
    with pytest.raises(KilledError):
        fit(inputs(DyingImages(inputs().images.pixels_MHWC, 3)), checkpoints=checkpoints, checkpoint_every_s=0.0)

    _, fitted = fit(inputs(), checkpoints=checkpoints, budget_is_over=lambda: True)

    assert [row["epoch"] for row in fitted.history] == [1]


def test_a_budget_that_is_over_before_the_first_step_is_a_mistake():
    with pytest.raises(BudgetError, match="the budget was over before the first step"):
        fit(inputs(), budget_is_over=lambda: True)
