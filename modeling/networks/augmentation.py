"""Data augmentation of whole batches of training images.

Random numbers come from a CPU generator that the caller seeds for each step, so that a seed has the same effect on
every device, and a resumed run sees the same images. mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019) mix pairs
of images and their labels.

Own code, not torchvision's transforms: it works on whole batches, and a step's seed must give the same bits in every
run.
"""

# Shapes: B images, C channels, H height, W width.
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from modeling.networks.recipes import Augmentation

_ROTATION = math.radians(10)
_SCALE = 0.1  # of each axis
_SHEAR = 0.1
_SHIFT = 0.04  # of the side: about 1 of 28 px
_BENDS, _BEND = 5, 0.02  # control points per axis of the elastic distortion, and its size as a share of the sides
_SHIFT_PX = 2
_CROP_AREA = (0.35, 1.0)  # of a photograph
_CROP_ASPECT = math.log(4 / 3)
_JITTER = 0.3  # brightness, contrast and saturation


@dataclass(frozen=True, slots=True)
class BatchPosition:
    """A batch's position in a run: its images' indices (on the CPU), its epoch, and its random generator."""

    indices_B: Tensor
    epoch: int
    generator: torch.Generator


def augment(images_BCHW: Tensor, kind: Augmentation, position: BatchPosition, *, size: tuple[int, int]) -> Tensor:
    """The augmented batch; each image has `size` (height, width) afterwards.

    none: unchanged. affine: rotated, scaled and shifted slightly; never mirrored, because characters must not be.
    elastic: affine plus a slight distortion, as if written by another hand.
    flip_shift: shifted by up to 2 px, and mirrored every second epoch. photo: a random crop, mirrored half the time,
    with random brightness, contrast and saturation. photo_strong: TrivialAugment (Müller and Hutter 2021), then photo.
    """
    if kind in ("affine", "elastic"):
        return random_affine(images_BCHW, position.generator, elastic=kind == "elastic")
    if kind == "flip_shift":
        return alternating_flip(random_shift(images_BCHW, position.generator), position)
    if kind in ("photo", "photo_strong"):
        return colour_jitter(random_crop(images_BCHW, size, position.generator), position.generator)
    return images_BCHW


def random_affine(images_BCHW: Tensor, generator: torch.Generator, *, elastic: bool = False) -> Tensor:
    """Each image rotated by up to 10 degrees, scaled by up to 10 percent per axis, and sheared and shifted slightly.

    elastic: also distorted smoothly, by about 2 percent of its sides (Simard, Steinkraus and Platt 2003). Edges repeat.
    """
    num_images, _, height, width = images_BCHW.shape
    random_6B = 2 * torch.rand((6, num_images), generator=generator) - 1
    angle_B, shear_B = random_6B[0] * _ROTATION, random_6B[3] * _SHEAR
    scale_x_B, scale_y_B = 1 + _SCALE * random_6B[1], 1 + _SCALE * random_6B[2]
    cos_B, sin_B, aspect = angle_B.cos(), angle_B.sin(), height / width
    rows = [
        cos_B * scale_x_B, (shear_B * cos_B - sin_B) * scale_y_B * aspect, 2 * _SHIFT * random_6B[4],
        sin_B * scale_x_B / aspect, (shear_B * sin_B + cos_B) * scale_y_B, 2 * _SHIFT * random_6B[5],
    ]  # fmt: skip
    bend = torch.randn((num_images, 2, _BENDS, _BENDS), generator=generator) * 2 * _BEND if elastic else None
    return _sample(images_BCHW, rows, (height, width), bend)


