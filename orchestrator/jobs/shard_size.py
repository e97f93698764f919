"""How many images a shard has: as many as a worker classifies in about two seconds.

That is short enough for prompt cancels, drains and turns of other jobs, for a small loss when a worker dies and for
workers that finish at about the same time; and long enough to make claiming shards and writing parts cheap. Sizes are
powers of two and no smaller than a batch, so that shards of another size have the same batches, and so the same rows.
"""

import os
import stat
import time
from collections.abc import Iterable
from pathlib import Path

from modeling.images.quotas import num_cores
from modeling.inference.engines.choice import LARGEST_BATCH, read_choices
from modeling.inference.engines.precision import WantedPrecision

SHARD_S = 2.0
LOW_SHARD_S = SHARD_S / 8  # of a job of low priority, whose share of a minute may be three seconds
MERGE_SHARD_S = SHARD_S / 32  # of an incremental run, whose images are found a few at a time while its source is read
SMALLEST, LARGEST = 64, 4096
UNKNOWN = 512  # images at most, until a worker has measured the model
SAMPLE_IMAGES = 8
_SAMPLE_S = 0.1
_SAMPLE_BYTES = 64 << 20  # of an image
_BYTES_PER_S = 60e6  # decoded by one core, roughly: 40 MB of small JPEGs, 140 of large ones, 80 of large PNGs
_IMAGE_S = 20e-6  # for the smallest image


def choose_shard_size(
    artifacts: Path,
    precision: WantedPrecision,
    images: Iterable[str],
    batch_size: int | None = None,
    seconds: float = SHARD_S,
) -> int:
    """The size for a model, whose engine choices are in `artifacts`, and for a job that begins with `images`.

    batch_size: the configured one; 0 or None: as measured. seconds: of a worker, for a shard.
    """
    choices = list(read_choices(artifacts, precision))
    rate = min([choice.speed for choice in choices], default=UNKNOWN / SHARD_S)
    largest_batch = max([choice.batch_size for choice in choices], default=LARGEST_BATCH)
    return round_shard_size(min(rate, decode_rate(images)), batch_size or largest_batch, seconds)


def round_shard_size(images_per_sec: float, batch_size: int, seconds: float = SHARD_S) -> int:
    """The power of two for a worker of that speed, rounded up to a multiple of the batch size."""
    wanted = max(1, int(seconds * images_per_sec))
    size = min(LARGEST, max(SMALLEST, batch_size, 1 << wanted.bit_length() - 1))
    return -(-size // batch_size) * batch_size


def decode_rate(images: Iterable[str]) -> float:
    """Images per second that the cores of this machine read and decode; infinite where none can be read.

    Reading is timed; decoding is only estimated from the size, because a file may crash the process that decodes it.
    """
    num_images, elapsed_s, num_bytes = 0, 0.0, 0
    for image in images:
        started = time.perf_counter()
        try:
            data = _read(image)
        except (OSError, ValueError):
            data = b""  # its row will have the error
        elapsed_s += time.perf_counter() - started
        num_images, num_bytes = num_images + bool(data), num_bytes + len(data)
        if elapsed_s > _SAMPLE_S:
            break
    if not num_images:
        return float("inf")
    image_s = (elapsed_s + num_bytes / _BYTES_PER_S) / num_images + _IMAGE_S
    return num_cores() / image_s


def _read(image: str) -> bytes:
    """A regular file's bytes; empty for a link, a pipe or a very large file."""
    with open(os.open(image, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        facts = os.fstat(file.fileno())
        return file.read() if stat.S_ISREG(facts.st_mode) and facts.st_size <= _SAMPLE_BYTES else b""
