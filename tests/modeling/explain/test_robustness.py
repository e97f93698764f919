import numpy as np
import pytest
import torch

from modeling.explain.robustness import Attack, attack_within, fooled_at, smallest_flip
from modeling.images.preprocessing import Preprocessing
from tests.support.planted import GREY, SIDE, Patterns, patterns, state

DISC = ((patterns()[2] > 0) * 120 + 60).astype(np.uint8)[:, :, None]


def answer(network: torch.nn.Module, unit: np.ndarray) -> int:
    images = torch.from_numpy(unit).permute(2, 0, 1)[None]
    return int(network((images - 0.5) / 0.5).argmax())


def test_the_smallest_change_flips_the_answer_and_half_of_it_does_not():
    network = Patterns()

    flip = smallest_flip(network, DISC, GREY, Attack())

    assert flip.epsilon is not None
    assert (answer(network, flip.unit_HWC), flip.label) == (2, 2)
    assert answer(network, flip.unit_HWC + flip.change_HWC) == flip.flipped != 2
    assert answer(network, flip.unit_HWC + flip.change_HWC / 2) == 2
    unit = torch.from_numpy(flip.unit_HWC).permute(2, 0, 1)[None]
    assert attack_within(network, unit, GREY, 2, flip.epsilon / 2, steps=10) is None


def test_for_a_linear_network_the_bound_is_the_smallest_there_is():
    network = Patterns()
    unit = torch.from_numpy(DISC / np.float32(255)).permute(2, 0, 1)[None]
    logits = network((unit - 0.5) / 0.5)[0].detach()
    weights = network.dense.weight.detach() / 0.5
    exact = min(
        float((logits[2] - logits[other]) / (weights[2] - weights[other]).abs().sum()) * 255 for other in (0, 1)
    )

    found = smallest_flip(network, DISC, GREY, Attack(bisections=8)).epsilon

    assert exact < found < 1.02 * exact


def test_the_change_keeps_within_its_bound_and_pixels_within_black_and_white():
    picture = np.where(patterns()[2] > 0, 255, 0).astype(np.uint8)[:, :, None]

    flip = smallest_flip(Patterns(), picture, GREY, Attack(largest=255.0))

    assert np.abs(flip.change_HWC).max() <= flip.epsilon / 255 + 1e-6
    for changed in (flip.unit_HWC + flip.change_HWC, flip.unit_HWC + flip.noise_HWC):
        assert changed.min() >= 0
        assert changed.max() <= 1


def test_noise_of_the_same_size_is_the_control_and_does_not_flip():
    flip = smallest_flip(Patterns(), DISC, GREY, Attack())

    assert np.abs(flip.noise_HWC) == pytest.approx(np.full(flip.noise_HWC.shape, flip.epsilon / 255), abs=1e-6)
    assert (flip.num_noises, flip.num_noise_flips) == (10, 0)


def test_noise_that_does_flip_is_counted():
    undecided = Patterns(strength=1e-6)
    with torch.no_grad():
        undecided.dense.weight.copy_(torch.randn(3, SIDE * SIDE, generator=torch.Generator().manual_seed(0)))

    flip = smallest_flip(undecided, np.full((SIDE, SIDE, 1), 128, np.uint8), GREY, Attack(smallest=64.0))

    assert flip.num_noise_flips > 0


def test_where_nothing_within_the_limit_flips_there_is_no_epsilon():
    flip = smallest_flip(Patterns(), DISC, GREY, Attack(largest=0.5))

    assert (flip.epsilon, flip.flipped, flip.survives_saving) == (None, 2, False)
    assert not flip.change_HWC.any()


def test_a_change_below_half_a_grey_level_does_not_survive_saving():
    picture = DISC.copy()
    network = Patterns()
    with torch.no_grad():  # the disc's lead becomes so small that next to nothing flips it
        unit = torch.from_numpy(picture / np.float32(255)).permute(2, 0, 1)[None]
        logits = network((unit - 0.5) / 0.5)[0]
        network.dense.bias[2] -= logits[2] - logits[:2].max() - 0.02

    flip = smallest_flip(network, picture, GREY, Attack())
    larger = smallest_flip(Patterns(), DISC, GREY, Attack())

    assert flip.epsilon < 0.5
    assert not flip.survives_saving
    assert larger.epsilon > 1
    assert larger.survives_saving


def test_a_second_network_is_fooled_sooner_the_more_alike_it_is():
    flip = smallest_flip(Patterns(), DISC, GREY, Attack())
    stubborn, other_size = Patterns(), Preprocessing("RGB", 2 * SIDE, 2 * SIDE)
    with torch.no_grad():
        stubborn.dense.bias[2] += 100

    class Shrinking(Patterns):
        """Sees colour at twice the size, and answers as the first."""

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(torch.nn.functional.avg_pool2d(images.mean(dim=1, keepdim=True), 2))

    assert fooled_at(Patterns(), GREY, flip) == 1.0
    assert fooled_at(Shrinking(), other_size, flip) in (1.0, 2.0)
    assert fooled_at(stubborn, GREY, flip) is None


def test_the_same_search_finds_the_same_and_leaves_the_network_as_it_was():
    network = Patterns().train()
    before = state(network)

    first, second = (smallest_flip(network, DISC, GREY, Attack()) for _ in range(2))

    assert np.array_equal(first.change_HWC, second.change_HWC)
    assert np.array_equal(first.noise_HWC, second.noise_HWC)
    assert state(network) == before
