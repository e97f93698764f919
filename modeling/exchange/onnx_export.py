"""Exports a model as one ONNX file and checks it against torch (`modeling.networks.onnx_graph` describes the file)."""

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
_MAX_BYTES = 2_000_000_000  # protobuf is limited to 2 GiB
_CHECKED_BATCHES = (1, 3)  # sizes that differ from the one used for tracing the graph


@dataclass(frozen=True, slots=True)
class OnnxExport:
    """The result of an export. `largest_difference`: between logits of torch and of ONNX Runtime on random images."""

    path: Path
    opset: int
    size_bytes: int
    largest_difference: float

    def to_json(self) -> dict[str, Any]:
        """A dict that JSON can hold."""
        return asdict(self) | {"path": str(self.path)}


def export_onnx(model: Path, output: Path) -> OnnxExport:
    """Write the model in folder `model` to the file `output`, which must not exist yet.

    The file is compared with torch on random images, with batch sizes that differ from the one used for tracing.

    Raises:
        ModelingError: the output exists, the model is too large for one file, or its logits differ from torch's.
        ModelFormatError: the model is damaged.
    """
    classifier = Classifier.load(model)
    _check_size(classifier.network)
    with published_output(output) as written:
        opset = write_graph(classifier.network, classifier.card, written)
        difference = _largest_difference(classifier, written)
        if not difference < MAX_DIFFERENCE:
            raise ModelingError(
                f"the ONNX file's logits differ from the model's by up to {difference:.2g}, {MAX_DIFFERENCE:g} is "
                "allowed; nothing was written, use `--format folder` to export the weights"
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
    """The largest difference between the logits of torch and of ONNX Runtime; NaN if a logit is NaN."""
    import onnxruntime  # slow to import

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    differences: list[NDArray[np.float32]] = []
    for num_images in _CHECKED_BATCHES:
        images_BHWC = rng.integers(0, 256, (num_images, *classifier.preprocessing.shape), dtype=np.uint8)
        logits_BL, _ = session.run(["logits", "scores"], {"images": images_BHWC})
        differences.append(np.abs(logits_BL - classifier.logits(images_BHWC)).ravel())
    return float(np.concatenate(differences).max())
