"""A model as one ONNX file, checked against torch (`modeling.networks.onnx_graph` says what the file holds)."""

# Shapes: B images, H height, W width, C channels, L labels.
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from modeling.durable import published_output
from modeling.errors import ModelingError
from modeling.inference.classifier import Classifier
from modeling.networks.onnx_graph import write_graph

MAX_DIFFERENCE = 1e-3  # between logits of torch and of ONNX Runtime, both in float32
_MAX_BYTES = 2_000_000_000  # protobuf holds 2 GiB
_CHECKED_BATCHES = (1, 3)  # sizes other than the one that the graph is traced with


@dataclass(frozen=True, slots=True)
class OnnxExport:
    """What was written. `largest_difference`: between logits of torch and of ONNX Runtime on random images."""

    path: Path
    opset: int
    size_bytes: int
    largest_difference: float

    def to_json(self) -> dict[str, Any]:
        """A dict that JSON can hold."""
        return asdict(self) | {"path": str(self.path)}


def export_onnx(model: Path, output: Path) -> OnnxExport:
    """Write the model in folder `model` to the file `output`, which must not exist yet.

    The file is compared with torch on random images in batches of sizes that it was not traced with.

    Raises:
        ModelingError: the output exists, the model is too large for one file, or it answers otherwise than in torch.
        ModelFormatError: a damaged model.
    """
    classifier = Classifier.load(model)
    _check_size(classifier.network)
    with published_output(output) as written:
        opset = write_graph(classifier.network, classifier.card, written)
        difference = _largest_difference(classifier, written)
        if not difference < MAX_DIFFERENCE:
            raise ModelingError(
                f"the ONNX file answers otherwise than the model: logits differ by up to {difference:.2g}, "
                f"{MAX_DIFFERENCE:g} is allowed; nothing was written, `--format folder` gives the weights themselves"
            )
        size_bytes = written.stat().st_size
    return OnnxExport(output, opset, size_bytes, difference)


def _check_size(network: nn.Module) -> None:
    size_bytes = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    if size_bytes > _MAX_BYTES:
        raise ModelingError(
            f"the weights take {size_bytes / 1e9:.1f} GB, more than one ONNX file holds (2 GB); export a folder"
        )


def _largest_difference(classifier: Classifier, path: Path) -> float:
    """Between the logits of torch and of ONNX Runtime; not a number where one of them is none."""
    import onnxruntime  # slow to import

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    chance = np.random.default_rng(0)
    differences: list[NDArray[np.float32]] = []
    for num_images in _CHECKED_BATCHES:
        images_BHWC = chance.integers(0, 256, (num_images, *classifier.preprocessing.shape), dtype=np.uint8)
        logits_BL, _ = session.run(["logits", "scores"], {"images": images_BHWC})
        differences.append(np.abs(logits_BL - classifier.logits(images_BHWC)).ravel())
    return float(np.concatenate(differences).max())
