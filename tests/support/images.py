"""Small images and data sets for the tests of modeling, and the paths of the real ones."""

import gzip
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from modeling.images.preprocessing import Preprocessing

REAL_DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"

GREY_4 = Preprocessing("L", 4, 4)


def real_data(folder: str) -> Path:
    path = REAL_DATA / folder
    if not path.is_dir():
        import pytest  # here: the benchmarks make images, too, and run without it

        pytest.skip(f"real data shared/data/{folder} are not here")
    return path


def encode(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def grey_png(value: int, size: tuple[int, int] = (4, 4)) -> bytes:
    return encode(Image.new("L", size, value))


def glyph(label: int, variant: int, side: int = 12) -> Image.Image:
    """A bar: horizontal for label 0, vertical for label 1, at a place that depends on the variant.

    Each has a grain of its own: without it, bars at one place are near duplicates, whatever their brightness.
    """
    pixels = np.random.default_rng([label, variant]).integers(0, 15, (side, side), dtype=np.uint8)
    place = 2 + variant % (side - 4)
    if label == 0:
        pixels[place, 1:-1] = 200 + variant % 50
    else:
        pixels[1:-1, place] = 200 + variant % 50
    return Image.fromarray(pixels)


def make_class_folders(root: Path, per_class: int = 20) -> Path:
    for label, name in enumerate(("across", "down")):
        for variant in range(per_class):
            path = root / name / f"{variant:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(glyph(label, variant)))
    return root


def touch(root: Path, *names: str) -> Path:
    """Empty files below `root`, with their folders."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def idx_bytes(array: np.ndarray) -> bytes:
    header = bytes((0, 0, 8, array.ndim)) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.astype(np.uint8).tobytes()


def make_idx(root: Path, num_train: int = 40, num_test: int = 10, *, dot: bool = False, gz: bool = False) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", num_train), ("t10k", num_test)):
        targets = np.arange(count) % 2
        pixels = np.stack([np.asarray(glyph(int(label), i)) for i, label in enumerate(targets)])
        for kind, array in (("images-idx3", pixels), ("labels-idx1", targets)):
            name = f"{part}-{kind}-ubyte"
            name = name.replace("-idx", ".idx") if dot else name
            data = idx_bytes(array)
            (root / (name + ".gz" if gz else name)).write_bytes(gzip.compress(data) if gz else data)
    return root
