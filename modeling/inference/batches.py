"""Decoded images gathered into batches, predicted by one stream or several, and put back in their groups' order."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from modeling.errors import ImageError
from modeling.images.pixels import Pixels
from modeling.inference.bisection import BisectingPredictor, Predictor
from modeling.inference.prediction import Prediction


@dataclass(frozen=True, slots=True)
class GroupResult:
    """One group's predictions in order, and the seconds that each stage took.

    `wait` (for decoded images) is the calling thread's. `read`, `decode` and `predict` are the time of several threads
    divided by their number, so that one second of any stage is a second of everything that there is for it.
    """

    predictions: list[Prediction]
    seconds: dict[str, float]


@dataclass(slots=True)
class _Group:
    """A group of which not every prediction is there yet."""

    predictions: list[Prediction | None] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("read", "decode", "wait", "predict"), 0.0))
    ended: bool = False
    num_flying: int = 0

    def result(self) -> GroupResult:
        predictions = [prediction for prediction in self.predictions if prediction is not None]
        assert len(predictions) == len(self.predictions)
        return GroupResult(predictions, self.seconds)


@dataclass(frozen=True, slots=True)
class _Flight:
    """A batch being predicted, and where its predictions go."""

    group: _Group
    places: list[int]
    answer: "Future[tuple[list[Prediction], float]]"


class Batcher:
    """Fills batches of one group's images, has them predicted, and hands on the groups that are whole, in order."""

    def __init__(
        self,
        classifier: Predictor,
        top_k: int,
        batch_size: int,
        between_batches: Callable[[], None],
        choose_streams: Callable[[], int],
    ) -> None:
        """between_batches: runs in the calling thread after every chunk and every batch.

        choose_streams: asked for the number of streams when the first batch is filled.
        """
        self._predictor = BisectingPredictor(classifier, top_k)
        self._batch_size = batch_size
        self._between_batches = between_batches
        self._choose_streams = choose_streams
        self._num_streams = 0  # not known yet
        self._pool: ThreadPoolExecutor | None = None
        self._groups = deque([_Group()])  # the last one is being filled
        self._flights: deque[_Flight] = deque()
        self._images: list[Pixels] = []  # of the batch being filled
        self._places: list[int] = []

    def add(self, images: Sequence[Pixels | ImageError], seconds: Mapping[str, float]) -> None:
        """The next images of the group being filled, and what they took so far."""
        group = self._groups[-1]
        for stage, spent_s in seconds.items():
            group.seconds[stage] += spent_s
        self._between_batches()
        for image in images:
            if isinstance(image, ImageError):
                group.predictions.append(Prediction.failed(image))
                continue
            self._places.append(len(group.predictions))
            group.predictions.append(None)
            self._images.append(image)
            if len(self._images) == self._batch_size:
                self._launch()

    def end_group(self) -> None:
        """No more images come for this group; the next one starts afresh."""
        if self._images:
            self._launch()
        self._groups[-1].ended = True
        self._groups.append(_Group())

    def results(self) -> Iterator[GroupResult]:
        """The groups that are whole by now, in order."""
        while self._flights and self._flights[0].answer.done():
            self._land()
        while self._groups[0].ended and not self._groups[0].num_flying:
            yield self._groups.popleft().result()

    def land_all(self) -> None:
        """Wait for all batches."""
        while self._flights:
            self._land()

    def close(self) -> None:
        """End the threads once they have finished the batches that they are at."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _launch(self) -> None:
        """Have the filled batch predicted: at once by this thread, or by the next free stream.

        One batch more than there are streams is on its way, so that none of them waits for this thread.
        """
        if not self._num_streams:
            self._num_streams = self._choose_streams()
            self._pool = ThreadPoolExecutor(self._num_streams, "predict") if self._num_streams > 1 else None
        group, images, places = self._groups[-1], self._images, self._places
        self._images, self._places = [], []
        group.num_flying += 1
        if self._pool is None:
            answer: Future[tuple[list[Prediction], float]] = Future()
            self._flights.append(_Flight(group, places, answer))
            answer.set_result(self._predict(images))
            self._land()
            return
        while len(self._flights) > self._num_streams:
            self._land()
        self._flights.append(_Flight(group, places, self._pool.submit(self._predict, images)))

    def _predict(self, images: Sequence[Pixels]) -> tuple[list[Prediction], float]:
        started = time.perf_counter()
        return self._predictor.predict(images), time.perf_counter() - started

    def _land(self) -> None:
        """Take the oldest batch's predictions."""
        flight = self._flights.popleft()
        predictions, spent_s = flight.answer.result()
        for place, prediction in zip(flight.places, predictions, strict=True):
            flight.group.predictions[place] = prediction
        flight.group.num_flying -= 1
        flight.group.seconds["predict"] += spent_s / self._num_streams
        self._between_batches()
