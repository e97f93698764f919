"""The folders of images that `benchmarks.throughput` classifies, made in a temporary directory.

If `../shared/data` has no photographs, images of smooth noise are made; the result says which were used.
"""

import io
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.published_models import make_pngs, write_images

PHOTOGRAPHS = Path("../shared/data/cats_dogs")
USUAL = (500, 375)  # px; photographs of this longer side are taken
TILES = 8  # a side, of a 12-megapixel mosaic
LARGE = (TILES * 504, TILES * 378)  # 4032 x 3024 px, as telephones take them
NUM_LARGE = 40  # distinct ones: about a second each to make
NUM_SYNTHETIC = 64


def make_photographs(folder: Path, num_images: int, source: Path = PHOTOGRAPHS) -> str:
    """Photographs of about 500 x 375 px under new names, repeated to reach the number; returns a description."""
    originals = list(islice(_real(source), num_images))
    what = f"{len(originals)} photographs of {source.name}"
    if not originals:
        random = np.random.default_rng(0)
        originals = [_jpeg(_noise(random, USUAL), 90) for _ in range(min(NUM_SYNTHETIC, num_images))]
        what = f"{len(originals)} images of smooth noise, for there is no {source}"
    write_images(folder, originals, num_images, ".jpg")
    return what


def make_large(folder: Path, num_images: int, source: Path = PHOTOGRAPHS) -> str:
    """JPEGs of 12 megapixels, quality 90: mosaics of photographs; returns a description."""
    random = np.random.default_rng(0)
    tile = (LARGE[0] // TILES, LARGE[1] // TILES)
    photographs = [Image.open(io.BytesIO(data)).convert("RGB").resize(tile) for data in islice(_real(source), 256)]
    what = f"mosaics of {len(photographs)} photographs of {source.name}"
    if not photographs:
        photographs = [_noise(random, tile) for _ in range(NUM_SYNTHETIC)]
        what = f"mosaics of smooth noise, for there is no {source}"
    number = min(NUM_LARGE, num_images)
    originals = [_jpeg(_mosaic(photographs, random), 90) for _ in range(number)]
    write_images(folder, originals, num_images, ".jpg")
    return f"{number} {what}"


def make_digits(folder: Path, num_images: int) -> str:
    """Grey PNGs of 28 x 28 px; returns a description."""
    make_pngs(folder, num_images)
    return "grey noise of 28 x 28 px"


FOLDERS: dict[str, Callable[[Path, int], str]] = {
    "photographs": make_photographs,
    "12mp": make_large,
    "digits": make_digits,
}


def _real(source: Path) -> Iterator[bytes]:
    """The JPEGs below `source` of the usual size, alternating between classes."""
    classes = [sorted(path.glob("*.jpg")) for path in sorted(source.glob("*/"))]
    for paths in zip(*classes, strict=False):
        for path in paths:
            with Image.open(path) as image:
                usual = abs(max(image.size) - USUAL[0]) <= 1
            if usual:
                yield path.read_bytes()


def _noise(random: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Slowly changing colours with a little noise: its JPEG is as large as that of a photograph."""
    coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8))
    smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), np.float32)
    grainy = smooth + random.normal(0, 6, smooth.shape).astype(np.float32)
    return Image.fromarray(grainy.clip(0, 255).astype(np.uint8))


def _mosaic(photographs: list[Image.Image], random: np.random.Generator) -> Image.Image:
    """Photographs side by side, in a random order."""
    mosaic = Image.new("RGB", LARGE)
    width, height = photographs[0].size
    for place, which in enumerate(random.integers(0, len(photographs), TILES * TILES)):
        row, column = divmod(place, TILES)
        mosaic.paste(photographs[which], (column * width, row * height))
    return mosaic


def _jpeg(image: Image.Image, quality: int) -> bytes:
    data = io.BytesIO()
    image.save(data, "jpeg", quality=quality)
    return data.getvalue()
