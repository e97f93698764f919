"""Rows for a few images at once, as a classify job would write them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from modeling.errors import ImageError
from modeling.images.loader import read_image_file
from modeling.inference.bisection import Predictor
from modeling.inference.pipeline import predict_units
from orchestrator.contract.jobs.rows import Row


@dataclass(frozen=True, slots=True)
class Limits:
    """How large an image may be, as for jobs: of its file, and decoded."""

    max_file_bytes: int
    max_pixels: int


@dataclass(frozen=True, slots=True)
class NamedImage:
    """An image file by its path, or bytes that came with a name."""

    name: str
    data: bytes | None = None

    def read(self, max_file_bytes: int) -> bytes:
        """The encoded image. Raises ImageError, or OSError where no image is at fault."""
        if self.data is None:
            return read_image_file(Path(self.name), max_bytes=max_file_bytes)
        if len(self.data) > max_file_bytes:
            raise ImageError("too_large", f"more than the limit of {max_file_bytes} bytes")
        return self.data


def predict_rows(
    images: Sequence[NamedImage], predictor: Predictor, limits: Limits, *, top_k: int, decides: bool
) -> Iterator[Row]:
    """One row for each image, in order; one that cannot be read has its error.

    decides: whether the model is calibrated.
    """
    sources: list[Callable[[], bytes]] = [partial(image.read, limits.max_file_bytes) for image in images]
    names = iter(images)
    for result in predict_units([sources], predictor, top_k=top_k, max_pixels=limits.max_pixels):
        for prediction in result.predictions:
            yield Row.of(next(names).name, prediction, decides=decides)
