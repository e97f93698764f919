"""Networks with random weights, published as models: what they answer means nothing, but takes as long."""

import hashlib
from pathlib import Path

import safetensors.torch
import torch

from modeling.architectures import IMAGENET_MEAN, IMAGENET_STD
from modeling.card import CARD_FILE, WEIGHTS_FILE, ModelCard
from modeling.networks.build import build_network
from modeling.preprocessing import Preprocessing
from modeling.store import ModelStore, ModelVersion

NETWORKS = ("cnn", "mobilenet_v2", "resnet18", "resnet50")
GREY = Preprocessing("L", 28, 28)
PHOTOGRAPHIC = Preprocessing("RGB", 224, 224, 256, IMAGENET_MEAN, IMAGENET_STD)


def publish_network(models: Path, name: str) -> ModelVersion:
    """Publish the network in the store `models` under its own name: 10 labels for `cnn`, 1000 for the others."""
    preprocessing, num_labels = (GREY, 10) if name == "cnn" else (PHOTOGRAPHIC, 1000)
    torch.manual_seed(0)
    network = build_network(name, preprocessing, num_labels)
    weights = safetensors.torch.save(network.state_dict())
    labels = tuple(f"label-{number:04d}" for number in range(num_labels))
    card = ModelCard(name, labels, preprocessing, hashlib.sha256(weights).hexdigest())
    staged = models.parent / f"staged-{name}"
    staged.mkdir(parents=True)
    (staged / WEIGHTS_FILE).write_bytes(weights)
    (staged / CARD_FILE).write_bytes(card.to_bytes())
    return ModelStore(models).publish(staged, name)
