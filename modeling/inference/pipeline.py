"""Read, decode, batch, predict: images in, their predictions out, with every stage at work at once.

Images come in work units, such as the shards of a worker. A unit is cut by position into batches, and a batch never
spans two units: what an image is predicted with depends on its own unit alone.

Threads read and decode chunks of images a bounded way ahead, into the next batches and the next unit too. A chunk is
part of a batch, or spans several of the same unit: handing it over costs as much as decoding a small image. The calling
thread collects the decoded images of a batch. It predicts batches itself, or submits them to as many threads as the
classifier has streams, small ones several at a time, and collects the predictions in order.
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
from modeling.inference.decode_watch import DecodeWatch
from modeling.inference.decoders import Chunk, Decoders, Source
from modeling.inference.prediction import Prediction

_BESIDE_NETWORK = 0.75  # of the speed that a single decoding thread has alone
_SUBMIT_S = 0.02  # of predicting in one stream: batches that take less are submitted together
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
    watch: DecodeWatch | None = None,
) -> Iterator[BatchResult]:
    """Predictions of every batch of every unit, in order; an empty unit has one empty batch.

    Units and their sources are pulled lazily: at most two chunks ahead of what is decoded, and the next unit only
    while the present one is predicted.

    batch_size: 0: the classifier's. decode_threads: 0: as many as the first images show to be best.
    `between_batches` runs in the calling thread after every chunk and whatever was submitted together; what it raises,
    or what `units` raises, ends the iteration once the threads have stopped. `watch` receives what each thread decodes.
    """
    batch_size = batch_size or classifier.batch_size
    decoders = Decoders(classifier.preprocessing, max_pixels, decode_threads, classifier.batch_decoder, watch)
    together = _Together(batch_size, _num_together(classifier, batch_size))
    batcher = _Batcher(classifier, top_k, together, between_batches, lambda: _streams_beside(classifier, decoders))
    try:
        for pending in _decode_ahead(_chunks(units, decoders), decoders, batch_size):
            started = time.perf_counter()
            chunk = pending.chunk.result()
            batcher.add(chunk, time.perf_counter() - started, ends_unit=pending.ends_unit)
            yield from batcher.results()
        batcher.collect_all()
        yield from batcher.results()
    finally:
        batcher.close()
        decoders.close()


def predict_decoded(chunk: Chunk, classifier: Predictor, *, top_k: int) -> BatchResult:
    """The predictions of one batch of images that are decoded, in the calling thread."""
    batcher = _Batcher(classifier, top_k, _Together(len(chunk.images), 1), lambda: None, lambda: 1)
    batcher.add(chunk, 0.0, ends_unit=True)
    batcher.collect_all()
    [result] = batcher.results()
    return result


# Cutting and decoding


@dataclass(frozen=True, slots=True)
class _SourceChunk:
    """The sources of one decode call."""

    sources: Sequence[Source]
    ends_unit: bool


@dataclass(frozen=True, slots=True)
class _PendingChunk:
    """A chunk that is being decoded."""

    chunk: Future[Chunk]
    ends_unit: bool


def _chunks(units: Iterable[Iterable[Source]], decoders: Decoders) -> Iterator[_SourceChunk]:
    """Each unit cut into chunks; an empty unit is one empty chunk."""
    for unit in units:
        sources = iter(unit)
        chunk = list(islice(sources, decoders.chunk_size))
        is_last = False
        while not is_last:
            following = list(islice(sources, decoders.chunk_size))
            is_last = not following
            yield _SourceChunk(chunk, is_last)
            chunk = following


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
            waiting.append(_PendingChunk(decoders.submit(following.sources), following.ends_unit))
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

    def add(self, image: Pixels | ImageError, remarks: tuple[str, ...]) -> None:
        """The next image, or why there is none."""
        if remarks:
            self.remarks[len(self.predictions)] = remarks
        if isinstance(image, ImageError):
            self.predictions.append(Prediction.failed(image))
        else:
            self.places.append(len(self.predictions))
            self.predictions.append(None)
            self.images.append(image)

    def take_images(self) -> list[Pixels]:
        """The images to predict; they are in memory no longer than that takes."""
        images, self.images = self.images, []
        return images

    def result(self, answers: Sequence[Prediction], predict_s: float) -> BatchResult:
        """The whole batch, once its images are predicted."""
        for place, prediction in zip(self.places, answers, strict=True):
            remarks = self.remarks.get(place)
            self.predictions[place] = replace(prediction, remarks=remarks) if remarks else prediction
        predictions = [prediction for prediction in self.predictions if prediction is not None]
        assert len(predictions) == len(self.predictions)
        return BatchResult(predictions, self.seconds | {"predict": predict_s})


_Answers = list[tuple[list[Prediction], float]]
"""The predictions of several batches, and the seconds that each took."""


@dataclass(frozen=True, slots=True)
class _InFlight:
    """Batches that are being predicted, one after another."""

    batches: list[_OpenBatch]
    answers: Future[_Answers]


@dataclass(frozen=True, slots=True)
class _Together:
    """Images of a batch, and batches that are submitted at a time."""

    batch_size: int
    num_batches: int


class _Batcher:
    """Cuts decoded images into batches, submits these for prediction, and returns the results in their order."""

    def __init__(
        self,
        classifier: Predictor,
        top_k: int,
        together: _Together,
        between_batches: Callable[[], None],
        choose_streams: Callable[[], int],
    ) -> None:
        """between_batches: runs in the calling thread after every chunk and whatever was submitted together.

        choose_streams: asked for the number of streams when the first batch is complete.
        """
        self._predictor = BisectingPredictor(classifier, top_k)
        self._together = together
        self._between_batches = between_batches
        self._choose_streams = choose_streams
        self._num_streams = 0  # not known yet
        self._pool: ThreadPoolExecutor | None = None
        self._batch = _OpenBatch()
        self._begins_unit = True  # no batch of the present unit is complete
        self._complete: list[_OpenBatch] = []
        self._in_flight: deque[_InFlight] = deque()
        self._finished: deque[BatchResult] = deque()

    def add(self, chunk: Chunk, waited_s: float, *, ends_unit: bool) -> None:
        """The next images, and how long this thread waited for them; submits the batches that are complete."""
        for stage, spent_s in (*chunk.seconds.items(), ("wait", waited_s)):
            self._batch.seconds[stage] += spent_s
        self._between_batches()
        for place, image in enumerate(chunk.images):
            self._batch.add(image, chunk.remarks.get(place, ()))
            if len(self._batch.predictions) == self._together.batch_size:
                self._end_batch()
        if ends_unit and (self._batch.predictions or self._begins_unit):
            self._end_batch()
        self._begins_unit = ends_unit
        self._submit_complete()

    def results(self) -> Iterator[BatchResult]:
        """The batches that are predicted by now, in order."""
        while self._in_flight and self._in_flight[0].answers.done():
            self._collect()
        while self._finished:
            yield self._finished.popleft()

    def collect_all(self) -> None:
        """Wait for all batches."""
        while self._in_flight:
            self._collect()

    def close(self) -> None:
        """End the threads once they have finished what they are at."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _end_batch(self) -> None:
        self._complete.append(self._batch)
        self._batch, self._begins_unit = _OpenBatch(), False
        if len(self._complete) >= self._together.num_batches:
            self._submit_complete()

    def _submit_complete(self) -> None:
        """Predict the complete batches in this thread, or submit them to the next free stream.

        One submission more than there are streams is in flight, so that no stream waits for this thread.
        """
        batches, self._complete = self._complete, []
        if not batches:
            return
        images = [batch.take_images() for batch in batches]
        if any(images) and not self._num_streams:
            self._num_streams = self._choose_streams()
            self._pool = ThreadPoolExecutor(self._num_streams, "predict") if self._num_streams > 1 else None
        if self._pool is None or not any(images):
            self._in_flight.append(_InFlight(batches, _done(self._predict(images))))
            if self._pool is None:
                self._collect()
            return
        while len(self._in_flight) > self._num_streams:
            self._collect()
        self._in_flight.append(_InFlight(batches, self._pool.submit(self._predict, images)))

    def _predict(self, batches: Sequence[Sequence[Pixels]]) -> _Answers:
        answers: _Answers = []
        for images in batches:
            started = time.perf_counter()
            predictions = self._predictor.predict(images) if images else []
            answers.append((predictions, time.perf_counter() - started))
        return answers

    def _collect(self) -> None:
        """Wait for the oldest predictions."""
        oldest = self._in_flight.popleft()
        for batch, (answers, spent_s) in zip(oldest.batches, oldest.answers.result(), strict=True):
            self._finished.append(batch.result(answers, spent_s / max(self._num_streams, 1)))
        self._between_batches()


def _done(answers: _Answers) -> Future[_Answers]:
    future: Future[_Answers] = Future()
    future.set_result(answers)
    return future


def _num_together(classifier: Predictor, batch_size: int) -> int:
    """Batches to submit at a time: each submission wakes two threads, and a small network answers sooner than that."""
    stream_per_sec = classifier.images_per_sec / classifier.num_streams
    return max(1, int(_SUBMIT_S * stream_per_sec / batch_size))


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
