"""How fast an engine predicts, and its fastest batch size."""

# Shapes: B images of a batch, H height, W width, C channels.
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modeling.images.preprocessing import Preprocessing
from modeling.images.quotas import memory_left, memory_used
from modeling.inference.bisection import Predictor
from modeling.inference.engines.choice import LARGEST_BATCH
from modeling.inference.engines.engine import Engine

_LONGEST_S = 1.0  # of one batch: a worker reacts to a cancel or a drain between batches
_MEASURE_S = 0.15
_ROUND_S = 0.02  # so long that starting threads and waiting for the last one take no part that counts
_MIN_ROUNDS = 2
_SHORT_S = 0.02  # of one batch: so short ones are all measured, since that takes no time
_AS_FAST = 0.98  # of the highest speed is enough: a smaller batch has less latency and takes less memory
_MAX_SLOWER = 3  # sizes in a row that are no faster than a smaller one: then larger ones are not tried

Predict = Callable[[NDArray[np.uint8]], object]
Clock = Callable[[], float]


def compute_logits(engine: Engine, images_BHWC: NDArray[np.uint8]) -> None:
    """Compute the logits, and wait until they are in the host's memory."""
    engine.logits(images_BHWC).cpu()


def predict_batch(classifier: Predictor, images_BHWC: NDArray[np.uint8]) -> None:
    """Predict one batch."""
    classifier.predict(images_BHWC, 1)


@dataclass(slots=True, eq=False)
class _Timed:
    """A batch and what predicts it.

    clock: the seconds of one stream. calls: of each stream in one round; 0 before the first. best_s: of a call in the
    best round.
    """

    predict: Predict
    images_BHWC: NDArray[np.uint8]
    clock: Clock
    calls: int = 0
    best_s: float = math.inf

    def warm_up(self, pool: ThreadPoolExecutor, streams: int) -> None:
        """Make the first calls, which are slow, and find how many calls fill a round."""
        self.calls = 1
        self._round(pool, streams)
        if streams > 1:  # a single stream needs no thread, and one of many calls is undisturbed
            self.calls = max(1, math.ceil(_ROUND_S / max(self._round(pool, streams), 1e-6)))

    def time_round(self, pool: ThreadPoolExecutor, streams: int) -> None:
        self.best_s = min(self.best_s, self._round(pool, streams) / self.calls)

    def images_per_sec(self, streams: int) -> float:
        return streams * len(self.images_BHWC) / max(self.best_s, 1e-9)

    def _round(self, pool: ThreadPoolExecutor, streams: int) -> float:
        started = self.clock()
        if streams == 1:
            self._call(0)
        else:
            list(pool.map(self._call, range(streams)))
        return self.clock() - started

    def _call(self, stream: int) -> None:
        for _ in range(self.calls):
            self.predict(self.images_BHWC)


def images_per_sec(
    predict: Predict, images_BHWC: NDArray[np.uint8], streams: int, clock: Clock = time.perf_counter
) -> float:
    """Images per second if `streams` threads predict at the same time: the best of several rounds."""
    timed = _Timed(predict, images_BHWC, clock)
    _time_in_turns([timed], streams)
    return timed.images_per_sec(streams)


def _time_in_turns(batches: Sequence[_Timed], streams: int, seconds: float | None = None) -> None:
    """Time rounds of several batches in turns: what slows the machine for a while slows all of them.

    A batch that was timed before keeps its best round, unless processor time is the clock.
    """
    with ThreadPoolExecutor(streams) as pool:
        for each in batches:
            if each.clock is not time.perf_counter:
                each.best_s = math.inf
            if not each.calls:
                each.warm_up(pool, streams)
        begun, rounds = time.perf_counter(), 0
        while rounds < _MIN_ROUNDS or time.perf_counter() - begun < (seconds or _MEASURE_S):
            for each in batches:
                each.time_round(pool, streams)
            rounds += 1


