"""Pictures with detail like photographs, for the tests of data sets."""

import numpy as np
from PIL import Image

from tests.support.images import encode


def photo(seed: int, size: tuple[int, int] = (96, 72)) -> Image.Image:
    """A picture of random soft patches of colour; every seed gives a different one."""
    patches = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize(size, Image.Resampling.BICUBIC)


def photo_png(seed: int) -> bytes:
    return encode(photo(seed))


def write_files(root, files: dict[str, bytes]):
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def plates(count: int, noise: float) -> list[bytes]:
    """The same view of a fixed camera several times, each with its own noise."""
    plate = np.asarray(photo(1, (128, 128)).convert("L"), dtype=np.float64)
    grains = (np.random.default_rng(seed).normal(0, noise, plate.shape) for seed in range(count))
    return [encode(Image.fromarray((plate + grain).clip(0, 255).astype(np.uint8))) for grain in grains]
