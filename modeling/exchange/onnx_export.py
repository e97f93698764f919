"""A model as one ONNX file that needs nothing of ours.

Input `images`: uint8, batch x height x width x channels, decoded and brought to size as `preprocessing` in the
metadata says (modeling.images.preprocessing has the one rule). Normalisation, network, temperature and softmax are
in the graph. Outputs, both float32, batch x labels: `logits`, before the temperature, and `scores`, calibrated, which
add up to 1. The batch may have any size.

Metadata (`metadata_props`), each value JSON: `labels` (names in the order of the outputs), `preprocessing`,
`calibration` (with the thresholds of decisions; null where there is none), `architecture`, `weights_sha256`,
`format_version` of the model's card.
"""

# Shapes: B images, H height, W width, C channels, L labels.
import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from modeling.errors import ModelingError
from modeling.exchange.outputs import published_output
from modeling.images.preprocessing import Preprocessing
from modeling.inference.classifier import Classifier
from modeling.networks.build import normalise
from modeling.registry.card import ModelCard

MAX_DIFFERENCE = 1e-3  # between logits of torch and of ONNX Runtime, both in float32
_MAX_BYTES = 2_000_000_000  # protobuf holds 2 GiB
_CHECKED_BATCHES = (1, 3)  # sizes other than the one that the graph is traced with
_TRACED_BATCH = 2
_METADATA = ("labels", "preprocessing", "calibration", "architecture", "weights_sha256", "format_version")


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


class _Graph(nn.Module):
    """From pixels to logits and scores, as `Classifier` does it."""

    def __init__(self, network: nn.Module, preprocessing: Preprocessing, temperature: float) -> None:
        super().__init__()
        self._network = network
        self._preprocessing = preprocessing
        self._temperature = temperature

    def forward(self, images_BHWC: Tensor) -> tuple[Tensor, Tensor]:
        """Logits BL, and scores BL at the temperature."""
        logits_BL = self._network(normalise(images_BHWC, self._preprocessing))
        return logits_BL, (logits_BL / self._temperature).softmax(dim=1)


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
        opset = write_graph(classifier, written)
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


def write_graph(classifier: Classifier, path: Path) -> int:
    """Trace, translate and write; the version of ONNX's operators that the file uses."""
    preprocessing, card = classifier.preprocessing, classifier.card
    graph = _Graph(classifier.network, preprocessing, card.calibration.temperature if card.calibration else 1.0).eval()
    images_BHWC = torch.zeros(_TRACED_BATCH, *preprocessing.shape, dtype=torch.uint8)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            graph,
            (images_BHWC,),
            input_names=["images"],
            output_names=["logits", "scores"],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            dynamo=True,
            verbose=False,
        )
    assert program is not None, "torch.onnx.export with dynamo gives a program"
    program.model.metadata_props.update(_metadata(card))
    program.save(path, external_data=False)
    return int(program.model.opset_imports[""])


def _metadata(card: ModelCard) -> dict[str, str]:
    values = card.to_json()
    return {name: json.dumps(values.get(name), ensure_ascii=False, sort_keys=True) for name in _METADATA}


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


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's talk, which is for those who write exporters."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
