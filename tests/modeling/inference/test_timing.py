import threading

import numpy as np
import pytest

from modeling.images.preprocessing import Preprocessing
from modeling.inference import timing
from modeling.inference.timing import best_batch_size, images_per_sec, random_images, speeds_by_batch_size
from tests.support.fakes import FakeClassifier


def test_the_smallest_batch_that_is_about_as_fast_as_the_fastest_is_best():
    assert best_batch_size({8: 94.0, 16: 96.0, 32: 100.0, 64: 99.0}) == 16
    assert best_batch_size({8: 50.0}) == 8


def test_batches_are_tried_in_powers_of_two_up_to_the_largest():
    speeds = speeds_by_batch_size(lambda _: FakeClassifier())

    assert list(speeds) == [8, 16, 32, 64, 128, 256]
    assert all(speed > 0 for speed in speeds.values())


def test_a_batch_that_would_take_too_long_is_not_tried(monkeypatch):
    monkeypatch.setattr(timing, "images_per_sec", lambda answer, images, streams: 50.0)

    speeds = speeds_by_batch_size(lambda _: FakeClassifier(num_streams=2))

    assert list(speeds) == [8, 16]  # two streams with batches of 32 take 64 / 50 s


def test_sizes_end_where_memory_does(monkeypatch):
    assert list(speeds_by_batch_size(lambda _: FakeClassifier(max_batch=32))) == [8, 16, 32]
    with pytest.raises(MemoryError):
        speeds_by_batch_size(lambda _: FakeClassifier(max_batch=4))


def test_all_streams_are_at_work_while_the_clock_runs(monkeypatch):
    monkeypatch.setattr(timing, "_MEASURE_S", 0.0)
    together = threading.Barrier(3, timeout=10)  # breaks, and so fails the test, unless three ask at once

    assert images_per_sec(lambda images: together.wait(), random_images(Preprocessing("L", 4, 4), 8), 3) > 0


def test_random_images_are_the_same_whenever_asked_for():
    first, again = (random_images(Preprocessing("RGB", 6, 4), 3) for _ in range(2))

    assert first.shape == (3, 6, 4, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)


def test_a_size_that_an_engine_cannot_be_fitted_to_ends_the_trials():
    def sized(size):
        if size == 64:
            raise RuntimeError("no memory for this graph")
        return FakeClassifier()

    assert list(speeds_by_batch_size(sized)) == [8, 16, 32]
