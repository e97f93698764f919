"""What a network is made of: its layers, what comes out of them, what they weigh and what they cost."""

# Shapes: B images, H height, W width, C channels.
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from modeling.images.preprocessing import Preprocessing


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer, or what a group of layers has and does beside them (a class token, attention).

    name: its dotted path; empty for the network itself. output: shape of what it gives for one image; None where
    it is not called as a layer. parameters, trainable: numbers of its own. multiply_adds: for one image.
    """

    name: str
    kind: str
    output: tuple[int, ...] | None
    parameters: int
    trainable: int
    multiply_adds: int


@dataclass(frozen=True, slots=True)
class Summary:
    """A network's layers in the order of their names, and their sums.

    image: height, width, channels of the image it was given. size_bytes: of parameters and buffers.
    """

    image: tuple[int, int, int]
    layers: tuple[Layer, ...]
    parameters: int
    trainable: int
    multiply_adds: int
    size_bytes: int

    def to_json(self) -> dict[str, Any]:
        """A dict that JSON can hold."""
        return asdict(self)


def summarise(network: nn.Module, preprocessing: Preprocessing) -> Summary:
    """Look at a network while it answers to one image, on whichever device it is; `meta` does for all but values.

    Multiply-adds are those of matrix products, convolutions and attention, as published figures count them; biases,
    norms, activations, pooling and softmax, which come to a few percent, are left out. The network is as before.
    """
    parameters = list(network.parameters())
    device = parameters[0].device if parameters else torch.device("cpu")
    image_BCHW = torch.zeros(1, preprocessing.channels, preprocessing.height, preprocessing.width, device=device)
    outputs, counted = _watch(network, image_BCHW)
    layers = tuple(
        layer
        for name, module in network.named_modules()
        if _is_shown(layer := _layer(network, name, module, outputs, counted), module)
    )
    return Summary(
        image=preprocessing.shape,
        layers=layers,
        parameters=sum(parameter.numel() for parameter in parameters),
        trainable=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        multiply_adds=sum(layer.multiply_adds for layer in layers),
        size_bytes=sum(tensor.numel() * tensor.element_size() for tensor in (*parameters, *network.buffers())),
    )


def _watch(network: nn.Module, image_BCHW: Tensor) -> tuple[dict[str, tuple[int, ...]], dict[str, int]]:
    """Output shapes by layer, and floating-point operations by the counter's names, of one forward pass."""
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
        with counter, torch.enable_grad():  # with gradients, attention takes the path that the counter knows
            network(image_BCHW)
    finally:
        network.train(was_training)
        for handle in handles:
            handle.remove()
    return outputs, {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}


def _layer(
    network: nn.Module, name: str, module: nn.Module, outputs: dict[str, tuple[int, ...]], counted: dict[str, int]
) -> Layer:
    root = type(network).__name__

    def operations(path: str) -> int:
        return counted.get(f"{root}.{path}" if path else root, 0)

    children = (f"{name}.{child}" if name else child for child, _ in module.named_children())
    own = list(module.parameters(recurse=False))
    return Layer(
        name=name,
        kind=type(module).__name__,
        output=outputs.get(name),
        parameters=sum(parameter.numel() for parameter in own),
        trainable=sum(parameter.numel() for parameter in own if parameter.requires_grad),
        multiply_adds=(operations(name) - sum(map(operations, children))) // 2,  # a multiplication and an addition
    )


def _is_shown(layer: Layer, module: nn.Module) -> bool:
    """Whether a layer is one of its own right, not only a group of others."""
    is_leaf = next(module.children(), None) is None
    return bool(layer.parameters or layer.multiply_adds or (is_leaf and layer.output is not None))
