"""A model that answers by its stored graph, without torch: importing torch takes longer than all the rest."""

# Shapes: B images, H height, W width, C channels.
import hashlib
import logging

import numpy as np
from numpy.typing import NDArray

from modeling.errors import ModelFormatError, reason_of, trouble_of
from modeling.images.preprocessing import Preprocessing
from modeling.inference.decoders import BatchDecoder
from modeling.inference.engines.choice import Choice, choice_path, read_choice
from modeling.inference.engines.graphs import GRAPH_FILE, read_int8
from modeling.inference.engines.hardware import hardware_key
from modeling.inference.engines.openvino_engine import OpenVinoEngine, has_bf16
from modeling.inference.prediction import Prediction
from modeling.inference.scores import predictions_of
from modeling.registry.card import INT8_FILE, ModelCard, read_checked
from modeling.registry.store import ModelVersion

logger = logging.getLogger(__name__)


class GraphClassifier:
    """Predicts what a `Classifier` on the same engine predicts, to the bit; see `modeling.inference.bisection`."""

    batch_decoder: BatchDecoder | None = None

    def __init__(self, card: ModelCard, engine: OpenVinoEngine, choice: Choice) -> None:
        self._card = card
        self._engine = engine.for_batch_size(choice.batch_size)
        self.batch_size = choice.batch_size
        self.images_per_sec = choice.speed
        self.largest_batch: int | None = None

    @property
    def preprocessing(self) -> Preprocessing:
        return self._card.preprocessing

    @property
    def num_streams(self) -> int:
        return self._engine.num_streams

    @property
    def engine_name(self) -> str:
        return self._engine.name

    def predict(self, images_BHWC: NDArray[np.uint8], top_k: int, /) -> list[Prediction]:
        """The `top_k` best labels of each image, as `Classifier.predict` has them."""
        return predictions_of(self._card, self._engine.compute(images_BHWC), top_k)


def load_graph(version: ModelVersion) -> GraphClassifier | None:
    """The model on the engine that was chosen for it on this processor; None where that needs torch, or is not known.

    Raises:
        ModelFormatError: the model is damaged.
    """
    choice = read_choice(choice_path(version.artifacts, "auto", hardware_key()))
    if choice is None or not choice.engine.startswith("openvino "):
        return None
    card, _ = read_checked(version.path)
    try:
        return _built(version, card, choice)
    except ModelFormatError:
        raise
    except Exception as err:  # whatever OpenVINO raises: `load_fastest` builds the graph anew
        if trouble_of(err):
            raise
        logger.warning("%s: the stored graph cannot be used: %s", version.ref, reason_of(err))
        return None


def _built(version: ModelVersion, card: ModelCard, choice: Choice) -> GraphClassifier | None:
    precision = choice.engine.removeprefix("openvino ")
    if precision == "int8":
        if not (version.path / INT8_FILE).is_file():
            return None
        return GraphClassifier(card, OpenVinoEngine(read_int8(version.path, card), "int8"), choice)
    if precision == "bf16" and not has_bf16():
        return None
    path = version.artifacts / GRAPH_FILE
    graph = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(graph).hexdigest() != choice.graph_sha256:
        return None
    return GraphClassifier(card, OpenVinoEngine(graph, "bf16" if precision == "bf16" else "fp32"), choice)
