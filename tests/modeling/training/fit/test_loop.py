import contextlib
import functools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector

from modeling.networks.build import normalise
from modeling.training.fit.checkpoint import Checkpoints, write_checkpoint
from modeling.training.fit.loop import DivergedError, TrainingLoop
from modeling.training.fit.plan import Plan
from tests.support.fit_runs import CPU, RECIPE, DyingImages, KilledError, fit, inputs, network


def same(state, other) -> bool:
    return all(torch.equal(state[name], other[name]) for name in state)


PLANS = {
    "sgd and mixing": Plan(replace(RECIPE, optimizer="sgd", mixing=True), micro_batch=7),
    "adamw and an average": Plan(RECIPE, micro_batch=16),
    "lookahead, channels last": Plan(replace(RECIPE, optimizer="sgd", lookahead=True), 16, channels_last=True),
    "no average, class weights": Plan(replace(RECIPE, average=0.0, augmentation="photo"), 16, class_weights=(0.5, 1.5)),
}


@functools.cache
def undisturbed(name):
    return fit(inputs(), PLANS[name])


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("num_batches", [2, 5, 11])
def test_a_run_that_is_killed_and_goes_on_ends_with_the_same_weights_bit_for_bit(tmp_path, num_batches, name):
    plan, (whole, fitted) = PLANS[name], undisturbed(name)
    saving = {"checkpoints": Checkpoints(tmp_path, "scratch", run="one"), "checkpoint_every_s": 0.0}
    events = []

    with pytest.raises(KilledError):
        fit(inputs(DyingImages(inputs().images.pixels_MHWC, num_batches)), plan, **saving)
    resumed, fitted_again = fit(inputs(), plan, emit=events.append, **saving)

    assert (events[0]["event"], events[0]["step"]) == ("resumed", num_batches)
    assert same(whole, resumed)
    assert fitted_again.epoch == fitted.epoch
    assert [row["loss"] for row in fitted_again.history] == [row["loss"] for row in fitted.history]


def test_another_seed_gives_other_weights():
    first, _ = fit(inputs())
    other = TrainingLoop(network(), inputs(), Plan(RECIPE, 16), seed=4, device=CPU)
    other.run(lambda event: None)

    assert not same(first, other.network.state_dict())


def test_the_network_learns_and_keeps_the_best_epoch():
    _, fitted = fit(inputs(), Plan(replace(RECIPE, epochs=6, augmentation="none"), 16))

    accuracies = [row["accuracy"] for row in fitted.history]
    assert fitted.accuracy == max(accuracies) >= 0.9
    assert fitted.epoch == max(row["epoch"] for row in fitted.history if row["accuracy"] == fitted.accuracy)


def test_micro_batches_make_the_same_step_as_one_batch():
    plain = linear()  # nothing that looks at the whole batch
    recipe = replace(RECIPE, augmentation="none", epochs=1)

    states = []
    for micro_batch in (16, 5):
        torch.manual_seed(0)
        plain[1].reset_parameters()
        fitting = TrainingLoop(plain, inputs(), Plan(recipe, micro_batch), seed=3, device=CPU)
        fitting.run(lambda event: None)
        states.append({name: tensor.clone() for name, tensor in plain.state_dict().items()})

    assert all(torch.allclose(states[0][name], states[1][name], atol=1e-6) for name in states[0])


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 2))


def one_step(**changes):
    """The linear network before and after one step on all training images, and the loss that was told."""
    plain = linear()
    recipe = replace(
        RECIPE, epochs=1, batch_size=70, optimizer="sgd", augmentation="none", average=0.0, weight_decay=0.0,
        warmup=0.0,
    )  # fmt: skip
    fitting = TrainingLoop(plain, inputs(), Plan(replace(recipe, **changes), 70), seed=3, device=CPU)
    fitted = fitting.run(lambda event: None)
    return linear(), plain, fitted.history[0]["loss"]


def logits_and_targets(plain: nn.Module):
    """What a network says to the training images, and what they are."""
    given = inputs()
    images = normalise(torch.from_numpy(given.images.pixels_MHWC[:70]), given.preprocessing)
    return plain(images), torch.from_numpy(given.targets_N[:70])


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_label_smoothing_is_in_the_loss(smoothing):
    before, _, loss = one_step(label_smoothing=smoothing)

    logits, targets = logits_and_targets(before)
    log_shares = logits.detach().log_softmax(dim=1)
    right, all_labels = -log_shares.gather(1, targets[:, None]).mean(), -log_shares.mean()
    assert loss == pytest.approx(float((1 - smoothing) * right + smoothing * all_labels), rel=1e-5)


