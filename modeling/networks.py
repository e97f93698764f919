"""The networks of our own, and how any network of the registry is built and fed."""

# Shapes: B images, H height, W width, C channels, L labels.
import importlib
from collections.abc import Callable

import torch
from torch import Tensor, nn

from modeling.architectures import get_architecture
from modeling.errors import ArchitectureError, ModelingError
from modeling.preprocessing import Preprocessing

_HIDDEN = 128
_FILTERS = 16
_POOLED_SIDE = 14  # px: the side that pooling leaves of any image, so that the dense head stays small


def build_network(architecture: str, preprocessing: Preprocessing, num_classes: int) -> nn.Module:
    """A fresh network from normalised images BCHW to logits BL; its weights come from torch's global RNG.

    Raises:
        ArchitectureError: unknown name, or images too small for it.
    """
    module, _, function = get_architecture(architecture).builder.partition(":")
    builder: Callable[[Preprocessing, int], nn.Module] = getattr(importlib.import_module(module), function)
    return builder(preprocessing, num_classes)


def perceptron(preprocessing: Preprocessing, num_classes: int) -> nn.Module:
    """One dense layer."""
    return nn.Sequential(nn.Flatten(), nn.Linear(_num_values(preprocessing), num_classes))


def mlp(preprocessing: Preprocessing, num_classes: int) -> nn.Module:
    """Two hidden dense layers."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(_num_values(preprocessing), 2 * _HIDDEN),
        nn.ReLU(),
        nn.Linear(2 * _HIDDEN, _HIDDEN),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(_HIDDEN, num_classes),
    )


def cnn(preprocessing: Preprocessing, num_classes: int) -> nn.Module:
    """One convolution, pooling, a dense head."""
    height, width = preprocessing.height, preprocessing.width
    if min(height, width) < 4:
        raise ArchitectureError(f"a cnn needs images of at least 4 x 4 px, not {height} x {width}")
    pool_height, pool_width = (max(2, -(-side // _POOLED_SIDE)) for side in (height, width))
    num_features = _FILTERS * (height // pool_height) * (width // pool_width)
    return nn.Sequential(
        nn.Conv2d(preprocessing.channels, _FILTERS, kernel_size=5, padding=2),
        nn.MaxPool2d((pool_height, pool_width)),
        nn.ReLU(),  # after pooling: the same numbers for a quarter of the work
        nn.Flatten(),
        nn.Linear(num_features, _HIDDEN),
        nn.ReLU(),
        nn.Dropout(0.25),
        nn.Linear(_HIDDEN, num_classes),
    )


def normalise(images_BHWC: Tensor, preprocessing: Preprocessing) -> Tensor:
    """uint8 pixels to the float32 BCHW that networks take, on the device where the pixels are."""
    device = images_BHWC.device
    mean_C11 = torch.tensor(preprocessing.mean, device=device).view(-1, 1, 1)
    std_C11 = torch.tensor(preprocessing.std, device=device).view(-1, 1, 1)
    images_BCHW = images_BHWC.permute(0, 3, 1, 2).contiguous().float()
    return (images_BCHW / 255.0 - mean_C11) / std_C11


def select_device(name: str) -> torch.device:
    """The torch device of that name, or the best one for `auto`.

    Raises:
        ModelingError: this machine does not have it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ValueError) as err:
        raise ModelingError(f"device {name!r} cannot be used here; choose auto, cpu or cuda:N ({err})") from err
    return device


def _num_values(preprocessing: Preprocessing) -> int:
    return preprocessing.height * preprocessing.width * preprocessing.channels
