"""Changes to training images that leave their class as it is."""

# Shapes: B images, H height, W width, C channels.
import math

import torch
from torch import Tensor
from torch.nn import functional

_ROTATION = math.radians(10)
_SCALE = 0.1
_SHIFT = 0.08  # of the side: about 2 of 28 px


def random_affine(images_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    """Each image turned by up to 10 degrees, scaled by up to 10 percent and shifted by up to 8; edges repeat.

    No flips: characters must not be mirrored. `generator` lives on the CPU, so that a seed means the same on
    every device.
    """
    num_images, _, height, width = images_BCHW.shape
    random_4B = 2 * torch.rand((4, num_images), generator=generator) - 1
    angle_B, scale_B = random_4B[0] * _ROTATION, 1 + random_4B[1] * _SCALE
    cos_B, sin_B = angle_B.cos() * scale_B, angle_B.sin() * scale_B
    aspect = height / width
    shift_x_B, shift_y_B = 2 * _SHIFT * random_4B[2], 2 * _SHIFT * random_4B[3]
    rows = [cos_B, -sin_B * aspect, shift_x_B, sin_B / aspect, cos_B, shift_y_B]
    theta_B23 = torch.stack(rows, dim=1).view(-1, 2, 3).to(images_BCHW.device)
    grid = functional.affine_grid(theta_B23, list(images_BCHW.shape), align_corners=False)
    return functional.grid_sample(images_BCHW, grid, padding_mode="border", align_corners=False)
