"""The parts of a run: schedule, chance, average, mixing, precision, budget, range test."""

import errno
import struct
from dataclasses import replace

import pytest
import torch
from tensorboardX.proto.event_pb2 import Event
from torch import nn

from modeling.errors import ModelingError
from modeling.networks.augmentation import (
    BatchPosition,
    alternating_flip,
    augment,
    mix,
    random_affine,
    random_crop,
    random_shift,
    trivial_augment,
)
from modeling.networks.recipes import Recipe
from modeling.training.fit.autotune import kept_bytes, within_cpu_memory, within_memory
from modeling.training.fit.history import History, history_csv
from modeling.training.fit.optimizer import (
    AveragedWeights,
    Lookahead,
    find_learning_rate,
    learning_rate_factor,
    make_optimizer,
    seed_of,
    set_rates,
    steepest,
)
from modeling.training.fit.plan import BudgetError, Plan, epochs_in_budget
from modeling.training.fit.trainer import _shared_plan, class_weights

RECIPE = Recipe(epochs=2, batch_size=8, learning_rate=0.1, weight_decay=0.01, augmentation="none")


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_the_learning_rate_rises_to_its_peak_and_falls_to_nothing(decay):
    factors = [learning_rate_factor(step, 1000, warmup=0.2, decay=decay) for step in range(1000)]

    peak = factors.index(max(factors))
    assert peak == pytest.approx(200, abs=1)
    assert max(factors) == pytest.approx(1, abs=0.01)
    assert factors[:peak] == sorted(factors[:peak])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    assert factors[-1] < 0.01


def test_every_place_has_a_seed_of_its_own():
    places = [(stream, step) for stream in range(4) for step in range(2000)]

    seeds = {seed_of(seed, *place) for seed in (0, 1) for place in places}

    assert len(seeds) == 2 * len(places)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_the_average_follows_its_formula_and_covers_buffers():
    network = nn.BatchNorm1d(2)
    average = AveragedWeights(network, decay=0.9)
    with torch.no_grad():
        network.weight.fill_(3.0)
        network.running_mean.fill_(5.0)
    network.num_batches_tracked += 4

    average.update(network, 0.5)  # decay (1 + 0) / (10 + 0)

    assert torch.allclose(average.state["weight"], torch.tensor([2.8, 2.8]))
    assert torch.allclose(average.state["running_mean"], torch.tensor([4.5, 4.5]))
    assert average.state["num_batches_tracked"] == 4


def test_mixing_gives_each_image_the_shares_that_its_label_has():
    images = torch.stack([torch.full((1, 8, 8), float(value)) for value in range(4)])
    kinds = set()

    for seed in range(30):
        mixed = mix(images, torch.arange(4), chance(seed))
        means = mixed.images_BCHW.mean(dim=(1, 2, 3))
        assert torch.allclose(means, mixed.share * mixed.targets_B + (1 - mixed.share) * mixed.other_B, atol=1e-5)
        kinds.add(len(mixed.images_BCHW[3].unique()) > 1)

    assert kinds == {True, False}  # pasted, and blended


def test_a_shift_moves_by_up_to_two_pixels_and_mirrors_the_edge():
    image = torch.arange(64.0).view(1, 1, 8, 8)
    padded = nn.functional.pad(image, (2, 2, 2, 2), mode="reflect")
    allowed = {tuple(padded[0, 0, y : y + 8, x : x + 8].flatten().tolist()) for y in range(5) for x in range(5)}

    found = {tuple(random_shift(image, chance(seed)).flatten().tolist()) for seed in range(200)}

    assert found == allowed


def test_alternating_flips_show_every_image_both_ways_in_two_epochs():
    images = torch.rand(64, 1, 4, 4)
    first, second = (alternating_flip(images, BatchPosition(torch.arange(64), epoch, chance())) for epoch in (0, 1))

    mirrored = (first != images).any(dim=(1, 2, 3))
    assert torch.equal(second, first.flip(3))
    assert 16 < int(mirrored.sum()) < 48


