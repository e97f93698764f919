"""The ideal image of a label: gradient ascent on the pixels until the label's score is as high as it gets.

Ascent on the logit before the softmax with an L2 penalty towards grey (Simonyan et al. 2013), total variation
(Mahendran and Vedaldi 2015), and jitter and sizes from coarse to fine (Mordvintsev et al. 2015).

Own code, not lucent or captum: images must repeat to the bit from a seed.
"""

# Shapes: B images (one a label), C channels, H height, W width, h and w of a coarse image, L labels.
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from modeling.explain.layers import device_of, in_eval_mode, normalised, to_pixels, to_unit
from modeling.images.preprocessing import Preprocessing

_COARSEST = 48  # px: images whose longer side is at least twice this start at a smaller size
_MOST_SIZES = 3
_NOISE = 0.02  # of the range from black to white: standard deviation of the noise at the start
_EDGE = 1e-2  # of that range: smaller differences between neighbours are penalised by their square
_GREY = 0.5


@dataclass(frozen=True, slots=True)
class Ascent:
    """Settings of the gradient ascent.

    steps: at each size: one size for small images, three (a quarter, a half, the whole) for large ones.
    step: change of a pixel in the first step, in the range from black (0) to white (1); it decays to zero.
    variation, grey: weights of total variation and of L2, where the logit's gradient has mean size 1.
    jitter: largest shift of the image in a step, as a share of its side.
    start: flat grey, or grey with a little noise. seed: of that noise and of the shifts.
    """

    steps: int = 48
    step: float = 0.05
    variation: float = 1.0
    grey: float = 0.2
    jitter: float = 0.08
    start: Literal["noise", "grey"] = "noise"
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class IdealImage:
    """The image found for the label of that index, in whole grey levels, and the network's answer to it.

    score: the label's, in [0, 1]. logit: the same before the softmax; grey_logit: of flat grey.
    """

    label: int
    pixels_HWC: NDArray[np.uint8]
    score: float
    logit: float
    grey_logit: float


def ideal_image(
    network: nn.Module, preprocessing: Preprocessing, label: int, ascent: Ascent, temperature: float = 1.0
) -> IdealImage:
    """The ideal image of the label of that index; the same arguments give the same pixels on the same hardware.

    temperature: of the model's calibration; the score is the softmax of logits divided by it.
    """
    with in_eval_mode(network):
        unit_1CHW = _ascend(network, preprocessing, label, ascent)
        pixels_1HWC = to_pixels(unit_1CHW)
        with torch.no_grad():
            found_1CHW = normalised(to_unit(list(pixels_1HWC), network), preprocessing)
            grey_1CHW = normalised(torch.full_like(found_1CHW, _GREY), preprocessing)
            logits_2L = network(torch.cat((found_1CHW, grey_1CHW))).float()
    score = float((logits_2L[0] / temperature).softmax(dim=0)[label])
    return IdealImage(label, pixels_1HWC[0], score, float(logits_2L[0, label]), float(logits_2L[1, label]))


def _ascend(network: nn.Module, preprocessing: Preprocessing, label: int, ascent: Ascent) -> Tensor:
    """Pixels 1CHW in [0, 1], from coarse to fine."""
    size = (preprocessing.height, preprocessing.width)
    generator = torch.Generator().manual_seed(ascent.seed)
    divisors = _divisors(size)
    coarsest = (1, preprocessing.channels, *(side // divisors[0] for side in size))
    noise = _NOISE if ascent.start == "noise" else 0.0
    unit_1Chw = (_GREY + noise * torch.randn(coarsest, generator=generator)).to(device_of(network))
    for divisor in divisors:
        unit_1Chw = _resized(unit_1Chw, (size[0] // divisor, size[1] // divisor))
        for i in range(ascent.steps):
            shift = _random_shift(size, ascent.jitter, generator)
            gradient = _logit_gradient(network, preprocessing, unit_1Chw, label, shift)
            pull = ascent.variation * _variation_gradient(unit_1Chw) + ascent.grey * 2 * (unit_1Chw - _GREY)
            step = ascent.step * (1 - i / ascent.steps)
            unit_1Chw = (unit_1Chw + step * (gradient - pull)).clamp(0, 1)
    return _resized(unit_1Chw, size)


def _divisors(size: tuple[int, int]) -> list[int]:
    """The divisors of the image's size, from coarse to fine: [4, 2, 1] for large images."""
    divisors = [2**power for power in range(_MOST_SIZES)]
    return [divisor for divisor in reversed(divisors) if divisor == 1 or max(size) // divisor >= _COARSEST]


def _random_shift(size: tuple[int, int], share: float, generator: torch.Generator) -> tuple[int, int]:
    """A random shift down and to the right, in px."""
    most_y, most_x = (round(side * share) for side in size)
    y, x = (int(torch.randint(-most, most + 1, (), generator=generator)) for most in (most_y, most_x))
    return y, x


def _logit_gradient(
    network: nn.Module, preprocessing: Preprocessing, unit_1Chw: Tensor, label: int, shift: tuple[int, int]
) -> Tensor:
    """Gradient of the label's logit with respect to the pixels, scaled to a mean size of 1."""
    unit_1Chw = unit_1Chw.detach().requires_grad_()
    full_1CHW = _resized(unit_1Chw, (preprocessing.height, preprocessing.width))
    logit = network(normalised(_shifted(full_1CHW, shift), preprocessing))[0, label]
    gradient = torch.autograd.grad(logit, unit_1Chw)[0]
    return gradient / gradient.abs().mean().clamp_min(torch.finfo(gradient.dtype).tiny)


def _shifted(full_1CHW: Tensor, shift: tuple[int, int]) -> Tensor:
    """The image moved down and to the right, grey where it no longer covers; nothing wraps around."""
    down, right = shift
    return functional.pad(full_1CHW, (right, -right, down, -down), value=_GREY)


def _variation_gradient(unit_1Chw: Tensor) -> Tensor:
    """Gradient of the total variation (sum of differences between neighbours), smooth near zero."""
    unit_1Chw = unit_1Chw.detach().requires_grad_()
    down, right = unit_1Chw.diff(dim=2), unit_1Chw.diff(dim=3)
    variation = (down.square() + _EDGE**2).sqrt().sum() + (right.square() + _EDGE**2).sqrt().sum()
    return torch.autograd.grad(variation, unit_1Chw)[0]


def _resized(unit_BChw: Tensor, size: tuple[int, int]) -> Tensor:
    if unit_BChw.shape[2:] == size:
        return unit_BChw
    return functional.interpolate(unit_BChw, size, mode="bilinear", align_corners=False)
