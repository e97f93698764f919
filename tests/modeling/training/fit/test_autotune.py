"""Which precision and layout a network trains in: what measures fastest, remembered."""

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from modeling.networks.recipes import Recipe
from modeling.registry.version_folder import locked
from modeling.training.fit import autotune
from modeling.training.fit.autotune import fastest_plan, measure_fastest_plan
from modeling.training.fit.plan import Plan
from modeling.training.request import TrainRequest
from modeling.training.train import train
from tests.support.images import make_class_folders

PLAN = Plan(Recipe(epochs=2, batch_size=8, learning_rate=0.1, weight_decay=0.01, augmentation="none"), 8)
IMAGES = torch.rand(8, 1, 6, 6)
STEPS = 20


def convolutional(width: int = 2) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.Flatten(), nn.Linear(16 * width, 2))


def dense() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 2))


def quiet(text: str) -> None:
    raise AssertionError(f"told without need: {text}")


@pytest.fixture
def clock(monkeypatch):
    """Says that steps in the wanted precision and layout are fastest, and which were timed."""

    class Clock:
        def __init__(self):
            self.fastest = ("fp32", False)
            self.timed = []

        def __call__(self, network, plan, images, *, repeats=3):
            self.timed.append((plan.precision, plan.channels_last))
            at_odds = sum(one != other for one, other in zip(self.timed[-1], self.fastest, strict=True))
            return 10.0 + 5 * at_odds  # a single step is worth it

    clock = Clock()
    monkeypatch.setattr("modeling.training.fit.autotune.step_seconds", clock)
    return clock


@pytest.mark.parametrize(("half_s", "precision"), [(1.0, "fp32"), (0.009, "fp32"), (0.008, "bf16")])
def test_half_precision_is_chosen_if_its_steps_take_clearly_less_time(monkeypatch, half_s, precision):
    now_s = 0.0

    class Timed(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, 2)

        def forward(self, images):
            nonlocal now_s
            now_s += half_s if torch.is_autocast_enabled("cpu") else 0.01
            return self.inner(images.flatten(1))

    monkeypatch.setattr(autotune, "time", SimpleNamespace(perf_counter=lambda: now_s))

    plan = measure_fastest_plan(Timed(), PLAN, torch.rand(8, 1, 2, 2), 1_000_000, on_note=quiet)

    assert plan.precision == precision


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("channels_last", [True, False])
def test_the_precision_and_layout_that_measure_fastest_are_chosen(clock, precision, channels_last):
    clock.fastest = (precision, channels_last)

    plan = measure_fastest_plan(convolutional(), PLAN, IMAGES, STEPS, on_note=quiet)

    assert (plan.precision, plan.channels_last) == (precision, channels_last)


def test_a_run_of_seconds_is_left_as_it_is_planned(monkeypatch):
    monkeypatch.setattr(autotune, "step_seconds", lambda network, plan, images, **_: 0.1 if plan == PLAN else 0.01)

    assert measure_fastest_plan(dense(), PLAN, IMAGES, 99, on_note=quiet) == PLAN
    assert measure_fastest_plan(dense(), PLAN, IMAGES, 100, on_note=quiet) != PLAN


def test_dense_networks_have_no_layout_to_choose(clock):
    clock.fastest = ("bf16", True)

    plan = measure_fastest_plan(dense(), PLAN, IMAGES, STEPS, on_note=quiet)

    assert plan.precision == "bf16"
    assert {layout for _, layout in clock.timed} == {False}