def batch_seconds(predict: Predict, images_BHWC: NDArray[np.uint8], streams: int) -> list[float]:
    """Seconds of batches, shortest first, while all streams predict; every stream has made its first calls."""
    times: list[float] = []
    with ThreadPoolExecutor(streams) as pool:
        for _ in range(2 * streams):  # one after another: so the streams take turns
            predict(images_BHWC)
        end = time.perf_counter() + _MEASURE_S
        list(pool.map(lambda _: _time_until(end, predict, images_BHWC, times), range(streams)))
    return sorted(times)


def _time_until(end: float, predict: Predict, images_BHWC: NDArray[np.uint8], times: list[float]) -> None:
    done = 0
    while done < _MIN_ROUNDS or time.perf_counter() < end:
        started = time.perf_counter()
        predict(images_BHWC)
        times.append(time.perf_counter() - started)
        done += 1


def speeds_by_batch_size(sized: Callable[[int], Predictor], clock: Clock | None = None) -> dict[int, float]:
    """Images per second by batch size, from 1 in powers of two to 256, or as long as larger ones are short or may pay.

    A size that needs more memory than this process may still take is not tried: Linux would kill the process.

    sized: returns the classifier prepared for a batch size. clock: the seconds of one stream, which other processes do
    not lengthen; None: there is none, and sizes take no memory of their own.

    Powers of two, because engines pad to them, and because shards have such sizes: every shard size then gives the
    same batches. Each size is timed in turns with the one before it. With a clock their ratio counts: a machine that
    becomes slower meanwhile changes no order, and two sizes are in memory at most. Without one all are timed in turns
    again at the end, so that each has had the quietest moment.
    """
    speeds: dict[int, float] = {}
    timed: list[_Timed] = []
    size, streams = 1, 1
    while size <= LARGEST_BATCH:
        used = memory_used()
        try:
            classifier = sized(size)
            images_BHWC, streams = random_images(classifier.preprocessing, size), classifier.num_streams
            now = _Timed(partial(predict_batch, classifier), images_BHWC, clock or time.perf_counter)
            speeds[size] = _speed(now, timed[-1] if timed else None, speeds, streams)
        except Exception:
            if not speeds:
                raise
            break  # most likely it does not fit in memory; smaller batches do
        timed = [now] if clock else [*timed, now]
        size *= 2
        if 2 * (memory_used() - used) > memory_left():
            break  # twice the images take about twice the memory
        batch_s = size * streams / max(speeds.values())
        if batch_s > _LONGEST_S or (batch_s > _SHORT_S and not larger_may_pay(speeds)):
            break
    if clock is None:
        _time_in_turns(timed, streams, len(timed) * _MEASURE_S)
        speeds = {len(each.images_BHWC): each.images_per_sec(streams) for each in timed}
    return speeds


def _speed(now: _Timed, before: _Timed | None, speeds: dict[int, float], streams: int) -> float:
    """Images per second; with processor time those of the size before it, times the ratio of both in turns."""
    _time_in_turns([now] if before is None else [before, now], streams)
    speed = now.images_per_sec(streams)
    if before is None or now.clock is time.perf_counter:
        return speed
    return speeds[len(before.images_BHWC)] * speed / before.images_per_sec(streams)


def larger_may_pay(speeds: dict[int, float]) -> bool:
    """Whether one of the last sizes is faster than all smaller ones, by more than what counts as equal."""
    sizes = sorted(speeds)
    best = max((speeds[size] for size in sizes[:-_MAX_SLOWER]), default=0.0)
    return any(_AS_FAST * speeds[size] > best for size in sizes[-_MAX_SLOWER:])


def best_batch_size(speeds: dict[int, float]) -> int:
    """The smallest size that is about as fast as the fastest."""
    return min(size for size, speed in speeds.items() if speed >= _AS_FAST * max(speeds.values()))


def random_images(preprocessing: Preprocessing, num_images: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Random images BHWC, the same in every call."""
    return np.random.default_rng(0).integers(0, 256, (num_images, *preprocessing.shape), dtype=np.uint8)