def test_a_crop_of_a_photograph_is_a_part_of_it_in_the_size_asked_for():
    ramp = torch.linspace(0, 1, 32).view(1, 1, 1, 32).expand(50, 1, 32, 32)

    crops = random_crop(ramp, (16, 24), chance())

    assert crops.shape == (50, 1, 16, 24)
    spans = (crops[:, 0, 0, -1] - crops[:, 0, 0, 0]).abs()
    assert 0.4 < spans.min() < spans.max() <= 1
    assert 10 < int((crops[:, 0, 0, -1] < crops[:, 0, 0, 0]).sum()) < 40  # mirrored


@pytest.mark.parametrize("elastic", [False, True])
def test_an_affine_change_moves_each_image_its_own_way_and_never_far(elastic):
    dots = torch.zeros(200, 1, 40, 40)
    dots[:, :, 8:11, 18:21] = 1  # above the middle, so that a turn is a move to the side

    changed = random_affine(dots, chance(), elastic=elastic)

    shares = changed[:, 0] / changed[:, 0].sum(dim=(1, 2), keepdim=True)
    rows = (shares.sum(dim=2) * torch.arange(40)).sum(dim=1) - 9
    columns = (shares.sum(dim=1) * torch.arange(40)).sum(dim=1) - 19
    assert len({round(float(column), 3) for column in columns}) > 190
    # a turn of 10 degrees and a shear of 0.1 at 10.5 px from the middle, and a shift of 4 percent
    assert 2 < columns.abs().max() < (6 if elastic else 10.5 * (0.174 + 0.1) * 1.12 + 1.6)
    assert 1 < rows.abs().max() < (5 if elastic else 10.5 * 0.13 + 1.6 + 0.3)
    assert columns.mean().abs() < 0.4
    assert rows.mean().abs() < 0.4


def test_elastic_bends_what_affine_keeps_straight():
    lines = torch.zeros(60, 1, 41, 41)
    lines[:, :, :, 20] = 1

    def crookedness(images):
        """How far from a straight line, in px, the middle of each row's bright part lies at most."""
        rows = images[:, 0, 6:-6]
        columns = (rows * torch.arange(41.0)).sum(dim=2) / rows.sum(dim=2)
        at = torch.arange(columns.shape[1], dtype=torch.float32)
        slopes = ((at - at.mean()) * columns).sum(dim=1, keepdim=True) / ((at - at.mean()) ** 2).sum()
        return (columns - columns.mean(dim=1, keepdim=True) - slopes * (at - at.mean())).abs().amax(dim=1)

    straight, bent = (crookedness(random_affine(lines, chance(), elastic=elastic)) for elastic in (False, True))

    assert straight.max() < 0.2
    assert bent.median() > 0.4


@pytest.mark.parametrize("elastic", [False, True])
def test_an_affine_change_repeats_the_edges(elastic):
    assert torch.allclose(random_affine(torch.full((20, 3, 16, 16), 0.7), chance(), elastic=elastic), torch.tensor(0.7))


@pytest.mark.parametrize("kind", ["none", "affine", "elastic", "flip_shift", "photo"])
def test_augmentation_follows_from_its_chance_alone(kind):
    images = torch.rand(6, 3, 16, 16)

    first, again, other = (
        augment(images, kind, BatchPosition(torch.arange(6), 1, chance(seed)), size=(16, 16)) for seed in (1, 1, 2)
    )

    assert torch.equal(first, again)
    assert first.shape == images.shape
    assert torch.equal(first, other) == (kind == "none")


def test_trivial_augment_changes_most_images_and_keeps_their_kind():
    images = torch.randint(0, 256, (16, 12, 10, 3), dtype=torch.uint8)
    torch.manual_seed(0)

    changed = trivial_augment(images)

    assert (changed.shape, changed.dtype) == (images.shape, images.dtype)
    assert sum(not torch.equal(a, b) for a, b in zip(images, changed, strict=True)) > 8


