"""How fast each engine predicts with a model on this machine, by batch size: for people who choose hardware."""

# Shapes: B images of a batch, H height, W width, C channels.
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from modeling.images.progress import Report, unreported
from modeling.inference.choose_engine import load_fastest, measure_engines
from modeling.inference.engines.engine import Engine
from modeling.inference.timing import compute_logits, images_per_sec, random_images
from modeling.registry.store import ModelVersion

BATCH_SIZES = (1, 8, 32, 64)
_LATENCY_S = 0.4
_LATENCY_CALLS = 50


@dataclass(frozen=True, slots=True)
class Speed:
    """An engine with one batch size.

    images_per_sec: with all streams of the engine. latency_ms: median time of one batch at a time.
    chosen: whether jobs use this engine and batch size here. refused: why it cannot be used; no figures then.
    """

    engine: str
    chosen: bool
    batch_size: int | None = None
    images_per_sec: float | None = None
    latency_ms: float | None = None
    refused: str | None = None


def bench_engines(version: ModelVersion, device: str = "cpu", report: Report = unreported) -> Iterator[Speed]:
    """The speed of every engine at several batch sizes, as it is measured, with random images.

    report: receives what is measured.

    Raises:
        ModelFormatError: the model is damaged.
    """
    classifier = load_fastest(version, device, report=report)
    chosen = (classifier.engine_name, classifier.batch_size)
    for name, engine in measure_engines(version, device):
        if isinstance(engine, str):
            yield Speed(name, chosen=False, refused=engine)
            continue
        for batch_size in sorted({*BATCH_SIZES, classifier.batch_size}):
            report(f"measuring {name} in batches of {batch_size}")
            images_BHWC = random_images(classifier.preprocessing, batch_size)
            yield _measure(name, engine.for_batch_size(batch_size), images_BHWC, chosen)


def _measure(name: str, engine: Engine, images_BHWC: NDArray[np.uint8], chosen: tuple[str, int]) -> Speed:
    speed = images_per_sec(partial(compute_logits, engine), images_BHWC, engine.num_streams)
    batch_size, latency_ms = len(images_BHWC), _latency_ms(partial(compute_logits, engine, images_BHWC))
    return Speed(name, (name, batch_size) == chosen, batch_size, round(speed, 1), round(latency_ms, 2))


def _latency_ms(predict: Callable[[], object]) -> float:
    """Median time of one batch at a time."""
    times: list[float] = []
    begun = time.perf_counter()
    while not times or (time.perf_counter() - begun < _LATENCY_S and len(times) < _LATENCY_CALLS):
        started = time.perf_counter()
        predict()
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1000
