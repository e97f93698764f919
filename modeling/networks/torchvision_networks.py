"""Builds torchvision's networks for any number of labels and for grey images, without auxiliary outputs."""

# Shapes: B images, H height, W width, C channels, L labels.
import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from modeling.errors import ArchitectureError
from modeling.images.preprocessing import Preprocessing
from modeling.networks.architectures import Architecture
from modeling.networks.dynamo import deferred_compiler_import
from modeling.networks.heads import head_of, resized_head

with deferred_compiler_import():
    from torchvision import models


def build_photograph_network(architecture: Architecture, preprocessing: Preprocessing, num_classes: int) -> nn.Module:
    """torchvision's network of that name with newly initialised weights and `num_classes` logits.

    Grey images are repeated to three channels before the first layer, so layers and their names are always the same as
    torchvision's.

    Raises:
        ArchitectureError: the network does not support the image size.
    """
    _check_sides(architecture, preprocessing)
    options = _options(architecture.name, preprocessing, num_classes)
    with _ConstantsOnCpu() if architecture.name.startswith("regnet") else contextlib.nullcontext():
        network: nn.Module = models.get_model(architecture.name, **options)
    if isinstance(network, models.SqueezeNet):
        network.classifier[2] = nn.Identity()  # replaces a ReLU, which would clip negative logits to zero
    if isinstance(network, models.MNASNet):
        network.__class__ = _MNASNet
    if architecture.name.startswith("maxvit"):  # its head has no bias; Pigeonhole's heads do
        head = resized_head(head_of(network, architecture.name), num_classes)
        network.set_submodule(architecture.head, head)
    if preprocessing.channels == 1:
        network.register_forward_pre_hook(_repeat_channel)
    return network


def _options(name: str, preprocessing: Preprocessing, num_classes: int) -> dict[str, Any]:
    """The arguments for torchvision's builder."""
    options: dict[str, Any] = {"weights": None, "num_classes": num_classes}
    if name in ("googlenet", "inception_v3"):
        # transform_input is part of the pre-trained weights' preprocessing, and no state dict contains it
        options |= {"aux_logits": False, "init_weights": True, "transform_input": True}
    if name.startswith("vit_"):
        options["image_size"] = preprocessing.height
    if name.startswith("maxvit"):
        options["input_size"] = (preprocessing.height, preprocessing.width)
    return options


def _check_sides(architecture: Architecture, preprocessing: Preprocessing) -> None:
    height, width = preprocessing.height, preprocessing.width
    step = architecture.step
    if min(height, width) < architecture.smallest:
        raise ArchitectureError(
            f"{architecture.name} needs images of at least {architecture.smallest} x {architecture.smallest} px, "
            f"not {height} x {width}; give image size {architecture.image_size}"
        )
    if step > 1 and (height % step or width % step or height != width):
        raise ArchitectureError(
            f"{architecture.name} needs square images whose side is a multiple of {step} px, not {height} x {width}; "
            f"give image size {architecture.image_size}"
        )


def _repeat_channel(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Repeat the channel of grey images, B1HW to B3HW, for a colour network."""
    return (inputs[0].expand(-1, 3, -1, -1), *inputs[1:])


class _MNASNet(models.MNASNet):  # type: ignore[misc]  # torchvision has no types
    """torchvision's MNASNet, but loads a plain state dict: the original needs a version that safetensors lacks."""

    _load_from_state_dict = nn.Module._load_from_state_dict


class _ConstantsOnCpu(TorchFunctionMode):
    """Keeps the few numbers from which regnet computes its widths on the CPU: they need values even on `meta`."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Create tensors from given numbers on the CPU; all other calls are unchanged."""
        place = {"device": "cpu"} if func in (torch.arange, torch.tensor) else {}
        return func(*args, **(kwargs or {}) | place)
