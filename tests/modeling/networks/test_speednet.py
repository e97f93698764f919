"""What makes the fast networks fast to learn: the whitening first layer, and several views of an image in use."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from modeling.images.preprocessing import Preprocessing
from modeling.networks.families.speednet import SpeedNet, glyphnet, single_view, speednet

COLOUR = Preprocessing("RGB", 32, 32)
GREY = Preprocessing("L", 28, 28)


def photograph_like(count: int, preprocessing: Preprocessing) -> torch.Tensor:
    """Images whose neighbouring pixels are much alike, as those of photographs are."""
    coarse = np.random.default_rng(0).normal(size=(count, preprocessing.channels, 8, 8)).astype(np.float32)
    size = (preprocessing.height, preprocessing.width)
    smooth = functional.interpolate(torch.from_numpy(coarse), size=size, mode="bilinear")
    return smooth + 0.1 * torch.randn(smooth.shape, generator=torch.Generator().manual_seed(1))


def test_the_first_layer_whitens_the_patches_of_the_images_that_it_was_prepared_with():
    images = photograph_like(200, COLOUR)
    network = SpeedNet(3, 10)

    network.prepare(images)

    values = network.whiten(images).transpose(0, 1).flatten(1).double()
    half = len(values) // 2
    moments = values[:half] @ values[:half].T / values.shape[1]
    torch.testing.assert_close(values[half:], -values[:half])  # each filter both ways
    torch.testing.assert_close(moments, torch.eye(half).double(), atol=0.1, rtol=0)
    assert not network.whiten.weight.requires_grad


@pytest.mark.parametrize(
    ("make", "preprocessing", "shifts", "mirrors"),
    [
        (speednet, COLOUR, [(-1, -1), (1, 1)], True),
        (glyphnet, GREY, [(-1, -1), (-1, 1), (1, -1), (1, 1)], False),
    ],
)
def test_in_use_the_answer_is_the_mean_over_views_half_of_it_the_image_itself(make, preprocessing, shifts, mirrors):
    torch.manual_seed(0)
    network = make(preprocessing, 4).eval()
    images = photograph_like(2, preprocessing)

    def single_view_logits(views):
        with single_view(network):
            answers = network(views)
            return (answers + network(views.flip(3))) / 2 if mirrors else answers

    def shifted(down, right):
        rows, columns = (np.arange(side).clip(0) for side in images.shape[2:])
        rows, columns = (rows + down).clip(0, len(rows) - 1), (columns + right).clip(0, len(columns) - 1)
        return images[:, :, rows][:, :, :, columns]

    with torch.inference_mode():
        expected = single_view_logits(images) / 2 + sum(single_view_logits(shifted(*shift)) for shift in shifts) / (
            2 * len(shifts)
        )
        found = network(images)

    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, single_view_logits(images))


def test_in_training_an_image_is_looked_at_once():
    torch.manual_seed(0)
    network = speednet(COLOUR, 4)
    images = photograph_like(3, COLOUR)

    torch.testing.assert_close(network(images), network.single_view_logits(images))
