"""How many images a shard has: what a worker does in two seconds, measured.

Small enough that a cancel, a drain and the turns of other jobs are prompt, that a dead worker's loss is small and
that workers end together; large enough that claiming and writing parts cost nothing beside it. Sizes are powers of
two and no smaller than a batch, so that jobs of other sizes have the same batches, and so the same rows.
"""

import os
import stat
import time
from collections.abc import Iterable
from pathlib import Path

from modeling.card import ModelCard
from modeling.engines.choice import read_choices
from modeling.precision import WantedPrecision

SHARD_S = 2.0
SMALLEST, LARGEST = 64, 4096
UNKNOWN = 512  # at most, as long as no worker has measured the model
SAMPLE_IMAGES = 8
_SAMPLE_S = 0.1


def choose_shard_size(
    artifacts: Path, precision: WantedPrecision, card: ModelCard, images: Iterable[str], max_file_bytes: int
) -> int:
    """The size for a model, whose engines' choices lie in `artifacts`, and for a job that begins with `images`."""
    choices = list(read_choices(artifacts, precision))
    rate = min([choice.speed for choice in choices], default=UNKNOWN / SHARD_S)
    rate = min(rate, decode_rate(card, images, max_file_bytes))
    return fitting_shard_size(rate, max([choice.batch_size for choice in choices], default=SMALLEST))


def fitting_shard_size(images_per_sec: float, batch_size: int) -> int:
    """The power of two for a worker of that speed."""
    wanted = max(1, int(SHARD_S * images_per_sec))
    return min(LARGEST, max(SMALLEST, batch_size, 1 << wanted.bit_length() - 1))


def decode_rate(card: ModelCard, images: Iterable[str], max_file_bytes: int) -> float:
    """Images a second that all cores of this machine read and decode, told from some; infinite where none tell."""
    from modeling.decode import loaded_image  # Pillow's plugins: only where a job is submitted
    from modeling.errors import ImageError
    from modeling.formats import MAX_PIXELS

    needed = 2 * max(card.preprocessing.height, card.preprocessing.width)
    num_decoded, elapsed_s = 0, 0.0
    for image in images:
        started = time.perf_counter()
        try:
            with loaded_image(_read(image, max_file_bytes), needed=needed, max_pixels=MAX_PIXELS):
                num_decoded += 1
        except (ImageError, OSError, ValueError):
            continue  # its row will say so
        elapsed_s += time.perf_counter() - started
        if elapsed_s > _SAMPLE_S:
            break
    return num_decoded / elapsed_s * len(os.sched_getaffinity(0)) if elapsed_s else float("inf")


def _read(image: str, max_file_bytes: int) -> bytes:
    """A regular file's bytes, without waiting for a pipe's writer or following a link; none of what is larger."""
    with open(os.open(image, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        facts = os.fstat(file.fileno())
        return file.read() if stat.S_ISREG(facts.st_mode) and facts.st_size <= max_file_bytes else b""