def test_biases_and_frozen_weights_do_not_decay_and_rates_follow_their_peak():
    network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    network[2].requires_grad_(False)
    optimizer = make_optimizer(network, Plan(RECIPE, 8))

    set_rates(optimizer, 0.5)

    found = {
        name: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
        for name, known in network.named_parameters()
        if known is parameter
    }
    assert found == {"0.weight": (0.05, 0.01), "0.bias": (0.05, 0.0)}


def test_rare_classes_weigh_more_where_classes_are_far_from_even():
    even, uneven = torch.tensor([0, 0, 1, 1, 1]).numpy(), torch.tensor([0] * 16 + [1] * 4).numpy()

    weights = class_weights(uneven, 2)

    assert class_weights(even, 2) is None
    assert weights[1] / weights[0] == pytest.approx(2, rel=1e-4)  # the root of 16 to 4
    assert (16 * weights[0] + 4 * weights[1]) / 20 == pytest.approx(1, abs=1e-5)


def test_a_budget_allows_some_epochs_or_says_how_much_one_takes():
    assert epochs_in_budget(60, 10, 30) == 6
    assert epochs_in_budget(600, 10, 30) == 30
    with pytest.raises(
        ModelingError,
        match="one epoch takes about 90 s here, and 60 s of the budget are left; give --budget at least 31 s more",
    ):
        epochs_in_budget(60, 90, 30)


def test_a_step_that_does_not_fit_in_memory_is_halved_until_it_does():
    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, 2)

        def forward(self, images):
            if len(images) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return self.inner(images.flatten(1))

    plan = within_memory(Small(), Plan(RECIPE, 16), lambda size: torch.rand(size, 1, 2, 2))

    assert plan.micro_batch == 2
    Small.forward = lambda self, images: (_ for _ in ()).throw(MemoryError())
    with pytest.raises(ModelingError, match="one image does not fit in memory"):
        within_memory(Small(), Plan(RECIPE, 16), lambda size: torch.rand(size, 1, 2, 2))


def test_on_a_cpu_as_many_images_are_taken_at_a_time_as_the_memory_that_is_left_holds(monkeypatch):
    network = nn.Sequential(nn.Flatten(), nn.Linear(100, 1000), nn.GELU(), nn.Linear(1000, 1000), nn.GELU())
    images = torch.rand(2, 100)
    plan = Plan(RECIPE, 64)
    image_bytes = kept_bytes(network, plan, images) / 2
    weights = sum(parameter.numel() * 4 for parameter in network.parameters())

    def fitting(num_images):
        monkeypatch.setattr(
            "modeling.training.fit.autotune.memory_left", lambda: (2 * num_images * image_bytes + 4 * weights) / 0.7
        )
        return within_cpu_memory(network, plan, images).micro_batch

    assert 3 * 1000 * 4 <= image_bytes <= 5 * 1000 * 4  # what three or four layers give, and no weights
    assert [fitting(num_images) for num_images in (1000, 65, 63, 20, 0)] == [64, 64, 32, 16, 1]


def test_lookahead_goes_on_from_the_average_every_five_steps_by_a_decay_that_rises():
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 1.0)
    average = Lookahead(network, 0.9)
    weights = []

    for step in range(1, 11):
        with torch.no_grad():
            network.weight += 1.0  # what an optimizer does
        average.update(network, progress=step / 10)
        weights.append(network.weight.item())

    first = 0.9**5 * 0.5**3  # of the average 1 that stays after five steps, which went to 6
    at_5 = first * 1.0 + (1 - first) * 6.0
    last = 0.9**5
    at_10 = last * at_5 + (1 - last) * (at_5 + 5.0)
    assert weights[:4] == [2.0, 3.0, 4.0, 5.0]
    assert weights[4] == pytest.approx(at_5)
    assert weights[9] == pytest.approx(at_10) == pytest.approx(average.state["weight"].item())


def test_the_range_test_finds_a_rate_at_which_the_loss_falls():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    images = torch.randn(64, 1, 2, 2)
    targets = (images.flatten(1)[:, 0] > 0).long()

    rate = find_learning_rate(network, Plan(RECIPE, 8), ((images, targets) for _ in range(100)))

    assert 1e-3 < rate < 3
    assert steepest([0.1, 1.0, 10.0, 100.0], [3.0, 2.9, 1.0, 0.9]) in (1.0, 10.0)
    with pytest.raises(ModelingError, match="no learning rate makes the loss fall"):
        steepest([0.1, 1.0, 10.0], [1.0, 1.0, 2.0])


