"""Builds networks by architecture name, normalises their inputs and selects devices."""

# Shapes: B images, H height, W width, C channels, L labels.
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from modeling.errors import ModelingError
from modeling.images.preprocessing import Preprocessing
from modeling.networks.architectures import get_architecture


def build_network(architecture: str, preprocessing: Preprocessing, num_classes: int) -> nn.Module:
    """A new network from normalised images BCHW to logits BL; torch's global RNG initialises its weights.

    Raises:
        ArchitectureError: the name is unknown, or the network does not support the image size.
    """
    known = get_architecture(architecture)
    if known.family == "torchvision":
        from modeling.networks.torchvision_networks import build_photograph_network  # torchvision is slow to import

        return build_photograph_network(known, preprocessing, num_classes)
    module, _, function = known.builder.partition(":")
    builder: Callable[[Preprocessing, int], nn.Module] = getattr(importlib.import_module(module), function)
    return builder(preprocessing, num_classes)


def blank_network(architecture: str, preprocessing: Preprocessing, num_classes: int) -> nn.Module:
    """A network with uninitialised weights, for callers that load weights immediately.

    Random initialisation takes up to a second. Meta tensors also take a second: they import torch's compiler.

    Raises:
        ArchitectureError: as `build_network`.
    """
    with _NoRandomInit():
        return build_network(architecture, preprocessing, num_classes)


class _NoRandomInit(TorchFunctionMode):
    """Skips random initialisation in this block: tensors stay uninitialised or become zeros."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if getattr(func, "__module__", None) == nn.init.__name__:
            return args[0] if args else named["tensor"]
        if func in (Tensor.normal_, Tensor.uniform_):
            return args[0].zero_()  # not uninitialised: trunc_normal_ repeats until all numbers are within its bounds
        return func(*args, **named)


Moments = tuple[Tensor, Tensor]
"""Mean and standard deviation of each channel: both C11."""


def moments_on(device: torch.device, preprocessing: Preprocessing) -> Moments:
    """The preprocessing's mean and deviation on a device."""
    mean_C, std_C = (torch.tensor(values, device=device) for values in (preprocessing.mean, preprocessing.std))
    return mean_C.view(-1, 1, 1), std_C.view(-1, 1, 1)


def normalise(images_BHWC: Tensor, preprocessing: Preprocessing, moments: Moments | None = None) -> Tensor:
    """Convert uint8 pixels to the float32 BCHW input of networks, on the pixels' device.

    moments: the preprocessing's, if they are already on the device; copying them there synchronises with a GPU.
    """
    mean_C11, std_C11 = moments or moments_on(images_BHWC.device, preprocessing)
    images_BCHW = images_BHWC.permute(0, 3, 1, 2).contiguous().float()
    return (images_BCHW / 255.0 - mean_C11) / std_C11


def select_device(name: str) -> torch.device:
    """The torch device of that name; for `auto`, the GPU if there is one, else the CPU.

    Raises:
        ModelingError: this machine does not have the device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ValueError) as err:
        raise ModelingError(f"device {name!r} cannot be used here; choose auto, cpu or cuda:N ({err})") from err
    return device
