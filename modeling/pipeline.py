"""Read, decode, batch, predict: groups of images in, their predictions out, with every stage at work at once.

Threads read and decode small chunks of images a bounded way ahead, into the next group too; the calling
thread fills batches with the valid images in order and predicts them. A batch never spans two groups, so that
a group's predictions do not depend on what came before it.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from modeling.decode import decode_image
from modeling.errors import ImageError
from modeling.formats import MAX_PIXELS
from modeling.pixels import Pixels
from modeling.prediction import Prediction
from modeling.preprocessing import Preprocessing

Source = Callable[[], bytes]
"""Reads one image's bytes; may raise ImageError or OSError."""

_CHUNK = 8  # images a thread reads and decodes at a time
_MAX_OPEN_GROUPS = 2  # the one being predicted and the next: more would claim work that others could do


class Predictor(Protocol):
    """What the pipeline needs of a Classifier."""

    @property
    def preprocessing(self) -> Preprocessing: ...

    def predict(self, images_BHWC: NDArray[np.uint8], top_k: int, /) -> list[Prediction]: ...


@dataclass(frozen=True, slots=True)
class GroupResult:
    """One group's predictions in order, and the seconds that each stage took.

    `read` and `decode` are summed over the threads; `wait` (for decoded images) and `predict` are the
    calling thread's.
    """

    predictions: list[Prediction]
    seconds: dict[str, float]


@dataclass(slots=True)
class _Chunk:
    """A few images of one group: pixels, or why there are none."""

    images: list[Pixels | ImageError] = field(default_factory=list)
    read_s: float = 0.0
    decode_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Pending:
    chunk: Future[_Chunk]
    ends_group: bool


