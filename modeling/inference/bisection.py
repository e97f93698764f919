"""One answer for each image, whatever a batch of them does to the classifier: halved until the culprits stand alone."""

# Shapes: B images, H height, W width, C channels.
import traceback
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from modeling.errors import ImageError
from modeling.images.pixels import Pixels
from modeling.images.preprocessing import Preprocessing
from modeling.inference.decoders import BatchDecoder
from modeling.inference.prediction import Prediction


class Predictor(Protocol):
    """What is needed of a Classifier.

    largest_batch: images of a batch that may fit in memory, after one that did not; None where all did.
    num_streams: threads that may ask it at once to advantage. batch_size: images that it answers fastest together.
    images_per_sec: that it answers with all streams at work; 0 where that was not measured. decode_together: decodes
    images on its device; None where the cores are to decode.
    """

    largest_batch: int | None

    @property
    def preprocessing(self) -> Preprocessing: ...

    @property
    def num_streams(self) -> int: ...

    @property
    def batch_size(self) -> int: ...

    @property
    def images_per_sec(self) -> float: ...

    @property
    def engine_name(self) -> str: ...

    @property
    def decode_together(self) -> BatchDecoder | None: ...

    def predict(self, images_BHWC: NDArray[np.uint8], top_k: int, /) -> list[Prediction]: ...


class BisectingPredictor:
    """A classifier that survives bad batches, and is told how large a batch fits in memory."""

    def __init__(self, classifier: Predictor, top_k: int) -> None:
        self._classifier = classifier
        self._top_k = top_k

    def predict(self, images: Sequence[Pixels]) -> list[Prediction]:
        """One prediction for each image, though some make the classifier raise: those answer `predict_failed`.

        A batch that raises (or does not fit in memory) is halved until the culprits stand alone.

        Raises:
            Exception: what the classifier raised, if it cannot even predict one black image, or if one image
                alone does not fit in memory: then no image is to blame.
        """
        largest = self._classifier.largest_batch
        if largest is not None and len(images) > largest:
            return self._halves(images)
        try:
            predictions = self._classifier.predict(np.stack(images), self._top_k)
        except Exception as err:
            _let_go(err)
            self._check_classifier_works(err)
            out_of_memory = _is_out_of_memory(err)
            if len(images) == 1:
                if out_of_memory:
                    raise
                return [Prediction.failed(ImageError("predict_failed", f"{type(err).__name__}: {err}"[:300]))]
            if out_of_memory:
                self._classifier.largest_batch = -(-len(images) // 2)
            return self._halves(images)
        if len(predictions) != len(images):
            raise RuntimeError(f"the classifier gave {len(predictions)} predictions for {len(images)} images")
        return predictions

    def _halves(self, images: Sequence[Pixels]) -> list[Prediction]:
        half = -(-len(images) // 2)
        return self.predict(images[:half]) + self.predict(images[half:])

    def _check_classifier_works(self, err: Exception) -> None:
        black_1HWC = np.zeros((1, *self._classifier.preprocessing.shape), dtype=np.uint8)
        try:
            self._classifier.predict(black_1HWC, 1)
        except Exception:
            raise err from None


def _let_go(err: BaseException) -> None:
    """Free what the calls that failed hold, so that there is memory for a smaller batch."""
    failed: BaseException | None = err
    while failed is not None:
        traceback.clear_frames(failed.__traceback__)
        failed = failed.__context__


def _is_out_of_memory(err: Exception) -> bool:
    """Whether it is a MemoryError or torch's OutOfMemoryError, told without importing torch."""
    return isinstance(err, MemoryError) or type(err).__name__ == "OutOfMemoryError"
