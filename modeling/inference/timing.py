"""How fast an engine predicts, and its fastest batch size."""

# Shapes: B images of a batch, H height, W width, C channels.
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modeling.images.preprocessing import Preprocessing
from modeling.inference.bisection import Predictor
from modeling.inference.engines.choice import LARGEST_BATCH
from modeling.inference.engines.engine import Engine

SMALLEST_BATCH = 8
_LONGEST_S = 1.0  # of one batch: a worker reacts to a cancel or a drain between batches
_MEASURE_S = 0.15
_AS_FAST = 0.95  # of the highest speed is enough: a smaller batch has less latency and takes less memory


def compute_logits(engine: Engine, images_BHWC: NDArray[np.uint8]) -> None:
    """Compute the logits, and wait until they are in the host's memory."""
    engine.logits(images_BHWC).cpu()


def images_per_sec(
    predict: Callable[[NDArray[np.uint8]], object], images_BHWC: NDArray[np.uint8], streams: int
) -> float:
    """Images per second if `streams` threads predict at the same time: the best of several rounds."""
    best_s, begun = float("inf"), time.perf_counter()
    with ThreadPoolExecutor(streams) as pool:
        batches = [images_BHWC] * streams
        list(pool.map(predict, batches))  # the first batch of a shape is slow
        while best_s == float("inf") or time.perf_counter() - begun < _MEASURE_S:
            started = time.perf_counter()
            list(pool.map(predict, batches))
            best_s = min(best_s, time.perf_counter() - started)
    return len(batches) * len(images_BHWC) / best_s


def _predict(classifier: Predictor, images_BHWC: NDArray[np.uint8]) -> None:
    classifier.predict(images_BHWC, 1)


def speeds_by_batch_size(sized: Callable[[int], Predictor]) -> dict[int, float]:
    """Images per second by batch size, from 8 to 256 in powers of two while a batch takes at most a second.

    sized: returns the classifier prepared for a batch size.

    Powers of two, because engines pad to them, and because shards have such sizes: every shard size then gives the
    same batches.
    """
    speeds: dict[int, float] = {}
    size = SMALLEST_BATCH
    while size <= LARGEST_BATCH:
        try:
            classifier = sized(size)
            images_BHWC = random_images(classifier.preprocessing, size)
            speeds[size] = images_per_sec(partial(_predict, classifier), images_BHWC, classifier.num_streams)
        except Exception:
            if not speeds:
                raise
            break  # most likely it does not fit in memory; smaller batches do
        size *= 2
        if size * classifier.num_streams / max(speeds.values()) > _LONGEST_S:
            break
    return speeds


def best_batch_size(speeds: dict[int, float]) -> int:
    """The smallest size that is about as fast as the fastest."""
    return min(size for size, speed in speeds.items() if speed >= _AS_FAST * max(speeds.values()))


def random_images(preprocessing: Preprocessing, num_images: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Random images BHWC, the same in every call."""
    return np.random.default_rng(0).integers(0, 256, (num_images, *preprocessing.shape), dtype=np.uint8)
