"""Scaling of pixels to a model's size."""

import numpy as np
import torch

from modeling.images.pixels import scale_to
from modeling.images.preprocessing import Preprocessing


def test_a_column_of_a_million_pixels_is_scaled_without_a_wide_image_in_between(monkeypatch):
    column = (np.arange(1_000_000) // 3922 % 256).astype(np.uint8).reshape(-1, 1, 1)
    sizes = []
    interpolate = torch.nn.functional.interpolate

    def seen(image, size, **options):
        sizes.append(image.shape[-2] * size[1])
        return interpolate(image, size=size, **options)

    monkeypatch.setattr(torch.nn.functional, "interpolate", seen)
    scaled = scale_to(column, Preprocessing("L", 224, 224))
    row = scale_to(np.ascontiguousarray(column.transpose(1, 0, 2)), Preprocessing("L", 224, 224))

    assert max(sizes) <= 1_000_000
    assert np.abs(scaled.astype(int) - row.transpose(1, 0, 2)).max() <= 1
    assert scaled[0].max() <= 2
    assert scaled[-1].min() >= 253
