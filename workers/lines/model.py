"""A model that answers pushes: loaded, warm, and with measured batch times."""

import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from modeling.images.pixels import Pixels
from modeling.images.preprocessing import Preprocessing
from modeling.inference.prediction import Prediction
from workers.lines.timings import BatchTimings, Timing

TOP_K = 5
TOP_K_OF_MODELS = 100  # of lines of models: programs ask for all scores, and answers are kept for a minute only


class PushedImagesPredictor(Protocol):
    """What lines need of `modeling.inference.push_predictor.PushPredictor`, whose docstring has the details."""

    @property
    def preprocessing(self) -> Preprocessing: ...

    @property
    def sizes(self) -> tuple[int, ...]: ...

    @property
    def num_streams(self) -> int: ...

    @property
    def alone_streams(self) -> int: ...

    @property
    def batch_ms(self) -> Mapping[int, float]: ...

    @property
    def alone_ms(self) -> float: ...

    def predict(self, images: Sequence[Pixels], top_k: int) -> list[Prediction]: ...

    def predict_alone(self, image: Pixels, top_k: int) -> Prediction: ...

    def engine_for(self, num_images: int) -> str | None: ...

    def size_for(self, num_images: int) -> int: ...


class LineModel:
    """One version of a model as the lines of this worker use it; lines with the same version share it.

    name: `name@version`. timings: of batches by size, in one stream. alone: of one image on all cores.
    """

    def __init__(self, name: str, predictor: PushedImagesPredictor) -> None:
        self.name = name
        self.predictor = predictor
        self.preprocessing = predictor.preprocessing
        self.sizes = predictor.sizes
        self.streams = predictor.num_streams
        self.timings = BatchTimings()
        self.alone = Timing(predictor.alone_ms)
        self.saturated_ms = 0.0  # per image, while no stream had to wait for one; 0: not measured yet
        for size, ms in predictor.batch_ms.items():
            self.timings.add(size, ms)

    def predict(self, images: Sequence[Pixels], top_k: int = TOP_K, *, all_cores: bool = False) -> list[Prediction]:
        """One prediction for each image; one that the network fails on has the error `predict_failed`."""
        started = time.perf_counter()
        if all_cores and len(images) == 1:
            predictions = [self.predictor.predict_alone(images[0], top_k)]
            self.alone.add((time.perf_counter() - started) * 1e3)
            return predictions
        predictions = self.predictor.predict(images, top_k)
        self.timings.add(self.predictor.size_for(len(images)), (time.perf_counter() - started) * 1e3)
        return predictions

    def largest_up_to(self, num_images: int) -> int:
        """The largest batch size for so many waiting images."""
        return max((size for size in self.sizes if size <= num_images), default=self.sizes[0])

    def ms_per_image(self, size: int) -> float:
        """With all streams at work in batches of a size."""
        return self.timings.expected_ms(size) / (size * self.streams)
