"""A published model and images to classify, made in milliseconds."""

import hashlib
import io
import os
from pathlib import Path

import numpy as np
import safetensors.numpy
from PIL import Image

from modeling.images.preprocessing import Preprocessing
from modeling.registry.card import CARD_FILE, WEIGHTS_FILE, ModelCard
from modeling.registry.store import ModelStore, ModelVersion

SIDE = 28
LABELS = tuple("0123456789")


def publish_model(root: Path, name: str, seed: int = 0) -> ModelVersion:
    """Publish a perceptron with random weights: its answers mean nothing, and differ from image to image."""
    random = np.random.default_rng(seed)
    weights = {
        "1.weight": random.normal(0, 0.2, (len(LABELS), SIDE * SIDE)).astype(np.float32),
        "1.bias": np.zeros(len(LABELS), np.float32),
    }
    data = safetensors.numpy.save(weights)
    card = ModelCard("perceptron", LABELS, Preprocessing("L", SIDE, SIDE), hashlib.sha256(data).hexdigest())
    staged = root.parent / f"staged-{name}"
    staged.mkdir(parents=True)
    (staged / WEIGHTS_FILE).write_bytes(data)
    (staged / CARD_FILE).write_bytes(card.to_bytes())
    return ModelStore(root).publish(staged, name)


def make_pngs(folder: Path, num_images: int, *, distinct: int = 64) -> None:
    """Write small grey PNGs `00000000.png`, ..., a thousand a folder, hard-linked to a few distinct ones."""
    random = np.random.default_rng(0)
    originals = []
    for _ in range(min(distinct, num_images)):
        data = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (SIDE, SIDE), np.uint8)).save(data, "png")
        originals.append(data.getvalue())
    write_images(folder, originals, num_images, ".png")


def make_photographs(folder: Path, num_images: int, *, distinct: int = 8) -> None:
    """Write JPEGs that take some milliseconds each, so that a job lasts long enough to be disturbed."""
    random = np.random.default_rng(1)
    originals = []
    for _ in range(distinct):
        coarse = Image.fromarray(random.integers(0, 256, (60, 90, 3), np.uint8))
        data = io.BytesIO()
        coarse.resize((1800, 1200), Image.Resampling.BILINEAR).save(data, "jpeg", progressive=True)
        originals.append(data.getvalue())
    write_images(folder, originals, num_images, ".jpg")


def write_images(folder: Path, originals: list[bytes], num_images: int, suffix: str) -> None:
    """Write files `00000000.jpg`, ..., a thousand a folder, hard-linked to one file for each of the originals."""
    folder.mkdir(parents=True)
    first: dict[int, Path] = {}
    for index in range(num_images):
        path = folder / f"{index // 1000:05d}" / f"{index:08d}{suffix}"
        path.parent.mkdir(exist_ok=True)
        which = index % len(originals)
        if which in first:
            os.link(first[which], path)
        else:
            path.write_bytes(originals[which])
            first[which] = path
