"""A summary of a network: its layers with their output shapes, parameters and multiply-adds."""

# Shapes: B images, H height, W width, C channels.
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from modeling.images.preprocessing import Preprocessing


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer, or the parameters and operations of a group itself (a class token, attention), without its layers.

    name: its dotted path; empty for the network itself. output: shape of its output for one image; None if it is not
    called as a layer. parameters, trainable: counts of its own parameters. multiply_adds: for one image.
    """

    name: str
    kind: str
    output: tuple[int, ...] | None
    parameters: int
    trainable: int
    multiply_adds: int


@dataclass(frozen=True, slots=True)
class Summary:
    """A network's layers in the order of `named_modules`, and their totals.

    image: height, width, channels of the input image. size_bytes: of parameters and buffers.
    """

    image: tuple[int, int, int]
    layers: tuple[Layer, ...]
    parameters: int
    trainable: int
    multiply_adds: int
    size_bytes: int


def summarise(network: nn.Module, preprocessing: Preprocessing) -> Summary:
    """Summarise a network by running it on one image, on the network's device; the `meta` device works too.

    Multiply-adds count matrix products, convolutions and attention, as published figures do, without biases, norms,
    activations, pooling and softmax (a few percent). The network does not change.
    """
    parameters = list(network.parameters())
    device = parameters[0].device if parameters else torch.device("cpu")
    image_BCHW = torch.zeros(1, preprocessing.channels, preprocessing.height, preprocessing.width, device=device)
    outputs, operations_by_path = _run_with_hooks(network, image_BCHW)
    found = ((_layer(network, name, each, outputs, operations_by_path), each) for name, each in network.named_modules())
    layers = tuple(layer for layer, module in found if _is_shown(layer, module))
    return Summary(
        image=preprocessing.shape,
        layers=layers,
        parameters=sum(parameter.numel() for parameter in parameters),
        trainable=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        multiply_adds=sum(layer.multiply_adds for layer in layers),
        size_bytes=sum(tensor.numel() * tensor.element_size() for tensor in (*parameters, *network.buffers())),
    )


def _run_with_hooks(network: nn.Module, image_BCHW: Tensor) -> tuple[dict[str, tuple[int, ...]], dict[str, int]]:
    """Run one forward pass; returns output shapes by layer, and floating-point operations by the counter's names."""
    outputs: dict[str, tuple[int, ...]] = {}

    def keep(name: str, output: object) -> None:
        first = output[0] if isinstance(output, tuple) else output
        if isinstance(first, Tensor):
            outputs[name] = tuple(first.shape[1:])

    handles = [
        module.register_forward_hook(lambda _, __, output, name=name: keep(name, output))
        for name, module in network.named_modules()
    ]
    was_training = network.training
    network.eval()
    counter = FlopCounterMode(display=False)
    try:
        with counter, torch.enable_grad():  # with gradients, attention uses what the counter supports
            network(image_BCHW)
    finally:
        network.train(was_training)
        for handle in handles:
            handle.remove()
    return outputs, {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}


def _layer(
    network: nn.Module,
    name: str,
    module: nn.Module,
    outputs: dict[str, tuple[int, ...]],
    operations_by_path: dict[str, int],
) -> Layer:
    root = type(network).__name__

    def operations(path: str) -> int:
        return operations_by_path.get(f"{root}.{path}" if path else root, 0)

    children = (f"{name}.{child}" if name else child for child, _ in module.named_children())
    own = list(module.parameters(recurse=False))
    return Layer(
        name=name,
        kind=type(module).__name__,
        output=outputs.get(name),
        parameters=sum(parameter.numel() for parameter in own),
        trainable=sum(parameter.numel() for parameter in own if parameter.requires_grad),
        multiply_adds=(operations(name) - sum(map(operations, children))) // 2,  # one multiply-add is two operations
    )


def _is_shown(layer: Layer, module: nn.Module) -> bool:
    """Whether a layer has parameters or operations of its own or is a leaf, not only a group of others."""
    is_leaf = next(module.children(), None) is None
    return bool(layer.parameters or layer.multiply_adds or (is_leaf and layer.output is not None))
