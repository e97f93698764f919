"""A network as one ONNX graph that needs nothing of ours.

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
from pathlib import Path

import torch
from torch import Tensor, nn

from modeling.images.preprocessing import Preprocessing
from modeling.networks.build import normalise
from modeling.registry.card import ModelCard

_TRACED_BATCH = 2
_METADATA = ("labels", "preprocessing", "calibration", "architecture", "weights_sha256", "format_version")


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


def write_graph(network: nn.Module, card: ModelCard, path: Path) -> int:
    """Trace, translate and write; the version of ONNX's operators that the file uses."""
    preprocessing = card.preprocessing
    graph = _Graph(network, preprocessing, card.calibration.temperature if card.calibration else 1.0).eval()
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
