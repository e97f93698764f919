"""Mixing pairs of training images and their labels: mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019)."""

# Shapes: B images, C channels, H height, W width.
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Mixed:
    """A batch in which image b holds `share_B[b]` of its own label and the rest of `other_B[b]`'s."""

    images_BCHW: Tensor
    targets_B: Tensor
    other_B: Tensor
    share: float


def mix(images_BCHW: Tensor, targets_B: Tensor, generator: torch.Generator) -> Mixed:
    """Mixup or CutMix, each half the time, with one share for the batch from Beta(0.8, 0.8)."""
    share = _beta(0.8, generator)
    other = torch.randperm(len(targets_B), generator=generator)
    if torch.rand((), generator=generator) < 0.5:
        images = share * images_BCHW + (1 - share) * images_BCHW[other.to(images_BCHW.device)]
    else:
        images, share = _cut(images_BCHW, other, share, generator)
    return Mixed(images, targets_B, targets_B[other.to(targets_B.device)], share)


def _cut(images_BCHW: Tensor, other: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, float]:
    """Paste a box of 1 - share of the area from the other images; the share that was really kept."""
    height, width = images_BCHW.shape[2:]
    side = (1 - share) ** 0.5
    centre_y, centre_x = (torch.rand(2, generator=generator) * torch.tensor([height, width])).tolist()
    top, bottom = (int(min(max(centre_y + sign * side * height / 2, 0), height)) for sign in (-1, 1))
    left, right = (int(min(max(centre_x + sign * side * width / 2, 0), width)) for sign in (-1, 1))
    images = images_BCHW.clone()
    images[:, :, top:bottom, left:right] = images_BCHW[other.to(images.device), :, top:bottom, left:right]
    return images, 1 - (bottom - top) * (right - left) / (height * width)


def _beta(alpha: float, generator: torch.Generator) -> float:
    """A draw from Beta(alpha, alpha) by Jöhnk's method: torch's own takes no generator."""
    while True:
        first, second = (torch.rand(2, generator=generator, dtype=torch.float64) ** (1 / alpha)).tolist()
        if 0 < first + second <= 1:
            return float(first / (first + second))
