"""Tiny networks built by hand, with known weights and answers."""

import numpy as np
import torch
from torch import nn

from modeling.images.preprocessing import Preprocessing
from modeling.inference.classifier import Classifier
from modeling.registry.card import ModelCard

SIDE = 24
GREY = Preprocessing("L", SIDE, SIDE)
SQUARE = (slice(3, 9), slice(14, 20))  # rows and columns of the bright square in `square_picture`


def square_picture(place: tuple[slice, slice] = SQUARE) -> np.ndarray:
    """Dim noise with one bright square, HWC."""
    picture = np.random.default_rng(0).integers(0, 40, (SIDE, SIDE, 1)).astype(np.uint8)
    picture[place] = 230
    return picture


class SquareFinder(nn.Module):
    """Label 1 if a patch of 5 x 5 px is bright anywhere, else label 0. Layer `see` fires on the patch."""

    def __init__(self) -> None:
        super().__init__()
        self.see = nn.Conv2d(1, 2, 5, padding=2)
        self.fire = nn.ReLU(inplace=True)
        self.head = nn.Linear(2, 2)
        with torch.no_grad():
            self.see.weight[0].fill_(1 / 25)  # mean brightness, -1 to 1
            self.see.weight[1].fill_(-1 / 25)
            self.see.bias.zero_()
            self.head.weight.copy_(torch.tensor([[0.0, 4.0], [40.0, 0.0]]))
            self.head.bias.zero_()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.fire(self.see(images)).mean(dim=(2, 3)))


class Patterns(nn.Module):
    """A perceptron that has learned one pattern for each label: a bar across, a bar down, a disc."""

    def __init__(self, strength: float = 0.05) -> None:
        super().__init__()
        self.dense = nn.Linear(SIDE * SIDE, 3)
        with torch.no_grad():
            self.dense.weight.copy_(strength * torch.from_numpy(patterns()).flatten(1))
            self.dense.bias.zero_()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.dense(images.flatten(1))


def patterns() -> np.ndarray:
    """The patterns of `Patterns`, LHW: 1 on the shape, and below zero around it, so that each sums to zero."""
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    shapes = np.stack([np.abs(y) < 3, np.abs(x) < 3, np.hypot(y, x) < 7]).astype(np.float32)
    return shapes - shapes.mean(axis=(1, 2), keepdims=True)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def classifier(network: nn.Module, labels: tuple[str, ...], architecture: str = "perceptron") -> Classifier:
    return Classifier(network, ModelCard(architecture, labels, GREY, "0" * 64), torch.device("cpu"))


def state(network: nn.Module) -> dict[str, object]:
    """The state that explaining must not change: weights, modes and gradients."""
    return {
        "weights": {name: tensor.clone().tolist() for name, tensor in network.state_dict().items()},
        "training": [module.training for module in network.modules()],
        "trainable": [parameter.requires_grad for parameter in network.parameters()],
        "gradients": [parameter.grad for parameter in network.parameters()],
        "hooks": [len(module._forward_hooks) for module in network.modules()],
    }
