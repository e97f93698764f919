"""torchvision's networks, made to fit: any number of labels, grey images, no auxiliary outputs."""

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
from modeling.networks.dynamo import compiler_put_off
from modeling.networks.heads import head_of, resized_head

with compiler_put_off():
    from torchvision import models


def build_photograph_network(architecture: Architecture, preprocessing: Preprocessing, num_classes: int) -> nn.Module:
    """torchvision's network of that name with fresh weights and `num_classes` logits.

    Grey images are repeated to three channels before the first layer, so the layers and their names are
    torchvision's own whatever the images are.

    Raises:
        ArchitectureError: images of a size it cannot take.
    """
    _check_sides(architecture, preprocessing)
    options = _options(architecture.name, preprocessing, num_classes)
    with _CountsOnCpu() if architecture.name.startswith("regnet") else contextlib.nullcontext():
        network: nn.Module = models.get_model(architecture.name, **options)
    if isinstance(network, models.SqueezeNet):
        network.classifier[2] = nn.Identity()  # a ReLU, which would hide how far below zero a label is
    if isinstance(network, models.MNASNet):
        network.__class__ = _MNASNet
    if architecture.name.startswith("maxvit"):  # its head has no bias; every head of ours has
        head = resized_head(head_of(network, architecture.name), num_classes)
        network.set_submodule(architecture.head, head)
    if preprocessing.channels == 1:
        network.register_forward_pre_hook(_repeat_channel)
    return network


def _options(name: str, preprocessing: Preprocessing, num_classes: int) -> dict[str, Any]:
    """What torchvision's builder is told."""
    options: dict[str, Any] = {"weights": None, "num_classes": num_classes}
    if name in ("googlenet", "inception_v3"):
        # transform_input is part of how their pre-trained weights see an image and is in no state dict
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
    """B1HW to B3HW: a network for colour sees a grey image."""
    return (inputs[0].expand(-1, 3, -1, -1), *inputs[1:])


class _MNASNet(models.MNASNet):  # type: ignore[misc]  # torchvision has no types
    """As torchvision's, but loads a plain state dict: its own asks for a version that no safetensors file holds."""

    _load_from_state_dict = nn.Module._load_from_state_dict


class _CountsOnCpu(TorchFunctionMode):
    """Keeps on the CPU the few numbers from which regnet computes its widths: they need values on `meta`, too."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Tensors of given numbers are made on the CPU; all else goes its way."""
        place = {"device": "cpu"} if func in (torch.arange, torch.tensor) else {}
        return func(*args, **(kwargs or {}) | place)
