"""Batch normalisation folded into the convolution before it: the same function in fewer passes over memory."""

# Shapes: B images, C channels, H height, W width.
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils.hooks import RemovableHandle


@dataclass(slots=True)
class _Call:
    """What a layer took and gave; kept, so that no other tensor gets the same identity meanwhile."""

    taken: Tensor
    given: Tensor


@dataclass(slots=True)
class Trace:
    """What happened in one forward pass: each convolution's and normalisation's calls, the largest result."""

    calls: dict[nn.Module, list[_Call]] = field(default_factory=dict)
    largest_bytes: int = 0

    def note(self, layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """A forward hook."""
        if not isinstance(output, Tensor):
            return
        self.largest_bytes = max(self.largest_bytes, output.numel() * output.element_size())
        if type(layer) in (nn.Conv2d, nn.BatchNorm2d):
            self.calls.setdefault(layer, []).append(_Call(inputs[0], output))


@torch.inference_mode()
def trace(network: nn.Module, images_BCHW: Tensor) -> Trace:
    """Run these images through the network and note what its layers do."""
    seen = Trace()
    handles: list[RemovableHandle] = []
    try:
        handles.extend(layer.register_forward_hook(seen.note) for layer in network.modules())
        network(images_BCHW)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def fold_batch_norms(network: nn.Module, seen: Trace) -> int:
    """Fold every BatchNorm2d whose input is just what a Conv2d gives, in place; returns how many.

    The network must be in eval mode. Only layers that are used once in a pass are touched. What is done to a
    convolution's result outside of modules cannot be seen here: compare results before and after.
    """
    names = {layer: name for name, layer in network.named_modules()}
    givers = {
        id(calls[0].given): layer
        for layer, calls in seen.calls.items()
        if isinstance(layer, nn.Conv2d) and len(calls) == 1
    }
    num_folded = 0
    for norm, calls in seen.calls.items():
        convolution = givers.get(id(calls[0].taken)) if isinstance(norm, nn.BatchNorm2d) and len(calls) == 1 else None
        if convolution is not None and norm.running_mean is not None:
            _fold(convolution, cast(nn.BatchNorm2d, norm))
            network.set_submodule(names[norm], nn.Identity())
            num_folded += 1
    return num_folded


def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Give the convolution the weights that do the normalisation's work, too."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    weight, bias = fuse_conv_bn_weights(
        convolution.weight,
        convolution.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        cast("Tensor | None", norm.weight),
        cast("Tensor | None", norm.bias),
    )
    convolution.weight, convolution.bias = weight, bias
