"""Writes a network as one ONNX graph that can be used without Pigeonhole.

Input `images`: uint8, batch x height x width x channels, decoded and scaled as `preprocessing` in the metadata defines
(see modeling.images.preprocessing). The graph contains normalisation, network, temperature and softmax. Outputs, both
float32, batch x labels: `logits`, before the temperature, and `scores`, calibrated, which sum to 1. The batch size is
dynamic.

Metadata (`metadata_props`), each value JSON: `labels` (names in the order of the outputs), `preprocessing`,
`calibration` (with the decision thresholds; null if there is none), `architecture`, `weights_sha256`, and
`format_version` of the model's card.
"""

# Shapes: B images, H height, W width, C channels, L labels.
import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from modeling.images.preprocessing import Preprocessing
from modeling.networks.build import normalise
from modeling.networks.dynamo import import_meta_kernels
from modeling.registry.card import ModelCard

if TYPE_CHECKING:
    import onnx_ir

_TRACED_BATCH = 2
_METADATA = ("labels", "preprocessing", "calibration", "architecture", "weights_sha256", "format_version")


class _Graph(nn.Module):
    """From pixels to logits and scores, with the same operations as `Classifier`."""

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
    """Trace the network and write the graph to `path`; returns the ONNX opset version of the file."""
    preprocessing = card.preprocessing
    graph = _Graph(network, preprocessing, card.calibration.temperature if card.calibration else 1.0).eval()
    images_BHWC = torch.zeros(_TRACED_BATCH, *preprocessing.shape, dtype=torch.uint8)
    import_meta_kernels()
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
    _remove_traces(program.model.graph)
    program.model.ir_version = _lowest_ir_version(program.model.opset_imports)
    program.model.metadata_props.update(_metadata(card))
    program.save(path, external_data=False)
    return int(program.model.opset_imports[""])


def _lowest_ir_version(opsets: Mapping[str, int]) -> int:
    """The lowest version of the file format that has these operators: older runtimes refuse higher ones."""
    from onnx import helper  # slow to import

    ids = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    return helper.find_min_ir_version_for(ids, ignore_unknown=True)


def _remove_traces(graph: "onnx_ir.Graph") -> None:
    """Remove the exporter's stack traces: they hold paths of this machine and change the digest of equal networks."""
    nodes = list(graph.all_nodes())
    values = [*graph.inputs, *graph.initializers.values(), *(value for node in nodes for value in node.outputs)]
    parts: list[Any] = [graph, *nodes, *values]
    for part in parts:
        part.metadata_props.clear()
        part.doc_string = None


def _metadata(card: ModelCard) -> dict[str, str]:
    values = card.to_json()
    return {name: json.dumps(values.get(name), ensure_ascii=False, sort_keys=True) for name in _METADATA}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's logs, warnings and prints, which are for developers of exporters."""
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
