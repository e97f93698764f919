"""One prediction for each image, even if some make the classifier fail: a failing batch is halved to find them."""

# Shapes: B images, H height, W width, C channels.
import traceback
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from modeling.errors import ImageError, is_out_of_memory, trouble_of
from modeling.images.pixels import Pixels
from modeling.images.preprocessing import Preprocessing
from modeling.inference.decoders import BatchDecoder
from modeling.inference.prediction import Prediction


class BatchPredictor(Protocol):
    """Predicts a batch, or raises.

    largest_batch: images in the largest batch to try, after one that did not fit in memory; None if all did.
    """

    largest_batch: int | None

    @property
    def preprocessing(self) -> Preprocessing: ...

    def predict(self, images_BHWC: NDArray[np.uint8], top_k: int, /) -> list[Prediction]: ...


class Predictor(BatchPredictor, Protocol):
    """What the pipeline needs of a Classifier.

    num_streams: threads that predict at the same time. batch_size: images in the batch that predicts fastest.
    images_per_sec: measured with all streams; 0 if it was not measured. batch_decoder: decodes images on the device;
    None if the cores decode.
    """

    @property
    def num_streams(self) -> int: ...

    @property
    def batch_size(self) -> int: ...

    @property
    def images_per_sec(self) -> float: ...

    @property
    def engine_name(self) -> str: ...

    @property
    def batch_decoder(self) -> BatchDecoder | None: ...


class BisectingPredictor:
    """Predicts batches that the classifier may fail on, and records on it how large a batch fits in memory."""

    def __init__(self, classifier: BatchPredictor, top_k: int) -> None:
        self._classifier = classifier
        self._top_k = top_k

    def predict(self, images: Sequence[Pixels]) -> list[Prediction]:
        """One prediction for each image; an image that makes the classifier raise has the error `predict_failed`.

        A batch that raises (or does not fit in memory) is halved until the images that fail are alone.

        Raises:
            MemoryError: one image alone does not fit in memory, that of the machine or of a GPU.
            Exception: what the classifier raised, if it also fails on one black image: the cause is not an image then.
        """
        largest = self._classifier.largest_batch
        if largest is not None and len(images) > largest:
            return self._halves(images)
        try:
            predictions = self._classifier.predict(np.stack(images), self._top_k)
        except Exception as err:
            _clear_frames(err)
            out_of_memory = is_out_of_memory(err)
            if not out_of_memory and trouble_of(err) == "worker":
                raise
            self._check_classifier_works(err)
            if len(images) == 1:
                if out_of_memory:
                    raise _as_lacking(err) from None
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
            raise (_as_lacking(err) if is_out_of_memory(err) else err) from None


def _as_lacking(err: Exception) -> Exception:
    """What says that this process lacks memory now, of whatever device: others may hold it."""
    return err if isinstance(err, MemoryError) else MemoryError(str(err))


def _clear_frames(err: BaseException) -> None:
    """Free the local variables of the calls that failed, so that a smaller batch fits in memory."""
    failed: BaseException | None = err
    while failed is not None:
        traceback.clear_frames(failed.__traceback__)
        failed = failed.__context__