def test_a_plan_survives_json():
    plan = Plan(RECIPE, 4, "bf16", True, (0.5, 1.5), True)

    assert Plan.from_json(plan.to_json()) == plan
    assert Plan.from_json(replace(plan, class_weights=None).to_json()).class_weights is None


def test_the_history_is_a_table_with_a_line_an_epoch():
    rows = [{"stage": "scratch", "epoch": 1, "loss": 0.5, "accuracy": 0.75, "seconds": 1.5}]

    assert history_csv(rows).decode().splitlines() == [
        "stage,epoch,loss,accuracy,learning_rate,seconds,images_per_sec",
        "scratch,1,0.5,0.75,,1.5,",
    ]


def test_tensorboard_gets_each_figure_of_each_epoch(tmp_path):
    history = History(tmp_path, lambda event: None)
    for epoch, loss in ((1, 0.5), (2, 0.25)):
        figures = {"loss": loss, "accuracy": 1 - loss, "learning_rate": 0.125, "images_per_sec": 64.0, "seconds": 1.0}
        history({"event": "epoch", "stage": "scratch", "epoch": epoch, **figures})
    history.close()

    [file] = (tmp_path / "tensorboard").iterdir()
    told = {
        (value.tag, event.step): value.simple_value
        for event in map(Event.FromString, records(file.read_bytes()))
        for value in event.summary.value
    }
    assert told == {
        ("scratch/loss", 1): 0.5, ("scratch/accuracy", 1): 0.5,
        ("scratch/learning_rate", 1): 0.125, ("scratch/images_per_sec", 1): 64.0,
        ("scratch/loss", 2): 0.25, ("scratch/accuracy", 2): 0.75,
        ("scratch/learning_rate", 2): 0.125, ("scratch/images_per_sec", 2): 64.0,
    }  # fmt: skip


def records(data: bytes):
    """The records of a TFRecord file: length (8 bytes), checksum (4), content, checksum (4)."""
    while data:
        (length,) = struct.unpack_from("<Q", data)
        yield data[12 : 12 + length]
        data = data[16 + length :]


def test_a_full_disk_costs_the_figures_and_not_the_training(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    events = []
    history = History(tmp_path, events.append)
    history({"event": "epoch", "stage": "scratch", "epoch": 1, "loss": 0.5, "seconds": 1.0})
    monkeypatch.setattr("tensorboardX.record_writer.RecordWriter.write", refuse)
    for epoch in range(2, 9):  # a queue of TensorBoard's would be full
        history({"event": "epoch", "stage": "scratch", "epoch": epoch, "loss": 0.5, "seconds": 1.0})
    history.close()

    notes = [event["text"] for event in events if event["event"] == "note"]
    assert [row["epoch"] for row in history.rows] == list(range(1, 9))
    assert len(notes) == 7
    assert "No space left on device" in notes[0]


def test_all_processes_follow_the_plan_or_the_mistake_of_the_first():
    class Told:
        """A process beside the first one, whose word is `text`."""

        def __init__(self, text):
            self.text, self.size, self.is_leader = text, 2, False

        def broadcast_text(self, text):
            return self.text

    class First:
        size, is_leader = 2, True

        def broadcast_text(self, text):
            self.said = text
            return text

    def too_small():
        raise BudgetError("one epoch takes about 9 s")

    def never():
        raise AssertionError("only the first process measures")

    plan, first = Plan(RECIPE, 8, precision="bf16"), First()
    assert _shared_plan(first, lambda: plan) == plan
    assert _shared_plan(Told(first.said), never) == plan
    with pytest.raises(BudgetError, match="about 9 s"):
        _shared_plan(first, too_small)
    with pytest.raises(BudgetError, match="about 9 s"):
        _shared_plan(Told(first.said), never)
