"""How fast each engine answers for a model here, batch size by batch size: for people who choose hardware."""

# Shapes: B images of a batch, H height, W width, C channels.
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modeling.engines.choose import images_per_sec, load_fastest, measure_engines
from modeling.engines.engine import Engine
from modeling.store import ModelVersion

BATCH_SIZES = (1, 8, 32, 64)
_LATENCY_S = 0.4
_LATENCY_CALLS = 50


@dataclass(frozen=True, slots=True)
class Speed:
    """An engine with one batch size.

    images_per_sec: with every stream of the engine at work. latency_ms: median time of one batch by itself.
    chosen: whether this engine is the one that jobs use here. refused: why it cannot be used; no figures then.
    """

    engine: str
    chosen: bool
    batch_size: int | None = None
    images_per_sec: float | None = None
    latency_ms: float | None = None
    refused: str | None = None

    def to_json(self) -> dict[str, Any]:
        """A dict that JSON can hold."""
        return asdict(self)


def bench_engines(version: ModelVersion, device: str = "cpu") -> Iterator[Speed]:
    """Every engine that there is, with every batch size, as it is measured; random images.

    Raises:
        ModelFormatError: the model is damaged.
    """
    classifier = load_fastest(version, device)
    chosen = classifier.engine.name
    for name, engine in measure_engines(version, device):
        if isinstance(engine, str):
            yield Speed(name, chosen=False, refused=engine)
            continue
        for batch_size in BATCH_SIZES:
            shape = (batch_size, *classifier.preprocessing.shape)
            images_BHWC = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
            speed = images_per_sec(engine, images_BHWC)
            yield Speed(name, name == chosen, batch_size, round(speed, 1), round(_latency_ms(engine, images_BHWC), 2))


def _latency_ms(engine: Engine, images_BHWC: NDArray[np.uint8]) -> float:
    """Median time of one batch by itself, until its logits are in memory."""
    times: list[float] = []
    begun = time.perf_counter()
    while not times or (time.perf_counter() - begun < _LATENCY_S and len(times) < _LATENCY_CALLS):
        started = time.perf_counter()
        engine.logits(images_BHWC).cpu()
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1000
