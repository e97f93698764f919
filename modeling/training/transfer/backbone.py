"""A pre-trained network as a source of features: which one it is, and what makes its features comparable."""

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
"""Raised when features are computed in another way (decoding, folding, precision, pooling): old ones are stale."""


@dataclass(frozen=True, slots=True, eq=False)
class Backbone:
    """A network of which all but the head is used, with the images that it wants and the device to use.

    The network itself is only read: what computes features is a copy.
    """

    network: nn.Module
    architecture: str
    preprocessing: Preprocessing
    device: torch.device

    @property
    def num_features(self) -> int:
        """How many numbers the head is given for each image."""
        return head_of(self.network, self.architecture).weight.shape[1]

    def key(self) -> str:
        """sha256 over all that an image's features depend on but the image: 64 hexadecimal digits.

        Architecture, weights without the head, preprocessing, and how they are computed: this code's version,
        torch's version and the kind of processor, whose sums differ in the last bits.
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
