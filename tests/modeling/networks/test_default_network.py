"""The rule that chooses a network: by the size of images, the weights at hand, and the quality."""

from dataclasses import replace
from pathlib import Path

import pytest

from modeling.networks.architectures import get_architecture
from modeling.networks.default_network import MIN_CLASSES, MOST_EPOCHS, SMALL_SIDE, DataFacts, choose_network
from modeling.networks.pretrained.at_hand import WeightsAtHand
from modeling.networks.quality import QUALITIES

PHOTOGRAPHS = DataFacts(1000, 2, 500, 3)
SMALL = replace(PHOTOGRAPHS, median_side=SMALL_SIDE)


def weights(architecture: str, num_classes: int | None = 1000) -> WeightsAtHand:
    return WeightsAtHand(architecture, architecture, Path(architecture), "0" * 64, num_classes, "imported", "a test")


@pytest.mark.parametrize("quality", QUALITIES)
@pytest.mark.parametrize("channels", [1, 3])
def test_small_images_get_a_small_network_of_ours_whatever_is_at_hand(quality, channels):
    choice = choose_network(replace(SMALL, channels=channels), [weights("resnet18")], quality)

    assert get_architecture(choice.architecture).family != "torchvision"
    assert (choice.weights, choice.advice) == (None, "")
    assert "64 px" in choice.reason


@pytest.mark.parametrize("quality", QUALITIES)
def test_photographs_get_a_backbone_that_is_at_hand(quality):
    at_hand = weights("mobilenet_v2")

    choice = choose_network(PHOTOGRAPHS, [at_hand], quality)

    assert (choice.architecture, choice.weights, choice.advice) == ("mobilenet_v2", at_hand, "")


@pytest.mark.parametrize("quality", QUALITIES)
def test_without_weights_photographs_are_learnt_from_scratch_and_one_line_says_how_to_get_some(quality):
    of_no_use = [weights("lenet"), weights("resnet18", MIN_CLASSES - 1)]

    choice = choose_network(PHOTOGRAPHS, of_no_use, quality)

    assert choice.weights is None
    assert "`pigeonhole weights import FILE`" in choice.advice
    assert "\n" not in choice.reason + choice.advice


def test_weights_without_a_last_layer_are_a_backbone():
    assert choose_network(PHOTOGRAPHS, [weights("resnet18", None)], "good").architecture == "resnet18"


@pytest.mark.parametrize("quality", QUALITIES)
def test_the_order_of_the_weights_at_hand_does_not_matter(quality):
    at_hand = [weights(name) for name in ("vgg19", "mobilenet_v2", "squeezenet1_1", "resnet50", "vit_l_16")]

    assert choose_network(PHOTOGRAPHS, at_hand, quality) == choose_network(PHOTOGRAPHS, at_hand[::-1], quality)


def test_small_images_that_must_not_be_mirrored_get_a_network_that_does_not():
    plain = choose_network(SMALL, [], "good")
    lettered = choose_network(replace(SMALL, mirroring_matters=True), [], "good")
    grey = choose_network(replace(SMALL, channels=1), [], "good")

    assert (plain.architecture, lettered.architecture, grey.architecture) == ("speednet", "glyphnet", "glyphnet")


@pytest.mark.parametrize("median_side", [SMALL_SIDE, 500])
@pytest.mark.parametrize("quality", QUALITIES)
def test_few_images_are_shown_more_often(median_side, quality):
    few, many = (choose_network(DataFacts(number, 2, median_side, 3), [], quality).epochs for number in (60, 1_000_000))

    assert few == MOST_EPOCHS
    assert many is None or many < few


def test_a_better_quality_never_trains_for_fewer_epochs():
    facts = [DataFacts(number, 2, side, channels) for number in (60, 5000) for side in (28, 500) for channels in (1, 3)]
    for data in facts:
        good, best = (choose_network(data, [], quality) for quality in ("good", "best"))

        assert good.architecture == best.architecture
        assert (best.epochs or 0) >= (good.epochs or 0)


def test_many_photographs_get_the_cheaper_backbone():
    at_hand = [weights("mobilenet_v2"), weights("resnet50")]

    chosen = [choose_network(replace(PHOTOGRAPHS, num_images=number), at_hand, "good") for number in (1000, 100_000)]

    assert [choice.architecture for choice in chosen] == ["resnet50", "mobilenet_v2"]
