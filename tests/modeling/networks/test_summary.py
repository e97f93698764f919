"""What a summary says, against figures that others have published."""

from dataclasses import asdict

import pytest
import torch

from modeling.images.preprocessing import Preprocessing
from modeling.networks.architectures import default_preprocessing, get_architecture
from modeling.networks.build import build_network
from modeling.networks.summary import Layer, summarise

GREY_28 = Preprocessing("L", 28, 28)


@pytest.mark.parametrize(
    ("name", "parameters", "giga"),
    [  # torchvision's own documentation: "Num params" and "GFLOPS" of the weights
        ("mobilenet_v2", 3_504_872, 0.30),
        ("resnet18", 11_689_512, 1.81),
        ("vit_b_32", 88_224_232, 4.41),
    ],
)
def test_totals_are_the_published_ones(name, parameters, giga):
    preprocessing = default_preprocessing(get_architecture(name))
    with torch.device("meta"):
        network = build_network(name, preprocessing, 1000)

    summary = summarise(network, preprocessing)

    assert (summary.parameters, summary.trainable) == (parameters, parameters)
    assert round(summary.multiply_adds / 1e9, 2) == giga
    assert sum(layer.parameters for layer in summary.layers) == parameters
    assert summary.size_bytes == pytest.approx(4 * parameters, rel=0.02)  # and the running statistics


def test_every_layer_has_its_shape_and_its_cost():
    network = build_network("perceptron", GREY_28, 10)

    summary = summarise(network, GREY_28)

    assert summary.layers == (
        Layer("0", "Flatten", (784,), 0, 0, 0),
        Layer("1", "Linear", (10,), 7850, 7850, 7840),
    )
    assert (summary.image, summary.multiply_adds, summary.size_bytes) == ((28, 28, 1), 7840, 4 * 7850)


def test_frozen_parameters_are_not_counted_as_trainable_and_the_network_stays_as_it_was():
    network = build_network("cnn", GREY_28, 10)
    network[0].requires_grad_(False)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}

    summary = summarise(network, GREY_28)

    assert summary.parameters - summary.trainable == 16 * 25 + 16
    assert asdict(summary)["layers"][0] == {
        "name": "0", "kind": "Conv2d", "output": (16, 28, 28), "parameters": 416, "trainable": 0,
        "multiply_adds": 16 * 25 * 28 * 28,
    }  # fmt: skip
    assert network.training
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())
