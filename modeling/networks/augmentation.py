"""Changes to training images that leave their class as it is, for a whole batch at once.

Chance comes from a generator on the CPU that the caller seeds for each step, so that a seed means the same on
every device and a run that goes on later sees the same images. Pairs of images and their labels are mixed by mixup
(Zhang et al. 2018) and CutMix (Yun et al. 2019).

Own code, not torchvision's transforms: whole batches at once, and a step's seed must give the same bits on every run.
"""

# Shapes: B images, H height, W width, C channels.
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
_BENDS, _BEND = 5, 0.02  # points each way at which an image is bent, and by how much of its sides
_SHIFT_PX = 2
_CROP_AREA = (0.35, 1.0)  # of a photograph
_CROP_ASPECT = math.log(4 / 3)
_JITTER = 0.3  # brightness, contrast and saturation


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a run a batch stands: its images' indices (on the CPU), its epoch, and its source of chance."""

    indices_B: Tensor
    epoch: int
    generator: torch.Generator


def augment(images_BCHW: Tensor, kind: Augmentation, place: Place, *, size: tuple[int, int]) -> Tensor:
    """The batch changed in the recipe's way, each image `size` (height, width).

    none: as it is. affine: turned, scaled and shifted a little; never mirrored, as characters must not be.
    elastic: the same, and bent a little, as by another hand.
    flip_shift: moved by up to 2 px, and mirrored every second epoch. photo: a random part, mirrored half the time,
    with other brightness, contrast and saturation. photo_strong: photo, and TrivialAugment (Müller and Hutter 2021)
    before it.
    """
    if kind in ("affine", "elastic"):
        return random_affine(images_BCHW, place.generator, elastic=kind == "elastic")
    if kind == "flip_shift":
        return alternating_flip(random_shift(images_BCHW, place.generator), place)
    if kind in ("photo", "photo_strong"):
        return colour_jitter(random_crop(images_BCHW, size, place.generator), place.generator)
    return images_BCHW


def random_affine(images_BCHW: Tensor, generator: torch.Generator, *, elastic: bool = False) -> Tensor:
    """Each image turned by up to 10 degrees, scaled by up to 10 percent each way, sheared and shifted a little.

    elastic: and bent smoothly, by 2 percent of its sides or so (Simard, Steinkraus and Platt 2003). Edges repeat.
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
    """Each image moved by up to 2 px each way; what comes in is its mirrored edge."""
    num_images, channels, height, width = images_BCHW.shape
    padded = functional.pad(images_BCHW, (_SHIFT_PX,) * 4, mode="reflect")
    offsets_2B = torch.randint(0, 2 * _SHIFT_PX + 1, (2, num_images), generator=generator).to(images_BCHW.device)
    rows_BH = offsets_2B[0].view(-1, 1) + torch.arange(height, device=images_BCHW.device)
    columns_BW = offsets_2B[1].view(-1, 1) + torch.arange(width, device=images_BCHW.device)
    shape = (num_images, channels, height)
    taken = padded.gather(2, rows_BH[:, None, :, None].expand(*shape, padded.shape[3]))
    return taken.gather(3, columns_BW[:, None, None, :].expand(*shape, width))


def alternating_flip(images_BCHW: Tensor, place: Place) -> Tensor:
    """Each image mirrored in every second epoch, half of them in the even ones (Jordan 2024, arXiv:2404.00498)."""
    hashed_B = (place.indices_B * 0x9E3779B1) >> 16  # Knuth's multiplicative hash: which half an image is in
    mirrored_B = ((hashed_B + place.epoch) % 2 == 0).to(images_BCHW.device)
    return torch.where(mirrored_B.view(-1, 1, 1, 1), images_BCHW.flip(3), images_BCHW)


def random_crop(images_BCHW: Tensor, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """A part of each image (35 to 100 percent of it, aspect 3:4 to 4:3), scaled to `size`, mirrored half the time.

    As in Szegedy et al. 2015, but for the smallest parts, which need more epochs than operators have.
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
    """Brightness, contrast and (of colour images) saturation of each normalised image changed by up to 30 percent."""
    factors_3B = 1 + _JITTER * (2 * torch.rand((3, len(images_BCHW)), generator=generator) - 1)
    brightness, contrast, saturation = (factors_B.to(images_BCHW.device).view(-1, 1, 1, 1) for factors_B in factors_3B)
    grey_B1HW = images_BCHW.mean(dim=1, keepdim=True)
    mean_B111 = grey_B1HW.mean(dim=(2, 3), keepdim=True)
    images = grey_B1HW + (images_BCHW - grey_B1HW) * saturation
    changed: Tensor = mean_B111 + (images - mean_B111) * contrast + (brightness - 1)
    return changed


def _sample(images_BCHW: Tensor, rows: list[Tensor], size: tuple[int, int], bend: Tensor | None = None) -> Tensor:
    """Bilinear samples of each image at the affine map whose six numbers are `rows`, moved by a coarse `bend` B2hw."""
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
    """Where the centres of pixels lie in [-1, 1]."""
    return (2 * torch.arange(num_pixels, device=like.device, dtype=like.dtype) + 1) / num_pixels - 1


def trivial_augment(pixels_BHWC: Tensor) -> Tensor:
    """One random change of random strength to each uint8 image: TrivialAugment (Müller and Hutter 2021).

    Chance comes from torch's global source.
    """
    from torchvision.transforms.v2 import InterpolationMode, TrivialAugmentWide  # slow to import

    change = TrivialAugmentWide(interpolation=InterpolationMode.BILINEAR)
    images_BCHW = pixels_BHWC.permute(0, 3, 1, 2)
    return torch.stack([change(image_CHW) for image_CHW in images_BCHW]).permute(0, 2, 3, 1)


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
