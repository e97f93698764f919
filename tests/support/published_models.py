"""A published model and images to classify, made in milliseconds."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from PIL import Image, ImageDraw

from modeling.images.preprocessing import Preprocessing
from modeling.registry.card import CARD_FILE, WEIGHTS_FILE, ModelCard
from modeling.registry.store import ModelStore, ModelVersion
from tests.support.images import encode
from tests.support.steps.injected import SLOW_SUFFIX

SIDE = 28
LABELS = tuple("0123456789")


def publish_model(root: Path, name: str, seed: int = 0) -> ModelVersion:
    """Publish a perceptron with random weights: its answers mean nothing, but differ between images."""
    random = np.random.default_rng(seed)
    weights = {
        "1.weight": random.normal(0, 0.2, (len(LABELS), SIDE * SIDE)).astype(np.float32),
        "1.bias": np.zeros(len(LABELS), np.float32),
    }
    card = ModelCard("perceptron", LABELS, Preprocessing("L", SIDE, SIDE), "")
    staged = write_model(root.parent / f"staged-{name}", card, safetensors.numpy.save(weights))
    return ModelStore(root).publish(staged, name)


def publish_network(root: Path, name: str, architecture: str = "lenet", **card: Any) -> ModelVersion:
    """Publish an untrained network, which others could start from: its weights fit images of any size; needs torch."""
    from modeling.networks.architectures import default_preprocessing, get_architecture
    from modeling.networks.build import build_network
    from modeling.training.model_folder import weights_of

    preprocessing = default_preprocessing(get_architecture(architecture))
    weights = weights_of(build_network(architecture, preprocessing, len(LABELS)))
    staged = write_model(
        root.parent / f"staged-{name}", ModelCard(architecture, LABELS, preprocessing, "", **card), weights
    )
    return ModelStore(root).publish(staged, name)


def write_model(folder: Path, card: ModelCard, weights: bytes) -> Path:
    """Write a model folder; its card gets the digest of the weights."""
    folder.mkdir(parents=True)
    (folder / WEIGHTS_FILE).write_bytes(weights)
    (folder / CARD_FILE).write_bytes(replace(card, weights_sha256=hashlib.sha256(weights).hexdigest()).to_bytes())
    return folder


def make_pngs(folder: Path, num_images: int, *, distinct: int = 64) -> None:
    """Write small grey PNGs `00000000.png`, ..., a thousand in each folder, hard-linked to a few distinct ones."""
    random = np.random.default_rng(0)
    originals = []
    for _ in range(min(distinct, num_images)):
        originals.append(encode(Image.fromarray(random.integers(0, 256, (SIDE, SIDE), np.uint8))))
    write_images(folder, originals, num_images, ".png")


def make_photographs(folder: Path, num_images: int, *, distinct: int = 8) -> None:
    """Write JPEGs that take some milliseconds each, so that a job lasts long enough to be disturbed."""
    random = np.random.default_rng(1)
    originals = []
    for _ in range(distinct):
        coarse = Image.fromarray(random.integers(0, 256, (60, 90, 3), np.uint8))
        large = coarse.resize((1800, 1200), Image.Resampling.BILINEAR)
        originals.append(encode(large, "JPEG", progressive=True))
    write_images(folder, originals, num_images, ".jpg")


def make_slow_images(folder: Path, num_images: int) -> None:
    """Write small JPEGs that keep workers under test (`tests/support/steps`) as long as photographs, at no cost."""
    random = np.random.default_rng(1)
    originals = [encode(Image.fromarray(random.integers(0, 256, (SIDE, SIDE), np.uint8)), "JPEG") for _ in range(8)]
    write_images(folder, originals, num_images, SLOW_SUFFIX)


def make_shapes(folder: Path, num_images: int = 60) -> Path:
    """A folder per class: bars that stand, and bars that lie."""
    for index in range(num_images):
        upright = index % 2 == 0
        image = Image.new("L", (28, 28), 20)
        at = 4 + index % 18
        box = (at, 2, at + 4, 26) if upright else (2, at, 26, at + 4)
        ImageDraw.Draw(image).rectangle(box, fill=220)
        path = folder / ("standing" if upright else "lying") / f"{index:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    return folder


def write_images(folder: Path, originals: list[bytes], num_images: int, suffix: str) -> None:
    """Write files `00000000.jpg`, ..., a thousand in each folder, hard-linked to one file for each of the originals."""
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
