"""Lets worker processes read and answer images that do not exist, for measurements of everything else.

`stub_environment` has the environment of such a worker: Python imports a `sitecustomize` at its start, which replaces
the reading of files and the loading of models. What an image is answered follows from the number in its path.
"""

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modeling.images.preprocessing import Preprocessing
from modeling.inference.prediction import Prediction
from orchestrator.contract.jobs.sidecar import AsRead

_START = """
import os, sys
if "PIGEONHOLE_WORKER" in os.environ or "import_and_spawn_main" in " ".join(sys.orig_argv):  # a pool child
    from benchmarks.stub_worker import install
    install()
"""
NUM_ANSWERS = 250
TIME_NS = 1_700_000_000_000_000_000  # of the last change of every image


class StubClassifier:
    """Answers an image by its first pixel."""

    preprocessing = Preprocessing("L", 2, 2)
    calibration = None
    num_streams = 1
    batch_size = 256
    images_per_sec = 0.0
    engine_name = "stub"
    largest_batch: int | None = None

    @staticmethod
    def batch_decoder(files: Sequence[bytes], max_pixels: int) -> list[NDArray[np.uint8] | None]:
        """An image of one brightness for each file, which is that byte."""
        return [_pixels(file[0]) for file in files]

    def predict(self, images: NDArray[np.uint8], top_k: int, /) -> list[Prediction]:
        """One prediction for each image."""
        return [answer(int(value), top_k) for value in images.reshape(len(images), -1)[:, 0]]


def answer_of(path: str, top_k: int) -> Prediction:
    """What the image at a path is answered."""
    return answer(_number(path) % NUM_ANSWERS, top_k)


@cache
def answer(value: int, top_k: int) -> Prediction:
    labels = tuple(f"label {(value + place) % NUM_ANSWERS:03d}" for place in range(top_k))
    return Prediction(labels, tuple(round(0.9**place / 2, 6) for place in range(top_k)))


def stub_environment(folder: Path) -> dict[str, str]:
    """The environment of a worker that reads no files; its start is written to a folder of its own."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_START)
    path = f"{folder}{os.pathsep}{Path(__file__).resolve().parents[1]}"
    return {"PYTHONPATH": path}


def install() -> None:
    """Replace what this process reads images and loads models with."""
    from workers.classify.read import ImageReader
    from workers.context import ModelCache

    ImageReader.read_state = read_state  # type: ignore[assignment, method-assign]
    ModelCache.get = _get  # type: ignore[assignment, method-assign]


def read_state(reader: object, path: str) -> tuple[bytes, AsRead]:
    number = _number(path)
    return _BYTES[number % NUM_ANSWERS], (100_000 + number % 1000, TIME_NS + number, None)


def _get(cache: object, *pin: Any, **options: Any) -> StubClassifier:
    return _STUB


@cache
def _pixels(value: int) -> NDArray[np.uint8]:
    return np.full((2, 2, 1), value, np.uint8)


def _number(path: str) -> int:
    return int(path[-12:-4])


_BYTES = [bytes([value]) for value in range(NUM_ANSWERS)]
_STUB = StubClassifier()
