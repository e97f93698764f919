"""Scaling of pixels to a model's size."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from modeling.images.pixels import interpolated, scale_to
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


@pytest.mark.parametrize("num_channels", [1, 3])
@pytest.mark.parametrize("sides", [(1, 1), (7, 1), (1, 7), (90, 60), (90, 1), (1000, 7)])
@pytest.mark.parametrize("size", [(1, 1), (5, 1), (1, 5), (120, 1), (5, 5)])
def test_bytes_and_floats_are_scaled_alike_to_any_size(num_channels, sides, size):
    pixels = np.random.default_rng(0).integers(0, 256, (*sides, num_channels), np.uint8)
    rows, columns = (_weights(*pair) for pair in zip(sides, size, strict=True))
    expected = np.einsum("hH,HWC,wW->hwC", rows, pixels, columns)

    scaled = scale_to(pixels, Preprocessing("L" if num_channels == 1 else "RGB", *size))
    floats = interpolated(torch.from_numpy(pixels).permute(2, 0, 1)[None].float(), *size)

    assert np.abs(scaled - expected).max() < 1.6  # bytes are rounded twice, their weights to 16 bits
    assert np.abs(floats[0].permute(1, 2, 0).numpy() - expected).max() < 0.01


def _weights(side: int, scaled_side: int) -> NDArray[np.float64]:
    """What each pixel of a line counts in each pixel of the scaled line: triangles, wider where the line shrinks."""
    factor = side / scaled_side
    distances = (np.arange(scaled_side)[:, None] + 0.5) * factor - (np.arange(side) + 0.5)
    weights = np.maximum(0, 1 - np.abs(distances) / max(factor, 1))
    return weights / weights.sum(axis=1, keepdims=True)
