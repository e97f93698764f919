"""A network's layers by name, their outputs, and pixels as network input."""

# Shapes: B images, C channels, F maps, T tokens, H and W of a map or an image.
import difflib
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from modeling.errors import ModelingError
from modeling.images.preprocessing import Preprocessing
from modeling.inference.engines.torch_engine import repeatable
from modeling.networks.build import moments_on

NAMES_SHOWN = 12
_TOKENS = re.compile(r"encoder\.layers\.[^.]+\.ln_1")  # as torchvision names them


@contextmanager
def in_eval_mode(network: nn.Module) -> Iterator[None]:
    """The network in eval mode, reproducible on a GPU; afterwards every module is in its earlier mode."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.enable_grad(), repeatable():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def device_of(network: nn.Module) -> torch.device:
    """Where the network's parameters are; the CPU for a network without any."""
    return next((parameter.device for parameter in network.parameters()), torch.device("cpu"))


def find_layer(network: nn.Module, name: str) -> nn.Module:
    """The module of that dotted name.

    Raises:
        ModelingError: there is none; says the nearest names.
    """
    layers: dict[str, nn.Module] = {found: module for found, module in network.named_modules() if found}
    if name in layers:
        return layers[name]
    near = difflib.get_close_matches(name, layers, n=5, cutoff=0.5)
    if near:
        raise ModelingError(f"the network has no layer {name!r}; did you mean {' or '.join(near)}?")
    leaves = [found for found, module in layers.items() if not list(module.children())]
    more = f" and {len(leaves) - NAMES_SHOWN} more" if len(leaves) > NAMES_SHOWN else ""
    raise ModelingError(f"the network has no layer {name!r}; there are {', '.join(leaves[:NAMES_SHOWN])}{more}")


def first_convolution(network: nn.Module) -> tuple[str, nn.Conv2d] | None:
    """Name and module of the first convolution over two dimensions; None where there is none."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            return name, module
    return None


def last_tokens(network: nn.Module) -> str | None:
    """Name of the last layer of a vision transformer whose tokens still reach the answer; None for other networks.

    It is the input of the last block's attention: after it only the class token is read.
    """
    names = [name for name, _ in network.named_modules() if _TOKENS.fullmatch(name)]
    return names[-1] if names else None


def run_to_layer(network: nn.Module, images_BCHW: Tensor, layer: str) -> tuple[Tensor, Tensor]:
    """Logits BL, and the output of `layer` (of its last call, if it is called often).

    The output is copied before the next layer gets it, so that in-place activations do not change it; the
    gradient of the logits reaches it.

    Raises:
        ModelingError: no such layer, or one that takes no part or gives no tensor.
    """
    outputs: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: object) -> object:
        if not isinstance(output, Tensor):
            return None
        outputs.append(output)
        return output.clone()

    handle = find_layer(network, layer).register_forward_hook(keep)
    try:
        logits_BL = network(images_BCHW)
    finally:
        handle.remove()
    if not outputs:
        raise ModelingError(f"layer {layer!r} gives no tensor when the network runs; choose another")
    return logits_BL, outputs[-1]


def to_maps(output: Tensor, image_size: tuple[int, int], layer: str) -> Tensor:
    """A layer's output as maps BFHW, whatever its layout.

    Channels may come first (convolutions) or last (Swin); tokens BTC become a grid of the image's shape, without
    a leading class token (ViT).

    Raises:
        ModelingError: the output has no spatial dimensions, as after pooling.
    """
    aspect = image_size[0] / image_size[1]
    if output.ndim == 4:
        first, last = (_distance(shape, aspect) for shape in (output.shape[2:], output.shape[1:3]))
        return output if first <= last else output.permute(0, 3, 1, 2)
    if output.ndim == 3:
        for num_extra in (0, 1):
            grid = _grid(output.shape[1] - num_extra, aspect)
            if grid is not None:
                return output[:, num_extra:].transpose(1, 2).reshape(len(output), -1, *grid)
    raise ModelingError(
        f"layer {layer!r} gives numbers of shape {tuple(output.shape[1:])}, without places in the image; "
        f"choose a layer before the pooling"
    )


def _grid(num_tokens: int, aspect: float) -> tuple[int, int] | None:
    """Rows and columns of that many tokens in the image's shape (height / width), if they fit it."""
    rows = round(math.sqrt(max(num_tokens, 0) * aspect))
    if rows == 0 or num_tokens % rows or _distance((rows, num_tokens // rows), aspect) > 0.1:
        return None
    return rows, num_tokens // rows


def _distance(shape: tuple[int, ...], aspect: float) -> float:
    """How far a height and width are from an image's shape; 0 where they are alike."""
    return abs(math.log(shape[0] / shape[1] / aspect))


WHITE = 255.0  # grey levels from black to white


def to_unit(pictures: Sequence[NDArray[np.uint8]], network: nn.Module) -> Tensor:
    """uint8 pictures HWC of one size as float pixels BCHW in [0, 1], on the network's device."""
    pixels_BHWC = torch.from_numpy(np.ascontiguousarray(np.stack(pictures))).to(device_of(network))
    return pixels_BHWC.permute(0, 3, 1, 2).contiguous().float() / WHITE


def normalised(unit_BCHW: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Pixels in [0, 1] as network input: (pixel - mean) / std of each channel."""
    mean_C11, std_C11 = moments_on(unit_BCHW.device, preprocessing)
    return (unit_BCHW - mean_C11) / std_C11


def to_pixels(unit_BCHW: Tensor) -> NDArray[np.uint8]:
    """Pixels in [0, 1] as uint8 BHWC, rounded."""
    rounded = (unit_BCHW.detach() * WHITE).round().clamp(0, WHITE).to(torch.uint8)
    pixels: NDArray[np.uint8] = rounded.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return pixels


def scores_of(network: nn.Module, unit_BCHW: Tensor, preprocessing: Preprocessing, temperature: float = 1.0) -> Tensor:
    """Softmax scores BL in [0, 1] of pixels in [0, 1]; logits are divided by the temperature of the calibration."""
    with torch.no_grad():
        logits_BL: Tensor = network(normalised(unit_BCHW, preprocessing)).float()
    return (logits_BL / temperature).softmax(dim=1)
