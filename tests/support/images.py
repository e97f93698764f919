"""Small images and data sets that the modeling tests make for themselves, and where the real ones lie."""

import gzip
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from modeling.images.preprocessing import Preprocessing
from modeling.inference.prediction import Prediction

REAL_DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"

GREY_4 = Preprocessing("L", 4, 4)


def real_data(folder: str) -> Path:
    path = REAL_DATA / folder
    if not path.is_dir():
        pytest.skip(f"real data shared/data/{folder} are not here")
    return path


def encode(image: Image.Image, format: str = "PNG", **options) -> bytes:
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


class FakeClassifier:
    """Answers with the mean grey value; fails on batches that hold a poisoned value, or that are too large."""

    def __init__(
        self, poison: int | None = None, max_batch: int | None = None, broken: bool = False, num_streams: int = 1
    ) -> None:
        self.preprocessing = GREY_4
        self.num_streams = num_streams
        self.batch_size = 4
        self.images_per_sec = 0.0
        self.engine_name = "fake"
        self.batch_decoder = None
        self.largest_batch: int | None = None
        self.poison = poison
        self.max_batch = max_batch
        self.broken = broken
        self.batches: list[list[int]] = []

    def predict(self, images: np.ndarray, top_k: int) -> list[Prediction]:
        values = [int(image[0, 0, 0]) for image in images]
        self.batches.append(values)
        if self.broken:
            raise RuntimeError("the device is gone")
        if self.max_batch is not None and len(values) > self.max_batch:
            raise MemoryError
        if self.poison in values:
            raise ValueError(f"cannot take {self.poison}")
        return [answer(value) for value in values]


def answer(value: int) -> Prediction:
    return Prediction((str(value),), (1.0,))
