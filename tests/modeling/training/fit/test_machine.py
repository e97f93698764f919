"""The machine of a training: the first attempt's threads are used by all, and another kind of machine is named."""

import json
from dataclasses import replace

import pytest
import torch

from modeling.training.fit import machine
from modeling.training.fit.checkpoint import Checkpoints
from modeling.training.fit.machine import differences, this_machine, use_first_threads
from tests.support.fit_runs import CPU, DyingImages, KilledError, fit, inputs


@pytest.fixture(autouse=True)
def _threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_every_attempt_computes_with_the_threads_of_the_first(tmp_path):
    torch.set_num_threads(3)
    first = use_first_threads(tmp_path / "work", this_machine(CPU, 1))
    torch.set_num_threads(1)

    second = use_first_threads(tmp_path / "work", this_machine(CPU, 1))

    assert (first.num_threads, second.num_threads, torch.get_num_threads()) == (3, 3, 3)
    assert differences(first, second) == ""


def test_the_number_of_threads_of_an_attempt_that_was_frozen_changes_nothing(tmp_path, monkeypatch):
    torch.set_num_threads(3)
    first = use_first_threads(tmp_path, this_machine(CPU, 1))
    found = iter([None, first])  # it looked before the other had written
    monkeypatch.setattr(machine, "_read", lambda path: next(found))
    torch.set_num_threads(1)

    late = use_first_threads(tmp_path, this_machine(CPU, 1))

    assert (late.num_threads, torch.get_num_threads()) == (3, 3)
    assert json.loads((tmp_path / "machine.json").read_text())["num_threads"] == 3


@pytest.mark.parametrize("content", ["", "{}", '{"num_threads": "many"}'])
def test_a_record_that_is_damaged_costs_only_itself(tmp_path, content):
    torch.set_num_threads(2)
    (tmp_path / "machine.json").write_text(content)

    assert use_first_threads(tmp_path, this_machine(CPU, 1)).num_threads == 2


def test_a_training_goes_on_from_a_checkpoint_of_another_machine_and_says_so(tmp_path):
    checkpoints, here = Checkpoints(tmp_path, "scratch", run="one"), this_machine(CPU, 1)
    there = replace(here, processor="another processor", torch="1.0")
    dying, events = inputs(DyingImages(inputs().images.pixels_MHWC, 7)), []
    with pytest.raises(KilledError):
        fit(dying, checkpoints=checkpoints, machine=there)

    _, fitted = fit(inputs(), emit=events.append, checkpoints=checkpoints, machine=here)

    assert (events[0]["event"], events[0]["epoch"]) == ("resumed", 1)
    assert events[1]["event"] == "warning"
    assert f"processor another processor before, {here.processor} now, torch 1.0 before" in events[1]["text"]
    assert len(fitted.history) == 3


def test_a_training_that_goes_on_on_the_same_kind_of_machine_warns_of_nothing(tmp_path):
    checkpoints, here = Checkpoints(tmp_path, "scratch", run="one"), this_machine(CPU, 1)
    with pytest.raises(KilledError):
        fit(inputs(DyingImages(inputs().images.pixels_MHWC, 7)), checkpoints=checkpoints, machine=here)
    events = []

    fit(inputs(), emit=events.append, checkpoints=checkpoints, machine=here)

    assert [event["event"] for event in events] == ["resumed", "epoch", "epoch"]