def test_what_was_found_is_remembered_for_the_same_layers_and_images(clock, tmp_path):
    clock.fastest = ("bf16", True)
    first = fastest_plan(convolutional(), PLAN, IMAGES, STEPS, tmp_path, on_note=quiet)
    clock.timed.clear()
    clock.fastest = ("fp32", False)

    assert fastest_plan(convolutional(), PLAN, IMAGES, STEPS, tmp_path, on_note=quiet) == first
    assert clock.timed == []
    assert fastest_plan(convolutional(3), PLAN, IMAGES, STEPS, tmp_path, on_note=quiet) == PLAN
    assert fastest_plan(convolutional(), PLAN, IMAGES, STEPS + 1, tmp_path, on_note=quiet) == PLAN
    assert fastest_plan(convolutional(), PLAN, IMAGES[:4], STEPS, tmp_path, on_note=quiet) == PLAN
    assert fastest_plan(convolutional(), PLAN, IMAGES, STEPS, None, on_note=quiet) == PLAN


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", '{"precision": "fp4", "channels_last": true}', '{"precision": "fp32"}']
)
def test_what_cannot_be_read_is_measured_again(clock, tmp_path, damage):
    fastest_plan(convolutional(), PLAN, IMAGES, STEPS, tmp_path, on_note=quiet)
    [file] = (tmp_path / "autotune").glob("*.json")
    file.write_text(damage)
    clock.fastest = ("bf16", False)

    plan = fastest_plan(convolutional(), PLAN, IMAGES, STEPS, tmp_path, on_note=quiet)

    assert plan.precision == "bf16"
    assert fastest_plan(convolutional(), PLAN, IMAGES, STEPS, tmp_path, on_note=quiet) == plan


def test_a_cache_that_cannot_be_written_is_told(clock, tmp_path):
    (tmp_path / "cache").touch()
    told = []

    assert fastest_plan(convolutional(), PLAN, IMAGES, STEPS, tmp_path / "cache", on_note=told.append) == PLAN

    assert [os.strerror(20) in text for text in told] == [True]


def test_the_first_to_measure_decides_for_those_that_measure_meanwhile(clock, tmp_path, monkeypatch):
    """Another process wrote its choice between our look and our own."""
    clock.fastest = ("bf16", False)
    key = autotune._key(convolutional(), PLAN, IMAGES, STEPS)

    def locked_by_another(folder):
        (folder / f"{key}.json").write_text('{"precision": "fp32", "channels_last": true}')
        return locked(folder)

    monkeypatch.setattr(autotune, "locked", locked_by_another)

    plan = fastest_plan(convolutional(), PLAN, IMAGES, STEPS, tmp_path, on_note=quiet)

    assert (plan.precision, plan.channels_last, clock.timed) == ("fp32", True, [])


def test_a_candidate_that_cannot_run_costs_a_line_and_not_the_training(monkeypatch):
    def seconds(network, plan, images, *, repeats=3):
        if plan.precision == "bf16":
            raise RuntimeError("not implemented for\n'BFloat16'")
        return 10.0

    monkeypatch.setattr(autotune, "step_seconds", seconds)
    told = []

    assert measure_fastest_plan(convolutional(), PLAN, IMAGES, STEPS, on_note=told.append) == PLAN

    assert told == ["training continues without precision bf16: not implemented for 'BFloat16'"]


def test_the_search_for_a_rate_finds_the_same_whether_the_plan_was_measured_or_cached(tmp_path):
    data = make_class_folders(tmp_path / "data")
    request = TrainRequest(
        data, "mlp", tmp_path / "first", epochs=1, learning_rate="auto", cache=tmp_path / "cache", seed=3
    )

    cards = [train(replace(request, output=tmp_path / name), lambda event: None) for name in ("first", "second")]

    first, second = (card.training["plan"]["recipe"]["learning_rate"] for card in cards)
    assert first == second


@pytest.mark.parametrize(("deterministic", "precision"), [(False, "bf16"), (True, "fp32")])
def test_a_training_asks_the_clock_unless_it_must_not(clock, tmp_path, deterministic, precision):
    clock.fastest = ("bf16", True)
    data = make_class_folders(tmp_path / "data")
    request = TrainRequest(data, "cnn", Path(tmp_path / "model"), epochs=1, deterministic=deterministic)

    card = train(request, lambda event: None)

    assert card.training["plan"]["precision"] == precision
    assert bool(clock.timed) is not deterministic
