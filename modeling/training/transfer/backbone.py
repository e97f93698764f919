"""A pre-trained network as a source of features, and the key that identifies its features in a cache."""

# Shapes: F features.
import hashlib
import json
from dataclasses import dataclass

import torch
from torch import nn

from modeling.images.preprocessing import Preprocessing
from modeling.networks.architectures import get_architecture
from modeling.networks.heads import head_of

FEATURES_VERSION = 2
"""Increment this when the computation of features changes (decoding, folding, precision, pooling)."""


@dataclass(frozen=True, slots=True, eq=False)
class Backbone:
    """A network without its head, with its preprocessing and its device.

    The network itself is not changed: features are computed with a copy.
    """

    network: nn.Module
    architecture: str
    preprocessing: Preprocessing
    device: torch.device

    @property
    def num_features(self) -> int:
        """The number of the head's inputs for each image."""
        return head_of(self.network, self.architecture).weight.shape[1]

    def key(self) -> str:
        """sha256 (64 hexadecimal digits) of everything that features depend on, except the image.

        That is architecture, weights without the head, preprocessing, FEATURES_VERSION, torch's version and the kind of
        processor, because sums differ in the last bits between processors.
        """
        on_cpu = self.device.type == "cpu"
        facts = {
            "features_version": FEATURES_VERSION,
            "architecture": self.architecture,
            "weights": weights_digest(self.network, self.architecture),
            "preprocessing": self.preprocessing.digest,
            "torch": str(torch.__version__),
            "device": torch.backends.cpu.get_cpu_capability() if on_cpu else torch.cuda.get_device_name(self.device),
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def weights_digest(network: nn.Module, architecture: str) -> str:
    """sha256 over the names, shapes, types and values of a network's weights and buffers without its head."""
    head = get_architecture(architecture).head + "."
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        if not name.startswith(head):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
