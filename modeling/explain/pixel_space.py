"""From pixels in [0, 1] to what a network takes, so that gradients reach the pixels themselves."""

# Shapes: B images, H height, W width, C channels.
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from modeling.explain.layers import device_of
from modeling.images.preprocessing import Preprocessing

WHITE = 255.0  # grey levels from black to white


def to_unit(pictures: Sequence[NDArray[np.uint8]], network: nn.Module) -> Tensor:
    """uint8 pictures HWC of one size as float pixels BCHW in [0, 1], on the network's device."""
    pixels_BHWC = torch.from_numpy(np.ascontiguousarray(np.stack(pictures))).to(device_of(network))
    return pixels_BHWC.permute(0, 3, 1, 2).contiguous().float() / WHITE


def normalised(unit_BCHW: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Pixels in [0, 1] as the network takes them: (pixel - mean) / std of each channel."""
    mean_C11 = torch.tensor(preprocessing.mean, device=unit_BCHW.device).view(-1, 1, 1)
    std_C11 = torch.tensor(preprocessing.std, device=unit_BCHW.device).view(-1, 1, 1)
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
