"""The networks of the benchmark and their preprocessing, as somebody without Pigeonhole would write them."""

from collections.abc import Callable
from typing import Any

import torch
import torchvision
from torch import nn
from torchvision import transforms

NUM_LABELS = 1000
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's
SIDE, RESIZE = 224, 256  # px
SMALL_SIDE = 28  # px, of the grey images that `cnn` takes


def build(network: str) -> nn.Module:
    """A network with random weights, ready to infer."""
    torch.manual_seed(0)
    return (_cnn() if network == "cnn" else torchvision.models.get_model(network, weights=None)).eval()


def _cnn() -> nn.Module:
    """Pigeonhole's `cnn`: a convolution, pooling, two dense layers."""
    return nn.Sequential(
        nn.Conv2d(1, 16, kernel_size=5, padding=2),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 14 * 14, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


def mode(network: str) -> str:
    """How Pillow calls the colours that the network takes."""
    return "L" if network == "cnn" else "RGB"


def preprocessing(network: str) -> Callable[[Any], torch.Tensor]:
    """From a Pillow image to the tensor that the network takes."""
    if network == "cnn":
        return transforms.Compose(
            [
                transforms.Grayscale(),
                transforms.Resize((SMALL_SIDE, SMALL_SIDE)),
                transforms.ToTensor(),
                transforms.Normalize(0.5, 0.5),
            ]
        )
    return transforms.Compose(
        [
            transforms.Resize(RESIZE),
            transforms.CenterCrop(SIDE),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
