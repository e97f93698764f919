"""Predicts pushed images with a classifier as it is: batches of any size up to its best."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from modeling.images.pixels import Pixels
from modeling.inference.bisection import BisectingPredictor, Predictor
from modeling.inference.prediction import Prediction

_ROUNDS = 3


class PlainPredictor:
    """See `modeling.inference.push_predictor.PushPredictor`."""

    def __init__(self, classifier: Predictor) -> None:
        self.preprocessing = classifier.preprocessing
        best = classifier.batch_size
        self.sizes = tuple(sorted({1 << power for power in range(best.bit_length())} | {best}))
        self.num_streams = classifier.num_streams
        self.alone_streams = 1
        self._predictor = BisectingPredictor(classifier, 5)
        self.batch_ms = {size: self._measure(size) for size in self.sizes}
        self.alone_ms = self.batch_ms[1]

    def predict(self, images: Sequence[Pixels], top_k: int) -> list[Prediction]:
        return self._predictor.predict(images)

    def predict_alone(self, image: Pixels, top_k: int) -> Prediction:
        return self._predictor.predict([image])[0]

    def engine_for(self, num_images: int) -> str | None:
        return None

    def size_for(self, num_images: int) -> int:
        return next((size for size in self.sizes if size >= num_images), self.sizes[-1])

    def _measure(self, size: int) -> float:
        black = [np.zeros(self.preprocessing.shape, np.uint8)] * size
        self._predictor.predict(black)
        started = time.perf_counter()
        with ThreadPoolExecutor(self.num_streams) as pool:
            list(pool.map(lambda _: self._predictor.predict(black), range(self.num_streams * _ROUNDS)))
        return (time.perf_counter() - started) * 1e3 / _ROUNDS
