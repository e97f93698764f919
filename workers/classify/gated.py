"""A classifier for shards that leaves the device to pushed images between two batches."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from modeling.images.preprocessing import Preprocessing
from modeling.inference.bisection import BatchPredictor, Predictor
from modeling.inference.decoders import BatchDecoder
from modeling.inference.prediction import Prediction
from modeling.inference.push_predictor import PushPredictor
from workers.device_gate import DeviceGate

SHORT_BATCH_MS = 50.0  # a longer one is predicted in pieces while a line is open, if its rows stay the same


class GatedPredictor:
    """Takes the device's gate around each batch; the rows are those of the classifier to the bit."""

    def __init__(self, classifier: Predictor, gate: DeviceGate, prepared: Callable[[], PushPredictor]) -> None:
        """prepared: the same classifier for pushed images; called where batches are long and a line is open."""
        self._classifier = classifier
        self._gate = gate
        self._slots = gate.slots_of(classifier.num_streams)
        self._shorter = (
            shorter_batches(prepared()) if gate.line_open and batch_ms(classifier) > SHORT_BATCH_MS else None
        )

    def predict(self, images: NDArray[np.uint8], top_k: int, /) -> list[Prediction]:
        """One prediction for each image."""
        if self._shorter is None or not self._gate.line_open:
            with self._gate.shard(self._slots):
                return self._classifier.predict(images, top_k)
        size, predictor = self._shorter
        found: list[Prediction] = []
        for start in range(0, len(images), size):
            with self._gate.shard(self._slots):
                found += predictor.predict(images[start : start + size], top_k)
        return found

    @property
    def largest_batch(self) -> int | None:
        return self._classifier.largest_batch

    @largest_batch.setter
    def largest_batch(self, size: int | None) -> None:
        self._classifier.largest_batch = size

    @property
    def preprocessing(self) -> Preprocessing:
        return self._classifier.preprocessing

    @property
    def num_streams(self) -> int:
        return self._classifier.num_streams

    @property
    def batch_size(self) -> int:
        return self._classifier.batch_size

    @property
    def images_per_sec(self) -> float:
        return self._classifier.images_per_sec

    @property
    def engine_name(self) -> str:
        return self._classifier.engine_name

    @property
    def batch_decoder(self) -> BatchDecoder | None:
        return self._classifier.batch_decoder


def batch_ms(classifier: Predictor) -> float:
    """How long a batch takes, as it was measured; 0 if it was not."""
    speed = classifier.images_per_sec
    return 1000 * classifier.batch_size * classifier.num_streams / speed if speed else 0.0


def shorter_batches(prepared: PushPredictor) -> tuple[int, BatchPredictor] | None:
    """The largest size that is short enough and gives the same rows, and what predicts it; None if there is none."""
    usable = [size for size in prepared.sizes[:-1] if size in prepared.equal]
    short = [size for size in usable if prepared.batch_ms[size] <= SHORT_BATCH_MS]
    size = max(short, default=min(usable, default=None))
    return None if size is None else (size, prepared.in_size(size))
