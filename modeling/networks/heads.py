"""The head of a network: the last linear layer, from features to logits, and its input features.

The logits of every architecture are linear in the features returned here: with head weights W and biases b,
logits = features W^T + b in eval mode (for a single view, if a network averages several). A head that is fitted on
these features can therefore replace the network's head.
"""

# Shapes: B images, H height, W width, C channels, F features, L labels.
from typing import cast

import torch
from torch import Tensor, nn

from modeling.errors import ArchitectureError
from modeling.networks.architectures import get_architecture
from modeling.networks.families.speednet import single_view


def head_of(network: nn.Module, architecture: str) -> nn.Linear | nn.Conv2d:
    """The layer that computes the logits: Linear, or (squeezenet) a 1 x 1 Conv2d averaged over the image.

    Raises:
        ArchitectureError: `network` is not of that architecture.
    """
    name = get_architecture(architecture).head
    try:
        head = network.get_submodule(name)
    except AttributeError as err:
        raise ArchitectureError(f"this network has no layer {name!r}, so it is not {architecture}") from err
    assert isinstance(head, nn.Linear | nn.Conv2d), f"head {name} of {architecture} is a {type(head).__name__}"
    return head


def features(network: nn.Module, architecture: str, images_BCHW: Tensor) -> Tensor:
    """The head's input for these normalised images, as vectors BF (averaged over the image if it is spatial).

    The network's mode does not change: put it in eval mode first. Gradients flow if they are enabled.
    """
    captured: list[Tensor] = []
    handle = head_of(network, architecture).register_forward_pre_hook(lambda _, inputs: captured.append(inputs[0]))
    try:
        with single_view(network):
            network(images_BCHW)
    finally:
        handle.remove()
    (given,) = captured
    return given.mean(dim=(2, 3)) if given.dim() == 4 else given


def set_head(network: nn.Module, architecture: str, weight_LF: Tensor, bias_L: Tensor) -> None:
    """Replace the network's head by one with these weights; the number of labels may change.

    Raises:
        ArchitectureError: the weights have the wrong number of features.
    """
    old = head_of(network, architecture)
    num_labels, num_features = weight_LF.shape
    if num_features != old.weight.shape[1] or bias_L.shape != (num_labels,):
        raise ArchitectureError(
            f"the head of {architecture} takes {old.weight.shape[1]} features; "
            f"got weights {tuple(weight_LF.shape)} and biases {tuple(bias_L.shape)}"
        )
    fresh = resized_head(old, num_labels)
    with torch.no_grad():
        fresh.weight.copy_(weight_LF.reshape(fresh.weight.shape))
        cast(Tensor, fresh.bias).copy_(bias_L)
    network.set_submodule(get_architecture(architecture).head, fresh)


def resized_head(old: nn.Linear | nn.Conv2d, num_labels: int) -> nn.Linear | nn.Conv2d:
    """A new head with `num_labels` outputs and biases, with the device, dtype and mode of the old one."""
    fresh: nn.Linear | nn.Conv2d
    if isinstance(old, nn.Linear):
        fresh = nn.Linear(old.in_features, num_labels, device=old.weight.device, dtype=old.weight.dtype)
    else:
        fresh = nn.Conv2d(old.in_channels, num_labels, 1, device=old.weight.device, dtype=old.weight.dtype)
    return fresh.train(old.training)
