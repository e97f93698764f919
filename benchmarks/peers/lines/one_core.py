"""Our decoder and engine for one image at a time on one core: as many processes as cores then use the machine best.

The environment says which model: MODEL is its folder, GRAPH its network as an ONNX file, PRECISION that of the engine.
"""

import os
from pathlib import Path
from typing import Any

MODEL, GRAPH, PRECISION = "BENCH_MODEL", "BENCH_GRAPH", "BENCH_PRECISION"


class OneCore:
    """A classifier whose engine has one stream of one thread."""

    def __init__(self) -> None:
        import torch

        from modeling.inference.classifier import Classifier
        from modeling.inference.engines.openvino_engine import OpenVinoEngine

        torch.set_num_threads(1)
        precision: Any = os.environ[PRECISION]
        engine = OpenVinoEngine(Path(os.environ[GRAPH]), precision, num_streams=1).for_batch_size(1)
        self._classifier = Classifier.load(Path(os.environ[MODEL])).on(engine)

    def predict(self, data: bytes) -> dict[str, object]:
        """The best label with its score."""
        from modeling.images.decode import decode_image

        pixels = decode_image(data, self._classifier.preprocessing)
        [prediction] = self._classifier.predict(pixels[None], 5)
        return {"label": prediction.labels[0], "score": prediction.scores[0]}
