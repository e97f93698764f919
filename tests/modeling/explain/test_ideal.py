from dataclasses import replace

import numpy as np
import pytest
import torch

from modeling.explain.ideal import Ascent, ideal_image
from modeling.images.preprocessing import Preprocessing
from tests.support.planted import GREY, SIDE, Patterns, SquareFinder, classifier, correlation, patterns, state

LABELS = ("across", "down", "disc")


@pytest.mark.parametrize("label", [0, 1, 2])
def test_the_ideal_image_of_a_label_is_classified_as_it_and_shows_its_pattern(label):
    network = Patterns()

    found = ideal_image(network, GREY, label, Ascent())

    assert (found.label, found.pixels_HWC.shape, found.pixels_HWC.dtype) == (label, (SIDE, SIDE, 1), np.uint8)
    (prediction,) = classifier(network, LABELS).predict(found.pixels_HWC[None], 1)
    assert prediction.labels == (LABELS[label],)
    assert prediction.scores[0] == pytest.approx(found.score, abs=1e-5)
    assert found.score > 0.95
    assert found.logit > found.grey_logit
    similar = [correlation(found.pixels_HWC, pattern) for pattern in patterns()]
    assert int(np.argmax(similar)) == label
    assert similar[label] > 0.7


def test_the_same_seed_gives_the_same_pixels_and_another_seed_others():
    network, ascent = SquareFinder(), Ascent(steps=10, seed=3)

    first, second, other = (
        ideal_image(network, GREY, 1, chosen).pixels_HWC for chosen in (ascent, ascent, replace(ascent, seed=4))
    )

    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_total_variation_makes_it_smoother_and_the_pull_to_grey_paler():
    network, ascent = Patterns(), Ascent(steps=20)
    with torch.no_grad():  # a label of speckles
        network.dense.weight[2] = torch.randn(SIDE * SIDE, generator=torch.Generator().manual_seed(0))

    def roughness(**changes: float) -> tuple[float, float]:
        pixels = ideal_image(network, GREY, 2, replace(ascent, **changes)).pixels_HWC[:, :, 0].astype(float)
        return float(np.abs(np.diff(pixels)).mean()), float(np.abs(pixels - 127.5).mean())

    assert roughness(variation=4.0)[0] < 0.5 * roughness(variation=0.0)[0]
    assert roughness(grey=20.0)[1] < 0.5 * roughness(grey=0.0)[1]


def test_from_flat_grey_without_steps_it_is_flat_grey():
    found = ideal_image(Patterns(), GREY, 0, Ascent(steps=0, start="grey"))

    assert np.unique(found.pixels_HWC).tolist() == [128]
    assert found.logit == pytest.approx(found.grey_logit, abs=1e-2)


def test_odd_sizes_and_temperature_are_heeded():
    preprocessing = Preprocessing("L", 101, 99)
    network = SquareFinder()

    cool, warm = (ideal_image(network, preprocessing, 1, Ascent(steps=2), temperature) for temperature in (1.0, 50.0))

    assert cool.pixels_HWC.shape == (101, 99, 1)
    assert np.array_equal(cool.pixels_HWC, warm.pixels_HWC)
    assert 0.5 < warm.score < cool.score


def test_climbing_changes_nothing_in_the_network():
    network = Patterns().train()
    before = state(network)

    ideal_image(network, GREY, 0, Ascent(steps=2))

    assert state(network) == before
