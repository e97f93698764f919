"""Who decodes JPEGs for a GPU: the cores, or the GPU itself where that measures faster. Remembered with the engine."""

# Shapes: H height, W width, C channels.
import io
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image

from modeling.errors import ModelingError
from modeling.images.decode import decode_image, warm_up
from modeling.images.formats import MAX_PIXELS
from modeling.images.pixels import Pixels
from modeling.images.preprocessing import Preprocessing
from modeling.inference.decoders import TOGETHER, TOGETHER_THREADS, BatchDecoder, best_num_threads, num_cores
from modeling.inference.engines.choice import CORES, GPU
from modeling.inference.nvjpeg import NvJpeg

_SIZE = (500, 375)  # px: a photograph as they are sent around
_MEASURE_S = 0.5
_CLEARLY = 1.1
_MAX_MEAN_DIFFERENCE = 2.0  # of 255, in any image: decoders round, and smooth colours, each in its own way


def fastest_decoder(
    preprocessing: Preprocessing, device: torch.device, batch_size: int
) -> tuple[str, dict[str, float], dict[str, str]]:
    """CORES or GPU; images per second of each; and why the GPU is not used, if it cannot be.

    batch_size: images that are predicted together, which bounds how many are decoded together.
    """
    files = _photographs(min(TOGETHER, batch_size))
    warm_up()
    decode_image(files[0], preprocessing)  # the first takes longer
    decode_all = _by_cores(preprocessing, files)
    expected = decode_all()
    speeds = {CORES: _per_sec(decode_all, len(files))}
    try:
        together = NvJpeg(preprocessing, device)
        _check(together(files, MAX_PIXELS), expected)
        callers = min(TOGETHER_THREADS, num_cores())
        with ThreadPoolExecutor(callers, thread_name_prefix="decode") as pool:
            speeds[GPU] = _per_sec(
                lambda: list(pool.map(lambda batch: together(batch, MAX_PIXELS), [files] * callers)),
                len(files) * callers,
            )
    except Exception as err:  # whatever a driver raises: the cores are left
        return CORES, speeds, {GPU: f"{type(err).__name__}: {' '.join(str(err).split())}"[:300]}
    return (GPU if speeds[GPU] > _CLEARLY * speeds[CORES] else CORES), speeds, {}


def decoder_of(name: str, preprocessing: Preprocessing, device: torch.device) -> BatchDecoder | None:
    """The device's decoder, or None where the cores decode."""
    return NvJpeg(preprocessing, device) if name == GPU else None


def _by_cores(preprocessing: Preprocessing, files: Sequence[bytes]) -> Callable[[], list[Pixels]]:
    """Decodes the files, by as many threads as a job would have for them."""
    started = time.thread_time()
    decode_image(files[0], preprocessing)
    num_threads = best_num_threads(0.0, time.thread_time() - started, 1, num_cores())

    def decode_all() -> list[Pixels]:
        with ThreadPoolExecutor(num_threads, thread_name_prefix="decode") as pool:
            return list(pool.map(lambda data: decode_image(data, preprocessing), files))

    return decode_all


def _per_sec(work: Callable[[], object], num_images: int) -> float:
    """Images a second: the best of some rounds."""
    best_s, begun = float("inf"), time.perf_counter()
    while best_s == float("inf") or time.perf_counter() - begun < _MEASURE_S:
        started = time.perf_counter()
        work()
        best_s = min(best_s, time.perf_counter() - started)
    return round(num_images / best_s, 1)


def _check(found: Sequence[Pixels | None], expected: Sequence[Pixels]) -> None:
    """See that the GPU's images are those of the cores, but for rounding.

    Raises:
        ModelingError: they are not; says by how much.
    """
    for ours, theirs in zip(found, expected, strict=True):
        if ours is None:
            raise ModelingError("it refuses a plain JPEG")
        difference = float(np.abs(ours.astype(np.int16) - theirs).mean())
        if difference > _MAX_MEAN_DIFFERENCE:
            raise ModelingError(f"pixels differ by {difference:.2g} of 255, {_MAX_MEAN_DIFFERENCE:g} is allowed")


def _photographs(count: int) -> list[bytes]:
    """JPEGs with the soft shapes and the grain of photographs."""
    made = []
    for seed in range(count):
        generator = np.random.default_rng(seed)
        shapes = Image.fromarray(generator.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        shapes_HWC = np.asarray(shapes.resize(_SIZE, Image.Resampling.BICUBIC), dtype=np.int16)
        grain_HWC = generator.normal(0, 6, shapes_HWC.shape).astype(np.int16)
        file = io.BytesIO()
        Image.fromarray((shapes_HWC + grain_HWC).clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
        made.append(file.getvalue())
    return made
