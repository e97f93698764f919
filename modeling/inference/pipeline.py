"""Read, decode, batch, predict: images in, their predictions out, with every stage at work at once.

Images come in work units, such as the shards of a worker. A unit is cut by position into batches before anything is
decoded, and a batch never spans two units: what an image is predicted with depends on its own unit alone.

Threads read and decode small chunks of images a bounded way ahead, into the next batches and the next unit too. The
calling thread collects the decoded images of a batch. It predicts them itself, or submits them to as many threads as
the classifier has streams, and collects the predictions in order.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice

from modeling.errors import ImageError
from modeling.images.formats import MAX_PIXELS
from modeling.images.pixels import Pixels
from modeling.inference.bisection import BisectingPredictor, Predictor
from modeling.inference.decoders import Chunk, Decoders, Source
from modeling.inference.prediction import Prediction

_BESIDE_NETWORK = 0.75  # of the speed that a single decoding thread has alone
_MAX_OPEN_UNITS = 2  # the one being predicted and the next: a worker that claims more takes work from others


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The predictions of one batch in order, and the seconds that each stage took.

    `wait` (for decoded images) is the calling thread's. `read`, `decode` and `predict` are the time of several threads
    divided by their number, so that one second of a stage is a second of all its threads.
    """

    predictions: list[Prediction]
    seconds: dict[str, float]


def predict_units(
    units: Iterable[Iterable[Source]],
    classifier: Predictor,
    *,
    top_k: int,
    batch_size: int = 0,
    decode_threads: int = 0,
    max_pixels: int = MAX_PIXELS,
    between_batches: Callable[[], None] = lambda: None,
) -> Iterator[BatchResult]:
    """Predictions of every batch of every unit, in order; an empty unit has one empty batch.

    Units and their sources are pulled lazily: at most two batches ahead of what is decoded, and the next unit only
    while the present one is predicted.

    batch_size: 0: the classifier's. decode_threads: 0: as many as the first images show to be best.
    `between_batches` runs in the calling thread after every chunk and every batch; what it raises, or what
    `units` raises, ends the iteration once the threads have stopped.
    """
    batch_size = batch_size or classifier.batch_size
    decoders = Decoders(classifier.preprocessing, max_pixels, decode_threads, classifier.batch_decoder)
    batcher = _Batcher(classifier, top_k, between_batches, lambda: _streams_beside(classifier, decoders))
    try:
        for pending in _decode_ahead(_chunks(units, decoders, batch_size), decoders, batch_size):
            started = time.perf_counter()
            chunk = pending.chunk.result()
            batcher.add(chunk, time.perf_counter() - started)
            if pending.ends_batch:
                batcher.end_batch()
            yield from batcher.results()
        batcher.collect_all()
        yield from batcher.results()
    finally:
        batcher.close()
        decoders.close()


# Cutting and decoding


@dataclass(frozen=True, slots=True)
class _SourceChunk:
    """The sources of one decode call."""

    sources: Sequence[Source]
    ends_batch: bool
    ends_unit: bool


@dataclass(frozen=True, slots=True)
class _PendingChunk:
    """A chunk that is being decoded."""

    chunk: Future[Chunk]
    ends_batch: bool
    ends_unit: bool


def _chunks(units: Iterable[Iterable[Source]], decoders: Decoders, batch_size: int) -> Iterator[_SourceChunk]:
    """Each unit cut into batches, and these into chunks; an empty unit is one empty chunk."""
    for unit in units:
        sources = iter(unit)
        batch = list(islice(sources, batch_size))
        is_last = False
        while not is_last:
            following = list(islice(sources, batch_size))
            is_last = not following
            end = 0
            while not end or end < len(batch):
                start, end = end, end + decoders.chunk_size
                ends_batch = end >= len(batch)
                yield _SourceChunk(batch[start:end], ends_batch, ends_batch and is_last)
            batch = following


def _decode_ahead(chunks: Iterator[_SourceChunk], decoders: Decoders, batch_size: int) -> Iterator[_PendingChunk]:
    """Chunks in order, each submitted before it is asked for: two batches and one a thread, of two units at most."""
    waiting: deque[_PendingChunk] = deque()
    open_units = 1  # units with a chunk not yet handed on, counting the one that comes next
    exhausted = False
    while True:
        while not exhausted and len(waiting) < _num_chunks(decoders, batch_size) and open_units <= _MAX_OPEN_UNITS:
            following = next(chunks, None)
            if following is None:
                exhausted = True
                break
            chunk = decoders.submit(following.sources)
            waiting.append(_PendingChunk(chunk, following.ends_batch, following.ends_unit))
            open_units += following.ends_unit
        if not waiting:
            return
        pending = waiting.popleft()
        yield pending
        open_units -= pending.ends_unit


