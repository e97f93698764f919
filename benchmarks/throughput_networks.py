"""Networks with random weights, published as models: the answers mean nothing, but take the same time."""

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from modeling.images.pixels import Pixels
from modeling.images.preprocessing import Preprocessing
from modeling.inference.classifier import Classifier
from modeling.networks.architectures import IMAGENET_MEAN, IMAGENET_STD
from modeling.networks.build import build_network
from modeling.networks.onnx_graph import write_graph
from modeling.registry.card import CARD_FILE, INT8_FILE, WEIGHTS_FILE, ModelCard
from modeling.registry.store import ModelStore, ModelVersion
from modeling.training.int8 import write_int8

NETWORKS = ("cnn", "mobilenet_v2", "resnet18", "resnet50")
GREY = Preprocessing("L", 28, 28)
PHOTOGRAPHIC = Preprocessing("RGB", 224, 224, 256, IMAGENET_MEAN, IMAGENET_STD)


def publish_network(models: Path, name: str, under: str | None = None) -> ModelVersion:
    """Publish the network in the store `models` under its own name, or another: 10 labels for `cnn`, else 1000."""
    preprocessing, num_labels = (GREY, 10) if name == "cnn" else (PHOTOGRAPHIC, 1000)
    torch.manual_seed(0)
    network = build_network(name, preprocessing, num_labels)
    weights = safetensors.torch.save(network.state_dict())
    labels = tuple(f"label-{number:04d}" for number in range(num_labels))
    card = ModelCard(name, labels, preprocessing, hashlib.sha256(weights).hexdigest())
    return _publish(models, under or name, {WEIGHTS_FILE: weights, CARD_FILE: card.to_bytes()})


def publish_int8(models: Path, version: ModelVersion, images: Sequence[Pixels]) -> ModelVersion:
    """Publish the same network with int8 weights, scaled by these images, under another name.

    The bound that training holds int8 to is left out: labels of random weights flip at the smallest rounding.
    """
    classifier = Classifier.load(version.path)
    with tempfile.TemporaryDirectory(prefix="ph-int8-") as folder:
        whole, small = Path(folder, "whole.onnx"), Path(folder, "int8.onnx")
        write_graph(classifier.network, classifier.card, whole)
        write_int8(whole, small, lambda index: images[index], np.arange(len(images)))
        int8 = small.read_bytes()
    card = replace(classifier.card, training={"int8": {"sha256": hashlib.sha256(int8).hexdigest()}})
    weights = (version.path / WEIGHTS_FILE).read_bytes()
    files = {WEIGHTS_FILE: weights, CARD_FILE: card.to_bytes(), INT8_FILE: int8}
    return _publish(models, f"{version.name}-int8", files)


def _publish(models: Path, name: str, files: Mapping[str, bytes]) -> ModelVersion:
    staged = models.parent / f"staged-{name}"
    staged.mkdir(parents=True)
    for file, data in files.items():
        (staged / file).write_bytes(data)
    return ModelStore(models).publish(staged, name)
