"""How fast a model predicts images on this machine, where the time goes, and how many images fail."""

# Shapes: B images in a batch, H height, W width, C channels.
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from modeling.inference.bisection import Predictor
from modeling.inference.decoders import Source
from modeling.inference.pipeline import predict_units


@dataclass(frozen=True, slots=True)
class Measurement:
    """The result of predicting a sample of images.

    elapsed_s: from the first image to the last prediction, all stages at work at once; the model was loaded and warm.
    seconds: by stage, as `modeling.inference.pipeline.BatchResult` has them.
    errors: failed images by error code. decisions: other images by decision; none without a calibration.
    """

    num_images: int
    elapsed_s: float
    engine: str
    batch_size: int
    seconds: dict[str, float]
    errors: dict[str, int]
    decisions: dict[str, int]


def measure_pipeline(
    sources: Sequence[Source], classifier: Predictor, *, decode_threads: int = 0, max_pixels: int, limit_s: float
) -> Measurement:
    """Read, decode and predict `sources` as a worker does; no batch but the first is begun after `limit_s`."""
    batch_size = classifier.batch_size
    black_BHWC = np.zeros((batch_size, *classifier.preprocessing.shape), dtype=np.uint8)
    classifier.predict(black_BHWC, 1)  # the first batch of a size is slow
    seconds: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    decisions: Counter[str] = Counter()
    num_images = 0
    started = time.perf_counter()
    unit = _until(started + limit_s, sources, batch_size)
    for result in predict_units(
        [unit], classifier, top_k=1, batch_size=batch_size, decode_threads=decode_threads, max_pixels=max_pixels
    ):
        num_images += len(result.predictions)
        seconds.update(result.seconds)
        errors.update(each.error_code for each in result.predictions if each.error_code)
        decisions.update(each.decision for each in result.predictions if each.decision)
    elapsed_s = time.perf_counter() - started
    return Measurement(
        num_images=num_images,
        elapsed_s=elapsed_s,
        engine=classifier.engine_name,
        batch_size=batch_size,
        seconds=dict(seconds),
        errors=dict(sorted(errors.items())),
        decisions=dict(decisions),
    )


def _until(deadline: float, sources: Sequence[Source], batch_size: int) -> Iterator[Source]:
    """Whole batches of sources until a deadline; the first batch in any case."""
    for start in range(0, len(sources), batch_size):
        if start and time.perf_counter() > deadline:
            return
        yield from sources[start : start + batch_size]
