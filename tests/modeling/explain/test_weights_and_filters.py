import numpy as np
import pytest
import torch
from torch import nn

from modeling.errors import ModelingError
from modeling.explain.filters import (
    edge_filters,
    edge_responses,
    filter_pictures,
    is_one_dense_layer,
    learned_filters,
    learned_responses,
    weight_images,
)
from modeling.images.preprocessing import Preprocessing
from tests.support.planted import GREY, SIDE, Patterns, SquareFinder, correlation, patterns, square_picture


def test_a_perceptrons_weight_image_is_the_pattern_that_it_has_learned():
    found = weight_images(Patterns(), GREY)

    assert found.weights_LHWC.shape == (3, SIDE, SIDE, 1)
    similar = [[correlation(image[:, :, 0], pattern) for pattern in patterns()] for image in found.weights_LHWC]
    assert np.argmax(similar, axis=1).tolist() == [0, 1, 2]
    assert np.diag(similar) == pytest.approx(1)


def test_weights_in_pixel_space_and_the_bias_give_the_networks_own_logits():
    torch.manual_seed(0)
    preprocessing = Preprocessing("RGB", 3, 4, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    network = nn.Sequential(nn.Flatten(), nn.Linear(36, 5))
    picture = np.random.default_rng(0).integers(0, 256, (3, 4, 3)).astype(np.uint8)

    found = weight_images(network, preprocessing)

    images = (
        torch.from_numpy(picture).permute(2, 0, 1)[None] / 255 - torch.tensor(preprocessing.mean).view(3, 1, 1)
    ) / (torch.tensor(preprocessing.std).view(3, 1, 1))
    logits = (found.weights_LHWC * picture / 255).sum(axis=(1, 2, 3)) + found.bias_L
    assert logits == pytest.approx(network(images)[0].tolist(), abs=1e-5)


def test_a_network_of_more_than_one_layer_has_no_weight_images():
    network = nn.Sequential(nn.Flatten(), nn.Linear(576, 4), nn.ReLU(), nn.Linear(4, 2))

    assert not is_one_dense_layer(network)
    with pytest.raises(ModelingError, match="one dense layer"):
        weight_images(network, GREY)


def test_the_first_convolution_is_found_however_deep_and_each_filter_has_its_own_scale():
    network = nn.Sequential(nn.Sequential(nn.Identity(), nn.Conv2d(3, 2, 3)), nn.Conv2d(2, 4, 1))
    with torch.no_grad():
        network[0][1].weight.copy_(torch.stack([torch.full((3, 3, 3), 2.0), torch.full((3, 3, 3), -0.5)]))

    learned = learned_filters(network)
    pictures = filter_pictures(learned.kernels_FhwC)

    assert (learned.layer, learned.kernels_FhwC.shape) == ("0.1", (2, 3, 3, 3))
    assert [np.unique(picture).tolist() for picture in pictures] == [[1.0], [0.0]]


def test_a_dead_filter_is_drawn_grey_and_not_blown_up():
    kernels = np.stack([np.ones((3, 3, 1)), np.full((3, 3, 1), 1e-7)]).astype(np.float32)

    assert filter_pictures(kernels)[1] == pytest.approx(0.5, abs=1e-4)


def test_a_network_without_a_convolution_says_that_it_has_no_filters():
    with pytest.raises(ModelingError, match="no convolution"):
        learned_filters(Patterns())


@pytest.mark.parametrize(("name", "upright"), [("Sobel, upright edges", True), ("Sobel, level edges", False)])
def test_an_edge_filter_answers_at_the_planted_edge_and_nowhere_else(name, upright):
    picture = np.zeros((20, 20, 3), np.uint8)
    picture[:, 12:] = 255
    other = picture.transpose(1, 0, 2)

    along, across = (edge_responses(image, {name: edge_filters()[name]})[name] for image in (picture, other))
    response, silent = (along, across) if upright else (across.T, along.T)

    strength = np.abs(response).max(axis=0)
    assert int(np.argmax(strength)) in (11, 12)
    assert not strength[:8].any()
    assert not strength[16:].any()
    assert np.abs(silent).max() < 0.25 * strength.max()


def test_every_edge_filter_is_silent_on_an_even_picture_and_never_beyond_one():
    filters = edge_filters()
    even, loud = (np.full((9, 9, 1), 200, np.uint8), np.random.default_rng(0).integers(0, 2, (30, 30, 1)) * 255)

    assert all(np.abs(response).max() < 1e-5 for response in edge_responses(even, filters).values())
    responses = edge_responses(loud.astype(np.uint8), filters)
    assert all(0.4 < np.abs(response).max() <= 1 + 1e-5 for response in responses.values())


def test_gabor_filters_tell_lines_that_rise_from_lines_that_fall():
    rising = np.fliplr(np.eye(21))[:, :, None].astype(np.uint8) * 255

    responses = edge_responses(rising, edge_filters())

    middle = {name: float(response[10, 10]) for name, response in responses.items() if name.startswith("Gabor")}
    assert max(middle, key=lambda name: middle[name]) == "Gabor, 45° lines"
    assert middle["Gabor, 135° lines"] < 0.2


def test_learned_responses_are_the_layers_own_without_its_bias():
    network, picture = SquareFinder(), square_picture()
    with torch.no_grad():
        network.see.bias.fill_(7.0)

    maps = learned_responses(network, picture, GREY)

    assert maps.shape == (2, SIDE, SIDE)
    row, column = np.unravel_index(np.argmax(maps[0]), maps[0].shape)
    assert (row, column) in {(5, 16), (5, 17), (6, 16), (6, 17)}  # the middle of the square
    assert maps[0].max() == pytest.approx(230 / 255 * 2 - 1, abs=1e-4)