def _num_chunks(decoders: Decoders, batch_size: int) -> int:
    """Chunks that may be in progress: those of two batches, and one for each thread."""
    return 2 * -(-batch_size // decoders.chunk_size) + decoders.num_threads


# Predicting


@dataclass(slots=True)
class _OpenBatch:
    """A batch of which not every image is decoded yet.

    places: where the predictions of `images` go. remarks: of the decoder, by place.
    """

    predictions: list[Prediction | None] = field(default_factory=list)
    images: list[Pixels] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    remarks: dict[int, tuple[str, ...]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("read", "decode", "wait", "predict"), 0.0))

    def result(self, answers: Sequence[Prediction], predict_s: float) -> BatchResult:
        """The whole batch, once its images are predicted."""
        for place, prediction in zip(self.places, answers, strict=True):
            remarks = self.remarks.get(place)
            self.predictions[place] = replace(prediction, remarks=remarks) if remarks else prediction
        predictions = [prediction for prediction in self.predictions if prediction is not None]
        assert len(predictions) == len(self.predictions)
        return BatchResult(predictions, self.seconds | {"predict": predict_s})


@dataclass(frozen=True, slots=True)
class _InFlight:
    """A batch that is being predicted."""

    batch: _OpenBatch
    answer: Future[tuple[list[Prediction], float]]


class _Batcher:
    """Collects the images of a batch, submits them for prediction, and returns the results in the order of batches."""

    def __init__(
        self, classifier: Predictor, top_k: int, between_batches: Callable[[], None], choose_streams: Callable[[], int]
    ) -> None:
        """between_batches: runs in the calling thread after every chunk and every batch.

        choose_streams: asked for the number of streams when the first batch is complete.
        """
        self._predictor = BisectingPredictor(classifier, top_k)
        self._between_batches = between_batches
        self._choose_streams = choose_streams
        self._num_streams = 0  # not known yet
        self._pool: ThreadPoolExecutor | None = None
        self._batch = _OpenBatch()
        self._in_flight: deque[_InFlight] = deque()
        self._finished: deque[BatchResult] = deque()

    def add(self, chunk: Chunk, waited_s: float) -> None:
        """The next images of the batch, and how long this thread waited for them."""
        batch = self._batch
        for stage, spent_s in (*chunk.seconds.items(), ("wait", waited_s)):
            batch.seconds[stage] += spent_s
        self._between_batches()
        first = len(batch.predictions)
        batch.remarks |= {first + place: remarks for place, remarks in chunk.remarks.items()}
        for image in chunk.images:
            if isinstance(image, ImageError):
                batch.predictions.append(Prediction.failed(image))
            else:
                batch.places.append(len(batch.predictions))
                batch.predictions.append(None)
                batch.images.append(image)

    def end_batch(self) -> None:
        """No more images come for this batch: predict those that could be decoded."""
        batch, self._batch = self._batch, _OpenBatch()
        if batch.images:
            self._submit(batch)
        else:
            self._in_flight.append(_InFlight(batch, _done([], 0.0)))

    def results(self) -> Iterator[BatchResult]:
        """The batches that are complete by now, in order."""
        while self._in_flight and self._in_flight[0].answer.done():
            self._collect()
        while self._finished:
            yield self._finished.popleft()

    def collect_all(self) -> None:
        """Wait for all batches."""
        while self._in_flight:
            self._collect()

    def close(self) -> None:
        """End the threads once they have finished the batches that they are at."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self, batch: _OpenBatch) -> None:
        """Predict the batch in this thread, or submit it to the next free stream.

        One batch more than there are streams is in flight, so that no stream waits for this thread.
        """
        if not self._num_streams:
            self._num_streams = self._choose_streams()
            self._pool = ThreadPoolExecutor(self._num_streams, "predict") if self._num_streams > 1 else None
        images, batch.images = batch.images, []
        if self._pool is None:
            self._in_flight.append(_InFlight(batch, _done(*self._predict(images))))
            return
        while len(self._in_flight) > self._num_streams:
            self._collect()
        self._in_flight.append(_InFlight(batch, self._pool.submit(self._predict, images)))

    def _predict(self, images: Sequence[Pixels]) -> tuple[list[Prediction], float]:
        started = time.perf_counter()
        return self._predictor.predict(images), time.perf_counter() - started

    def _collect(self) -> None:
        """Wait for the oldest batch's predictions."""
        oldest = self._in_flight.popleft()
        answers, spent_s = oldest.answer.result()
        self._finished.append(oldest.batch.result(answers, spent_s / max(self._num_streams, 1)))
        self._between_batches()


def _done(answers: list[Prediction], spent_s: float) -> Future[tuple[list[Prediction], float]]:
    answer: Future[tuple[list[Prediction], float]] = Future()
    answer.set_result((answers, spent_s))
    return answer


def _streams_beside(classifier: Predictor, decoders: Decoders) -> int:
    return best_num_streams(
        classifier.num_streams, classifier.images_per_sec, decoders.num_threads, decoders.images_per_sec
    )


def best_num_streams(num_streams: int, images_per_sec: float, decode_threads: int, decoded_per_sec: float) -> int:
    """One stream if it keeps up with decoding, else all: fewer threads wait less for the interpreter's lock.

    images_per_sec: of all streams. It and decoded_per_sec are 0 if not measured. Decoding was
    measured alone: a single thread, which is chosen for tiny images, depends on the lock and is slower beside the
    network.
    """
    expected = decoded_per_sec * (_BESIDE_NETWORK if decode_threads == 1 else 1.0)
    return 1 if images_per_sec > num_streams * expected > 0 else num_streams