def random_shift(images_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    """Each image shifted by up to 2 px per axis; mirrored edge pixels fill the gap."""
    num_images, channels, height, width = images_BCHW.shape
    padded = functional.pad(images_BCHW, (_SHIFT_PX,) * 4, mode="reflect")
    offsets_2B = torch.randint(0, 2 * _SHIFT_PX + 1, (2, num_images), generator=generator).to(images_BCHW.device)
    rows_BH = offsets_2B[0].view(-1, 1) + torch.arange(height, device=images_BCHW.device)
    columns_BW = offsets_2B[1].view(-1, 1) + torch.arange(width, device=images_BCHW.device)
    shape = (num_images, channels, height)
    taken = padded.gather(2, rows_BH[:, None, :, None].expand(*shape, padded.shape[3]))
    return taken.gather(3, columns_BW[:, None, None, :].expand(*shape, width))


def alternating_flip(images_BCHW: Tensor, position: BatchPosition) -> Tensor:
    """Mirror each image in every second epoch, half of them in even epochs (Jordan 2024, arXiv:2404.00498)."""
    hashed_B = (position.indices_B * 0x9E3779B1) >> 16  # Knuth's multiplicative hash decides which half an image is in
    mirrored_B = ((hashed_B + position.epoch) % 2 == 0).to(images_BCHW.device)
    return torch.where(mirrored_B.view(-1, 1, 1, 1), images_BCHW.flip(3), images_BCHW)


def random_crop(images_BCHW: Tensor, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """A random crop of each image (35 to 100 percent, aspect 3:4 to 4:3), scaled to `size`, mirrored half the time.

    As in Szegedy et al. 2015, but without the smallest crops, which need more epochs than operators have time for.
    """
    num_images = len(images_BCHW)
    random_5B = torch.rand((5, num_images), generator=generator)
    area_B = _CROP_AREA[0] + (_CROP_AREA[1] - _CROP_AREA[0]) * random_5B[0]
    aspect_B = torch.exp(_CROP_ASPECT * (2 * random_5B[1] - 1))
    width_B, height_B = (area_B * aspect_B).sqrt().clamp(max=1), (area_B / aspect_B).sqrt().clamp(max=1)
    mirror_B = torch.where(random_5B[4] < 0.5, -1.0, 1.0)
    shift_x_B, shift_y_B = (1 - width_B) * (2 * random_5B[2] - 1), (1 - height_B) * (2 * random_5B[3] - 1)
    zero_B = torch.zeros(num_images)
    return _sample(images_BCHW, [width_B * mirror_B, zero_B, shift_x_B, zero_B, height_B, shift_y_B], size)


def colour_jitter(images_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    """Change brightness, contrast and (of colour images) saturation of each normalised image by up to 30 percent."""
    factors_3B = 1 + _JITTER * (2 * torch.rand((3, len(images_BCHW)), generator=generator) - 1)
    brightness, contrast, saturation = (factors_B.to(images_BCHW.device).view(-1, 1, 1, 1) for factors_B in factors_3B)
    grey_B1HW = images_BCHW.mean(dim=1, keepdim=True)
    mean_B111 = grey_B1HW.mean(dim=(2, 3), keepdim=True)
    images = grey_B1HW + (images_BCHW - grey_B1HW) * saturation
    changed: Tensor = mean_B111 + (images - mean_B111) * contrast + (brightness - 1)
    return changed


def _sample(images_BCHW: Tensor, rows: list[Tensor], size: tuple[int, int], bend: Tensor | None = None) -> Tensor:
    """Sample each image bilinearly under the affine map with coefficients `rows`, displaced by a coarse `bend` B2hw."""
    theta_6B111 = torch.stack(rows).to(images_BCHW.device, images_BCHW.dtype).view(6, -1, 1, 1, 1)
    rows_H11, columns_W1 = _centres(size[0], images_BCHW).view(-1, 1, 1), _centres(size[1], images_BCHW).view(-1, 1)
    xs = theta_6B111[0] * columns_W1 + theta_6B111[1] * rows_H11 + theta_6B111[2]
    ys = theta_6B111[3] * columns_W1 + theta_6B111[4] * rows_H11 + theta_6B111[5]
    grid = torch.cat((xs, ys), dim=-1)  # a third of the time of functional.affine_grid on a CPU
    if bend is not None:
        moves = functional.interpolate(bend.to(grid), size=size, mode="bicubic", align_corners=True)
        grid = grid + moves.permute(0, 2, 3, 1)
    return functional.grid_sample(images_BCHW, grid, padding_mode="border", align_corners=False)


def _centres(num_pixels: int, like: Tensor) -> Tensor:
    """The positions of the pixels' centres in [-1, 1]."""
    return (2 * torch.arange(num_pixels, device=like.device, dtype=like.dtype) + 1) / num_pixels - 1


def trivial_augment(pixels_BHWC: Tensor) -> Tensor:
    """Apply one random operation of random strength to each uint8 image: TrivialAugment (Müller and Hutter 2021).

    Random numbers come from torch's global generator.
    """
    from torchvision.transforms.v2 import InterpolationMode, TrivialAugmentWide  # slow to import

    change = TrivialAugmentWide(interpolation=InterpolationMode.BILINEAR)
    images_BCHW = pixels_BHWC.permute(0, 3, 1, 2)
    return torch.stack([change(image_CHW) for image_CHW in images_BCHW]).permute(0, 2, 3, 1)


@dataclass(frozen=True, slots=True)
class MixedBatch:
    """A batch in which image b has label `targets_B[b]` with weight `share`, else label `other_B[b]`."""

    images_BCHW: Tensor
    targets_B: Tensor
    other_B: Tensor
    share: float


def mix(images_BCHW: Tensor, targets_B: Tensor, generator: torch.Generator) -> MixedBatch:
    """Apply mixup or CutMix, each half the time; the batch's share comes from Beta(0.8, 0.8)."""
    share = _beta(0.8, generator)
    other = torch.randperm(len(targets_B), generator=generator)
    if torch.rand((), generator=generator) < 0.5:
        images = share * images_BCHW + (1 - share) * images_BCHW[other.to(images_BCHW.device)]
    else:
        images, share = _cut(images_BCHW, other, share, generator)
    return MixedBatch(images, targets_B, targets_B[other.to(targets_B.device)], share)


def _cut(images_BCHW: Tensor, other: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, float]:
    """Paste a box of 1 - share of the area from the other images; returns the images and the share actually kept."""
    height, width = images_BCHW.shape[2:]
    side = (1 - share) ** 0.5
    centre_y, centre_x = (torch.rand(2, generator=generator) * torch.tensor([height, width])).tolist()
    top, bottom = (int(min(max(centre_y + sign * side * height / 2, 0), height)) for sign in (-1, 1))
    left, right = (int(min(max(centre_x + sign * side * width / 2, 0), width)) for sign in (-1, 1))
    images = images_BCHW.clone()
    images[:, :, top:bottom, left:right] = images_BCHW[other.to(images.device), :, top:bottom, left:right]
    return images, 1 - (bottom - top) * (right - left) / (height * width)


def _beta(alpha: float, generator: torch.Generator) -> float:
    """A sample from Beta(alpha, alpha) by Jöhnk's method: torch's Beta accepts no generator."""
    while True:
        first, second = (torch.rand(2, generator=generator, dtype=torch.float64) ** (1 / alpha)).tolist()
        if 0 < first + second <= 1:
            return float(first / (first + second))
