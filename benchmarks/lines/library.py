"""The library on its own, in this process: what a line is compared with."""

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import cycle, islice

from benchmarks.lines.bench import PAUSE_S
from benchmarks.lines.ideal import Machine
from modeling.images.decode import decode_image
from modeling.inference.choose_engine import load_fastest
from modeling.inference.pipeline import predict_units
from modeling.inference.push_predictor import prepare_for_pushes
from modeling.registry.store import ModelVersion

TOP_K = 5
MEASURE_S = 2.0


class Library:
    """A model, and the images that are pushed."""

    def __init__(self, version: ModelVersion, images: list[bytes]) -> None:
        self.classifier = load_fastest(version)
        self._predictor = prepare_for_pushes(self.classifier)
        self._images = images

    def one_at_a_time_ms(self, count: int) -> float:
        """Median time to decode and predict one image with the graph for one, while nothing else runs."""
        times = []
        for image in islice(cycle(self._images), count):
            started = time.perf_counter()
            pixels = decode_image(image, self.classifier.preprocessing)
            self._predictor.predict_alone(pixels, TOP_K)
            times.append(time.perf_counter() - started)
            time.sleep(PAUSE_S)
        return statistics.median(times) * 1000

    def images_per_sec(self, seconds: float, rate: float) -> float:
        """Of the pipeline that jobs use, with images in memory, for about so many seconds."""
        images = list(islice(cycle(self._images), max(200, round(seconds * rate))))
        sources = [partial(_same, image) for image in images]
        started = time.perf_counter()
        good = sum(
            prediction.ok
            for result in predict_units([sources], self.classifier, top_k=TOP_K)
            for prediction in result.predictions
        )
        assert good == len(images), f"{len(images) - good} images failed"
        return good / (time.perf_counter() - started)

    def machines(self) -> tuple[Machine, Machine]:
        """This machine for the ideal simulation: an image a core; and the same where an image alone has all cores."""
        largest = self._predictor.sizes[-1]
        with ThreadPoolExecutor(self._predictor.num_streams) as pool:
            sizes = {size: self._batch_ms(pool, size) for size in self._predictor.sizes}
        batch_ms = tuple(sizes[self._predictor.size_for(number)] for number in range(1, largest + 1))
        cores = Machine(self._predictor.num_streams, batch_ms)
        return cores, Machine(cores.servers, batch_ms, self.one_at_a_time_ms(40))

    def _batch_ms(self, pool: ThreadPoolExecutor, size: int) -> float:
        """Median time to decode and predict a batch, with all streams at it."""
        calls = [list(islice(cycle(self._images), size))] * self._predictor.num_streams
        return statistics.median(time_ms for times in pool.map(self._repeat, calls) for time_ms in times)

    def _repeat(self, images: list[bytes]) -> list[float]:
        end = time.perf_counter() + MEASURE_S
        times: list[float] = []
        while not times or time.perf_counter() < end:
            started = time.perf_counter()
            pixels = [decode_image(image, self.classifier.preprocessing) for image in images]
            self._predictor.predict(pixels, TOP_K)
            times.append((time.perf_counter() - started) * 1000)
        return times


def _same(image: bytes) -> bytes:
    return image
