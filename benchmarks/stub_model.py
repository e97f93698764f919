"""A model that takes as long as it is wanted to, for benchmarks of everything around models.

`as_stub(environment)` makes the workers of a cluster load it in place of any network: their processes never import
torch, so they start within a second. An image's answer is a function of its pixels.
"""

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from modeling.inference.prediction import Prediction

BATCH_SIZE = 4
BATCH_S = "STUB_BATCH_S"  # environment variable: seconds of each batch
BATCHES = "STUB_BATCHES"  # environment variable: a file that gets a line at the end of each batch
_START = "from benchmarks.stub_model import install\ninstall()\n"
_REPLACED = {"modeling.inference.classifier": "Classifier", "modeling.inference.choose_engine": "load_fastest"}


def as_stub(environment: Mapping[str, str], folder: Path, batch_s: float, *, start: str = "") -> dict[str, str]:
    """An environment for workers. folder: a new one, for their start-up file. start: what this file does besides."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(start + _START)
    path = os.pathsep.join([str(folder), str(Path(__file__).resolve().parents[1])])
    return {**environment, "PYTHONPATH": path, BATCH_S: str(batch_s)}


def install() -> None:
    """Let this process load the stub as its classifier; called at its start, before anything is imported."""
    for module, name in _REPLACED.items():
        stub = ModuleType(module)
        setattr(stub, name, StubClassifier if name == "Classifier" else _load)
        sys.modules[module] = stub


def _load(version: Any, *_: object, **__: object) -> "StubClassifier":
    from modeling.images import png
    from modeling.inference import decoders

    # These would import torch: a first decoder that scales an image, and the decoder of PNGs. Pillow decodes instead.
    setattr(decoders, "warm_up", lambda: None)  # noqa: B010 mypy knows them as other functions
    setattr(png, "_decoder", lambda: _refuse)  # noqa: B010
    return StubClassifier(version.card().preprocessing, float(os.environ[BATCH_S]))


def _refuse(*_: object) -> None:
    raise RuntimeError("this decoder is not used here")


@dataclass
class StubClassifier:
    """A `modeling.inference.bisection.Predictor` that sleeps."""

    preprocessing: Any
    batch_s: float
    num_streams: int = 1
    batch_size: int = BATCH_SIZE
    images_per_sec: float = field(init=False)
    engine_name: str = "stub"
    batch_decoder: None = None
    calibration: None = None
    largest_batch: int | None = None

    def __post_init__(self) -> None:
        self.images_per_sec = self.batch_size / max(self.batch_s, 1e-3)

    def predict(self, images: "NDArray[np.uint8]", top_k: int, /) -> "list[Prediction]":
        """Sleep, then say what is seen."""
        from modeling.inference.prediction import Prediction

        time.sleep(self.batch_s)
        if noted := os.environ.get(BATCHES):
            with open(noted, "ab", buffering=0) as file:
                file.write(f"{os.getpid()} {time.time():.3f}\n".encode())
        shares = [int(image.sum()) % 1000 / 1000 for image in images]
        return [Prediction((str(int(share * 10)), "other")[:top_k], (share, 1 - share)[:top_k]) for share in shares]