def test_a_gradient_longer_than_the_clip_is_shortened_to_it_and_keeps_its_direction():
    before, free, _ = one_step(clip=0.0)
    _, clipped, _ = one_step(clip=0.01)
    _, hardly, _ = one_step(clip=1e6)

    nn.functional.cross_entropy(*logits_and_targets(before)).backward()
    gradient = torch.cat([parameter.grad.flatten() for parameter in before.parameters()])
    assert gradient.norm() > 0.01
    moved, moved_less, moved_as_much = (
        parameters_to_vector(other.parameters()) - parameters_to_vector(before.parameters())
        for other in (free, clipped, hardly)
    )
    assert torch.allclose(moved_less, moved * 0.01 / gradient.norm(), rtol=1e-3, atol=1e-7)
    assert torch.equal(moved_as_much, moved)


def test_frozen_statistics_stay_as_they_were():
    frozen = network()
    before = frozen[1].running_mean.clone()

    TrainingLoop(frozen, inputs(), Plan(RECIPE, 16, freeze_statistics=True), seed=3, device=CPU).run(lambda event: None)

    assert torch.equal(frozen[1].running_mean, before)


def test_a_loss_that_is_no_number_ends_the_run_at_its_step_and_keeps_the_last_good_checkpoint(tmp_path):
    class Poisoned(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.num_calls = network(), 0

        def forward(self, images):
            self.num_calls += self.training
            return self.inner(images) * (float("nan") if self.num_calls > 6 else 1.0)

    checkpoints = Checkpoints(tmp_path, "scratch", run="one")
    fitting = TrainingLoop(
        Poisoned(), inputs(), Plan(replace(RECIPE, augmentation="none"), 16), seed=3, device=CPU,
        checkpoints=checkpoints,
    )  # fmt: skip

    with pytest.raises(
        DivergedError,
        match=r"nan at step 7 \(epoch 2\); give a lower .* than 0.02; the last .* is .*scratch.0.5.checkpoint",
    ):
        fitting.run(lambda event: None)
    state = checkpoints.load()
    assert state["progress"]["epoch"] == 1
    assert all(tensor.isfinite().all() for tensor in state["network"].values())


def test_weights_that_the_last_step_spoils_are_not_kept():
    spoilt = network()
    spoilt[5].bias.register_hook(lambda gradient: gradient * float("nan"))
    plan = Plan(replace(RECIPE, epochs=1, batch_size=70, clip=0.0, average=0.0), 70)

    with pytest.raises(DivergedError, match=r"the weights are infinite or NaN at step 1 \(epoch 1\)"):
        TrainingLoop(spoilt, inputs(), plan, seed=3, device=CPU).run(lambda event: None)


@pytest.mark.parametrize(("batch_size", "sizes"), [(23, [[23], [23], [24]]), (69, [[70]]), (70, [[70]])])
def test_an_image_that_is_left_over_joins_the_batch_before_it(batch_size, sizes):
    seen = []

    class Watched(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Conv2d(3, 4, 8), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))

        def forward(self, images):
            if self.training:
                seen.append(len(images))
            return self.inner(images)

    plan = Plan(replace(RECIPE, epochs=1, batch_size=batch_size), micro_batch=batch_size)
    TrainingLoop(Watched(), inputs(), plan, seed=3, device=CPU).run(lambda event: None)

    assert sum(seen) == 70
    assert min(seen) > 1
    assert max(seen) <= batch_size
    assert len(seen) == sum(-(-size // batch_size) for batch in sizes for size in batch)


def test_a_full_disk_costs_the_checkpoint_and_not_the_run(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("modeling.training.fit.checkpoint.write_checkpoint", full)
    events = []

    checkpoints = Checkpoints(tmp_path, "scratch", run="one")
    _, fitted = fit(inputs(), emit=events.append, checkpoints=checkpoints, checkpoint_every_s=0.0)

    notes = [event for event in events if event["event"] == "warning"]
    assert len(fitted.history) == RECIPE.epochs
    assert len(notes) == 1
    assert "no checkpoint can be saved: [Errno 28] No space left on device" in notes[0]["text"]


def test_a_full_device_is_named_by_the_systems_own_error(tmp_path, monkeypatch):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    monkeypatch.setattr("modeling.durable.temporary_beside", lambda path, mode: contextlib.nullcontext(full))

    with pytest.raises(OSError, match="No space left"):
        write_checkpoint(tmp_path / "checkpoint", {"weights": torch.zeros(1_000_000)})
