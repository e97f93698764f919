"""Weights and filters of the first layer, fixed edge filters, and their responses to an image.

Own kernels, not scikit-image's: panels must repeat to the bit.
"""

# Shapes: F filters, L labels, H height, W width, C channels, kh and kw of a kernel.
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from modeling.errors import ModelingError
from modeling.explain.layers import WHITE, device_of, first_convolution, in_eval_mode, normalised, run_to_layer, to_unit
from modeling.images.preprocessing import Preprocessing


@dataclass(frozen=True, slots=True, eq=False)
class WeightImages:
    """The weight of each pixel for each label.

    weights_LHWC: by how much a label's logit grows when that pixel alone changes from black to white: the
        network's own weight divided by the preprocessing's std.
    bias_L: the logits of an all-black image, the preprocessing's mean included.
    """

    weights_LHWC: NDArray[np.float32]
    bias_L: NDArray[np.float32]


def is_one_dense_layer(network: nn.Module) -> bool:
    """Whether all parameters are in one dense layer, so that each label has one weight a pixel."""
    learned = [module for module in network.modules() if next(module.parameters(recurse=False), None) is not None]
    return len(learned) == 1 and isinstance(learned[0], nn.Linear)


def weight_images(network: nn.Module, preprocessing: Preprocessing) -> WeightImages:
    """The weights of a network of one dense layer, in pixel space.

    They are the derivative of the logits, so the order in which the network reads pixels does not matter.

    Raises:
        ModelingError: a network of more than one layer, whose pixels have no fixed weight.
    """
    if not is_one_dense_layer(network):
        raise ModelingError("only a network of one dense layer (a perceptron) has weight images")
    black_1CHW = torch.zeros((1, preprocessing.channels, preprocessing.height, preprocessing.width))
    black_1CHW = black_1CHW.to(device_of(network)).requires_grad_()
    with in_eval_mode(network):
        bias_L = network(normalised(black_1CHW, preprocessing))[0]
        rows = [torch.autograd.grad(logit, black_1CHW, retain_graph=True)[0][0] for logit in bias_L]
    weights_LHWC = torch.stack(rows).permute(0, 2, 3, 1).contiguous()
    return WeightImages(weights_LHWC.cpu().numpy(), bias_L.detach().cpu().numpy())


Floats = NDArray[np.float32]

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow converts colour to grey
_DEAD = 0.01  # of the largest weight
_GABOR_SIDE, _GABOR_SIGMA, _GABOR_WAVE = 7, 2.0, 5.0  # px


@dataclass(frozen=True, slots=True, eq=False)
class LearnedFilters:
    """Filters of a network's first convolution. kernels_FhwC: weights as learned; `layer`: its dotted name."""

    layer: str
    kernels_FhwC: Floats


def learned_filters(network: nn.Module) -> LearnedFilters:
    """The filters of the first convolution.

    Raises:
        ModelingError: the network has no convolution.
    """
    layer, convolution = _convolution(network)
    kernels_FCkhkw = convolution.weight.detach().float()
    return LearnedFilters(layer, kernels_FCkhkw.permute(0, 2, 3, 1).contiguous().cpu().numpy())


def filter_pictures(kernels_FhwC: Floats) -> Floats:
    """Kernels as pictures in [0, 1], each by its own largest weight: 0.5 is weight zero.

    A kernel whose largest weight is under a hundredth of the largest of all is dead, and stays almost grey.
    Three input channels give colours; any other number is averaged to one grey channel.
    """
    if kernels_FhwC.shape[3] != 3:
        kernels_FhwC = kernels_FhwC.mean(axis=3, keepdims=True)
    largest_F111 = np.abs(kernels_FhwC).max(axis=(1, 2, 3), keepdims=True)
    least = max(float(largest_F111.max()) * _DEAD, 1e-12)
    pictures: Floats = 0.5 + kernels_FhwC / (2 * np.maximum(largest_F111, least))
    return pictures


def learned_responses(network: nn.Module, picture_HWC: NDArray[np.uint8], preprocessing: Preprocessing) -> Floats:
    """The responses FHW of the first convolution's filters to an image, without bias: 0 is no response.

    Raises:
        ModelingError: the network has no convolution.
    """
    layer, convolution = _convolution(network)
    with in_eval_mode(network), torch.no_grad():
        images_1CHW = normalised(to_unit([picture_HWC], network), preprocessing)
        maps_FHW = run_to_layer(network, images_1CHW, layer)[1][0]
        if convolution.bias is not None:
            maps_FHW = maps_FHW - convolution.bias[:, None, None]
    responses: Floats = maps_FHW.float().cpu().numpy()
    return responses


def edge_filters() -> dict[str, Floats]:
    """Fixed filters by name: Sobel, Laplace, and Gabor at four angles, as kernels hw.

    Each sums to zero, so that a uniform area gives 0, and its absolute weights to 2, so that the sharpest edge
    from black to white gives at most 1 or -1. Named by the edge that each finds.
    """
    sobel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], np.float64)
    laplace = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]], np.float64)
    kernels = {"Sobel, upright edges": sobel, "Sobel, level edges": sobel.T, "Laplace, any edge": laplace}
    kernels |= {f"Gabor, {angle}° lines": _gabor(angle) for angle in (0, 45, 90, 135)}
    return {name: _balanced(kernel) for name, kernel in kernels.items()}


def edge_responses(picture_HWC: NDArray[np.uint8], kernels: Mapping[str, Floats]) -> dict[str, Floats]:
    """The response of each kernel to an image's brightness, HW in [-1, 1], at the image's size.

    The outermost pixels are repeated beyond the border, so that the border is no edge.
    """
    channels = picture_HWC.astype(np.float32) / WHITE
    grey_HW = channels[:, :, 0] if channels.shape[2] == 1 else channels @ np.array(LUMA, np.float32)
    return {name: _respond(grey_HW, kernel) for name, kernel in kernels.items()}


def _respond(grey_HW: Floats, kernel_hw: Floats) -> Floats:
    height, width = kernel_hw.shape
    padded_HW = np.pad(grey_HW, ((height // 2, height // 2), (width // 2, width // 2)), mode="edge")
    inputs, weights = (torch.from_numpy(np.ascontiguousarray(array))[None, None] for array in (padded_HW, kernel_hw))
    response: Floats = functional.conv2d(inputs, weights)[0, 0].numpy()
    return response


def _gabor(angle_deg: float) -> NDArray[np.float64]:
    """A cosine wave times a Gaussian, for lines that rise at that angle (Gabor 1946; Daugman 1985)."""
    reach = _GABOR_SIDE // 2
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float64)
    across = x * math.sin(math.radians(angle_deg)) + y * math.cos(math.radians(angle_deg))  # y points down
    bell = np.exp(-(x**2 + y**2) / (2 * _GABOR_SIGMA**2))
    kernel: NDArray[np.float64] = bell * np.cos(2 * np.pi * across / _GABOR_WAVE)
    balanced: NDArray[np.float64] = kernel - bell * kernel.sum() / bell.sum()
    return balanced


def _balanced(kernel: NDArray[np.float64]) -> Floats:
    balanced = kernel - kernel.mean()
    scaled: Floats = (2 * balanced / np.abs(balanced).sum()).astype(np.float32)
    return scaled


def _convolution(network: nn.Module) -> tuple[str, nn.Conv2d]:
    found = first_convolution(network)
    if found is None:
        raise ModelingError("the network has no convolution, so it has no filters")
    return found
