"""Predicts single images and small batches, as pushed images come, with the rows of jobs wherever that is possible.

A job predicts in batches of the model's best size. Pushed images do not wait until such a batch is full. So the engine
is prepared for several sizes up to the best one, and for one image on all cores. Each size is compared with the best
one on sample images: the logits and predictions must be equal to the bit, wherever an image is in the batch.
"""

# Shapes: B images of a batch, P images of a padded batch, H height, W width, C channels, L labels.
import logging
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from modeling.images.pixels import Pixels
from modeling.images.preprocessing import Preprocessing
from modeling.inference.bisection import BatchPredictor, BisectingPredictor
from modeling.inference.prediction import Prediction

if TYPE_CHECKING:
    from modeling.inference.classifier import Classifier

logger = logging.getLogger(__name__)

_PAYS = 0.9  # a size whose batch takes more of the next one's time is not used
_NUM_SAMPLES = 16  # images, or as many as the best batch has


class _OneSize:
    """A classifier that predicts every batch in one size: fewer images are padded, more are cut."""

    def __init__(self, classifier: "Classifier", size: int) -> None:
        self.classifier = classifier
        self.size = size
        self.largest_batch: int | None = None

    @property
    def preprocessing(self) -> Preprocessing:
        return self.classifier.preprocessing

    def predict(self, images_BHWC: NDArray[np.uint8], top_k: int, /) -> list[Prediction]:
        return [
            prediction
            for batch_PHWC, num_images in self._batches(images_BHWC)
            for prediction in self.classifier.predict(batch_PHWC, top_k)[:num_images]
        ]

    def logits(self, images_BHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits BL."""
        batches = self._batches(images_BHWC)
        return np.concatenate([self.classifier.logits(batch_PHWC)[:num_images] for batch_PHWC, num_images in batches])

    def _batches(self, images_BHWC: NDArray[np.uint8]) -> list[tuple[NDArray[np.uint8], int]]:
        """Batches of this size, and how many images of each are not padding."""
        pieces = [images_BHWC[start : start + self.size] for start in range(0, len(images_BHWC), self.size)]
        return [(_padded(piece, self.size), len(piece)) for piece in pieces]


@dataclass(frozen=True, slots=True, eq=False)
class _Prepared:
    """What was built and measured. lone: for one image when the device is idle."""

    classifier: "Classifier"
    by_size: Mapping[int, _OneSize]
    equal: frozenset[int]
    batch_ms: Mapping[int, float]
    lone: _OneSize
    alone_ms: float


class PushPredictor:
    """A model that predicts pushed images. Any number of threads may call it.

    sizes: of batches, smallest first; the last is that of jobs. equal: those whose rows are equal to a job's to the
    bit. batch_ms: time of a batch by size, in one stream while all streams are busy. num_streams: threads that predict
    at the same time. alone_ms: time of one image while nothing else runs. alone_streams: how many streams that takes.
    """

    def __init__(self, prepared: _Prepared) -> None:
        self._classifier = prepared.classifier
        self._by_size = prepared.by_size
        self._lone = prepared.lone
        self.sizes = tuple(prepared.by_size)
        self.equal = prepared.equal
        self.batch_ms = dict(prepared.batch_ms)
        self.alone_ms = prepared.alone_ms
        self.num_streams = prepared.classifier.num_streams
        self.alone_streams = 1 if prepared.lone is prepared.by_size[1] else self.num_streams

    @property
    def preprocessing(self) -> Preprocessing:
        return self._classifier.preprocessing

    @property
    def labels(self) -> tuple[str, ...]:
        return self._classifier.labels

    def predict(self, images: Sequence[Pixels], top_k: int) -> list[Prediction]:
        """One prediction for each image, in the smallest size that holds them, or in several batches of the largest.

        Raises only what is not an image's fault (`modeling.inference.bisection`).
        """
        largest = self.sizes[-1]
        pieces = [images[start : start + largest] for start in range(0, len(images), largest)]
        return [prediction for piece in pieces for prediction in self._predict(piece, top_k)]

    def predict_alone(self, image: Pixels, top_k: int) -> Prediction:
        """The prediction for one image by all cores, for a device that has nothing else to do."""
        [prediction] = BisectingPredictor(self._lone, top_k).predict([image])
        return prediction

    def engine_for(self, num_images: int) -> str | None:
        """What computed the rows of a batch, where they may differ from a job's; None where they do not."""
        size = self.size_for(num_images)
        engine = self._classifier.engine.name
        if size not in self.equal:
            return f"{engine}, batch {size}"
        return engine if self._classifier.batch_decoder else None  # cores decode to slightly different pixels

    def in_size(self, size: int) -> BatchPredictor:
        """Predicts any number of images in batches of one of the sizes."""
        return self._by_size[size]

    def size_for(self, num_images: int) -> int:
        """The size of the batch that so many images are predicted in, padded."""
        return next((size for size in self.sizes if size >= num_images), self.sizes[-1])

    def _predict(self, images: Sequence[Pixels], top_k: int) -> list[Prediction]:
        return BisectingPredictor(self._by_size[self.size_for(len(images))], top_k).predict(images)


def prepare_for_pushes(classifier: "Classifier") -> PushPredictor:
    """Prepare, check and measure all sizes, and one image on all cores; seconds for a large network.

    No size is slow at its first call afterwards.
    """
    from modeling.inference.timing import batch_seconds, predict_batch, random_images  # torch

    by_size = {size: _sized(classifier, size) for size in _candidates(classifier.batch_size)}
    streams = classifier.num_streams
    batch_s = {}
    for size, sized in by_size.items():
        images_BHWC = random_images(classifier.preprocessing, size)
        batch_s[size] = statistics.median(batch_seconds(partial(predict_batch, sized.classifier), images_BHWC, streams))
    sizes = useful_sizes(batch_s)
    lone, alone_s = _find_lone(classifier, by_size[1])
    return PushPredictor(
        _Prepared(
            classifier=classifier,
            by_size={size: by_size[size] for size in sizes},
            equal=_equal_sizes([by_size[size] for size in sizes]),
            batch_ms={size: 1000 * batch_s[size] for size in sizes},
            lone=lone,
            alone_ms=1000 * alone_s,
        )
    )


def useful_sizes(batch_s: Mapping[int, float]) -> tuple[int, ...]:
    """1, the largest, and those between that are worth choosing, from the time of a batch by size."""
    largest = max(batch_s)
    useful = [largest]
    for size in sorted(batch_s, reverse=True):
        if batch_s[size] < _PAYS * batch_s[useful[-1]]:
            useful.append(size)
    return tuple(sorted({*useful, min(batch_s)}))


def _candidates(best: int) -> list[int]:
    """Powers of two below the best size, and this."""
    return [*(1 << power for power in range(best.bit_length()) if 1 << power < best), best]


def _sized(classifier: "Classifier", size: int) -> _OneSize:
    return _OneSize(classifier if size == classifier.batch_size else classifier.for_batch_size(size), size)


def _equal_sizes(by_size: Sequence[_OneSize]) -> frozenset[int]:
    """The sizes that give the last one's rows to the bit, wherever an image is in the batch."""
    best = by_size[-1]
    images_BHWC = _samples(best.preprocessing, max(_NUM_SAMPLES, best.size))
    moved_BHWC = np.roll(images_BHWC, 1, axis=0)
    logits_BL, rows = best.logits(images_BHWC), best.predict(images_BHWC, 2)
    return frozenset(
        sized.size
        for sized in by_size
        if np.array_equal(sized.logits(images_BHWC), logits_BL)
        and np.array_equal(sized.logits(moved_BHWC), np.roll(logits_BL, 1, axis=0))
        and sized.predict(images_BHWC, 2) == rows
    )


def _find_lone(classifier: "Classifier", single: _OneSize) -> tuple[_OneSize, float]:
    """What predicts one image fastest while nothing else runs, and its seconds: one stream, or all cores together."""
    images_BHWC = _samples(classifier.preprocessing, _NUM_SAMPLES)
    single_s = _lone_seconds(single, images_BHWC[:1])
    engine = classifier.engine.on_all_cores()
    if engine is classifier.engine:
        return single, statistics.median(single_s)
    together = _OneSize(classifier.on(engine, 1), 1)
    if not np.array_equal(together.logits(images_BHWC), single.logits(images_BHWC)):
        logger.warning("%s computes other logits with all cores together; one image gets one core", engine.name)
        return single, statistics.median(single_s)
    together_s = _lone_seconds(together, images_BHWC[:1])
    lone, lone_s = (together, together_s) if min(together_s) < min(single_s) else (single, single_s)
    return lone, statistics.median(lone_s)


def _lone_seconds(sized: _OneSize, image_1HWC: NDArray[np.uint8]) -> list[float]:
    from modeling.inference.timing import batch_seconds, predict_batch  # torch

    return batch_seconds(partial(predict_batch, sized.classifier), image_1HWC, 1)


def _samples(preprocessing: Preprocessing, num_images: int) -> NDArray[np.uint8]:
    """Images BHWC: noise, and every second one smooth, since convolutions may treat large equal areas differently."""
    from modeling.inference.timing import random_images  # torch

    images_BHWC = random_images(preprocessing, num_images)
    height, width, _ = preprocessing.shape
    slope_HW1 = np.add.outer(np.arange(height), np.arange(width))[..., np.newaxis] % 256
    for place in range(1, num_images, 2):
        images_BHWC[place] = (slope_HW1 * place // num_images).astype(np.uint8)
    return images_BHWC


def _padded(images_BHWC: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    missing = size - len(images_BHWC)
    if not missing:
        return images_BHWC
    return np.concatenate([images_BHWC, np.zeros((missing, *images_BHWC.shape[1:]), np.uint8)])