def predict_groups(
    groups: Iterable[Sequence[Source]],
    classifier: Predictor,
    *,
    top_k: int,
    batch_size: int,
    decode_threads: int,
    max_pixels: int = MAX_PIXELS,
    between_batches: Callable[[], None] = lambda: None,
) -> Iterator[GroupResult]:
    """Predictions of every group, in order; the next group is pulled while the present one is predicted.

    `between_batches` runs in the calling thread after every chunk and every batch; what it raises, or what
    `groups` raises, ends the iteration once the threads have stopped.
    """
    preprocessing = classifier.preprocessing
    pool = ThreadPoolExecutor(decode_threads, thread_name_prefix="decode")

    def submit(sources: Sequence[Source]) -> Future[_Chunk]:
        return pool.submit(_read_and_decode, sources, preprocessing, max_pixels)

    max_chunks = 2 * -(-batch_size // _CHUNK) + decode_threads  # two batches, and work for every thread
    batcher = _Batcher(classifier, top_k, batch_size, between_batches)
    try:
        for pending in _ahead(_chunks(groups), submit, max_chunks):
            batcher.add(pending.chunk)
            if pending.ends_group:
                yield batcher.finish()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _chunks(groups: Iterable[Sequence[Source]]) -> Iterator[tuple[Sequence[Source], bool]]:
    """Each group cut into chunks, and whether the group ends with it; an empty group is one empty chunk."""
    for group in groups:
        for start in range(0, max(1, len(group)), _CHUNK):
            yield group[start : start + _CHUNK], start + _CHUNK >= len(group)


def _ahead(
    chunks: Iterator[tuple[Sequence[Source], bool]],
    submit: Callable[[Sequence[Source]], Future[_Chunk]],
    max_chunks: int,
) -> Iterator[_Pending]:
    """Chunks in order, each submitted before it is asked for: up to `max_chunks`, of two groups at most."""
    waiting: deque[_Pending] = deque()
    open_groups = 1  # groups with a chunk not yet handed on, counting the one that comes next
    exhausted = False
    while True:
        while not exhausted and len(waiting) < max_chunks and open_groups <= _MAX_OPEN_GROUPS:
            following = next(chunks, None)
            if following is None:
                exhausted = True
                break
            sources, ends_group = following
            waiting.append(_Pending(submit(sources), ends_group))
            open_groups += ends_group
        if not waiting:
            return
        pending = waiting.popleft()
        yield pending
        open_groups -= pending.ends_group


def _read_and_decode(sources: Sequence[Source], preprocessing: Preprocessing, max_pixels: int) -> _Chunk:
    """Runs in a decode thread."""
    chunk = _Chunk()
    for source in sources:
        started = time.perf_counter()
        read = started
        try:
            data = source()
            read = time.perf_counter()
            chunk.images.append(decode_image(data, preprocessing, max_pixels=max_pixels))
        except ImageError as err:
            chunk.images.append(err)
        except OSError as err:
            chunk.images.append(ImageError("unreadable", err.strerror or type(err).__name__))
        finally:
            chunk.read_s += read - started
            chunk.decode_s += time.perf_counter() - read
    return chunk


class _Batcher:
    """Gathers one group's images into batches and its predictions into their places."""

    def __init__(self, classifier: Predictor, top_k: int, batch_size: int, between_batches: Callable[[], None]) -> None:
        self._classifier = classifier
        self._top_k = top_k
        self._batch_size = batch_size
        self._between_batches = between_batches
        self._start_group()

    def _start_group(self) -> None:
        self._predictions: list[Prediction | None] = []
        self._images: list[Pixels] = []  # of the batch being filled
        self._places: list[int] = []  # where their predictions go
        self._seconds = {"read": 0.0, "decode": 0.0, "wait": 0.0, "predict": 0.0}

    def add(self, future: Future[_Chunk]) -> None:
        """Wait for a chunk and predict the batches that it fills."""
        started = time.perf_counter()
        chunk = future.result()
        self._seconds["wait"] += time.perf_counter() - started
        self._seconds["read"] += chunk.read_s
        self._seconds["decode"] += chunk.decode_s
        self._between_batches()
        for image in chunk.images:
            if isinstance(image, ImageError):
                self._predictions.append(Prediction.failed(image))
                continue
            self._places.append(len(self._predictions))
            self._predictions.append(None)
            self._images.append(image)
            if len(self._images) == self._batch_size:
                self._predict_batch()

    def finish(self) -> GroupResult:
        """The group's result, its last batch predicted; the next group starts afresh."""
        if self._images:
            self._predict_batch()
        predictions = [prediction for prediction in self._predictions if prediction is not None]
        assert len(predictions) == len(self._predictions)
        result = GroupResult(predictions, self._seconds)
        self._start_group()
        return result

    def _predict_batch(self) -> None:
        started = time.perf_counter()
        predictions = predict_surviving(self._classifier, self._images, self._top_k)
        for place, prediction in zip(self._places, predictions, strict=True):
            self._predictions[place] = prediction
        self._images, self._places = [], []
        self._seconds["predict"] += time.perf_counter() - started
        self._between_batches()


def predict_surviving(classifier: Predictor, images: Sequence[Pixels], top_k: int) -> list[Prediction]:
    """One prediction for each image, though some make the classifier raise: those answer `predict_failed`.

    A batch that raises (or does not fit in memory) is halved until the culprits stand alone.

    Raises:
        Exception: what the classifier raised, if it cannot even predict one black image, or if one image
            alone does not fit in memory: then no image is to blame.
    """
    try:
        predictions = classifier.predict(np.stack(images), top_k)
    except Exception as err:
        _check_classifier_works(classifier, err)
        if len(images) == 1:
            if _is_out_of_memory(err):
                raise
            return [Prediction.failed(ImageError("predict_failed", f"{type(err).__name__}: {err}"[:300]))]
        half = len(images) // 2
        first = predict_surviving(classifier, images[:half], top_k)
        return first + predict_surviving(classifier, images[half:], top_k)
    if len(predictions) != len(images):
        raise RuntimeError(f"the classifier gave {len(predictions)} predictions for {len(images)} images")
    return predictions


def _check_classifier_works(classifier: Predictor, err: Exception) -> None:
    black_1HWC = np.zeros((1, *classifier.preprocessing.shape), dtype=np.uint8)
    try:
        classifier.predict(black_1HWC, 1)
    except Exception:
        raise err from None


def _is_out_of_memory(err: Exception) -> bool:
    """Whether it is a MemoryError or torch's OutOfMemoryError, told without importing torch."""
    return isinstance(err, MemoryError) or type(err).__name__ == "OutOfMemoryError"
