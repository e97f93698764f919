"""Pre-trained weights that look like real ones: in a store, in a folder, in torchvision's cache; made without torch."""

import hashlib
from pathlib import Path

from modeling.networks.pretrained.store import WeightsRecord, WeightsStore

CACHED = "squeezenet1_1-b8a52dc0.pth"


def store_weights(
    root: Path, name: str, architecture: str = "mobilenet_v2", num_classes: int | None = 1000, content: bytes = b""
) -> Path:
    """Store bytes that say that they are weights; returns their file."""
    content = content or name.encode()
    sha256 = hashlib.sha256(content).hexdigest()
    record = WeightsRecord(architecture, sha256, num_classes, f"{name}.pth", sha256, "2026-11-29")
    store = WeightsStore(root)
    store.add(name, record, content)
    return store.file(name)
