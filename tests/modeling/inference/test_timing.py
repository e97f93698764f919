import threading
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from modeling.images.preprocessing import Preprocessing
from modeling.inference import timing
from modeling.inference.timing import (
    batch_seconds,
    best_batch_size,
    images_per_sec,
    random_images,
    speeds_by_batch_size,
)
from tests.support.fakes import FakeClassifier


class Clock:
    """Seconds that only predicting lets pass."""

    def __init__(self):
        self.now_s = 0.0
        self.lock = threading.Lock()

    def __call__(self):
        return self.now_s

    def classifier(self, speeds, size, **options):
        """A classifier that takes its time by this clock; `speeds`: images per second by batch size."""

        def spend(batch):
            with self.lock:
                self.now_s += size / speeds[size]

        return FakeClassifier(before=spend, **options)


def searched(speeds, **options):
    clock = Clock()
    return speeds_by_batch_size(lambda size: clock.classifier(speeds, size, **options), clock)


def test_the_smallest_batch_that_is_about_as_fast_as_the_fastest_is_best():
    assert best_batch_size({8: 97.0, 16: 98.5, 32: 100.0, 64: 99.0}) == 16
    assert best_batch_size({1: 98.0, 2: 100.0}) == 1
    assert best_batch_size({8: 50.0}) == 8


def test_batches_are_tried_in_powers_of_two_from_one_up_to_the_largest():
    speeds = {1 << power: 1000.0 * 1.2**power for power in range(9)}

    assert searched(speeds) == pytest.approx(speeds)
    assert list(speeds)[-1] == 256


def test_larger_batches_are_not_tried_once_three_in_a_row_were_not_faster():
    assert list(searched(dict.fromkeys((1, 2, 4, 8, 16), 100.0))) == [1, 2, 4, 8]
    assert list(searched({1: 90.0, 2: 100.0, 4: 101.0, 8: 99.0, 16: 101.5, 32: 200.0})) == [1, 2, 4, 8, 16]
    assert list(searched({1: 90.0, 2: 88.0, 4: 87.0, 8: 100.0, 16: 90.0, 32: 90.0, 64: 90.0})) == [
        1, 2, 4, 8, 16, 32, 64
    ]  # fmt: skip


def test_all_sizes_are_tried_of_a_network_whose_batches_are_short():
    assert list(searched({1 << power: 1e6 for power in range(9)})) == [1, 2, 4, 8, 16, 32, 64, 128, 256]


def test_without_a_clock_of_its_own_each_size_counts_in_its_quietest_moment(monkeypatch):
    clock, calls = Clock(), Counter()
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=clock))
    monkeypatch.setattr(timing, "_MEASURE_S", 0.0)

    def sized(size):
        def spend(batch):
            calls[size] += 1
            clock.now_s += size / 1000 if calls[4] > 3 else 0.05  # disturbed until the sizes are timed again

        return FakeClassifier(before=spend, max_batch=4)

    assert speeds_by_batch_size(sized) == pytest.approx({1: 1000.0, 2: 1000.0, 4: 1000.0})


def test_a_batch_that_would_take_too_long_is_not_tried():
    assert list(searched({1: 10.0, 2: 20.0, 4: 40.0, 8: 50.0, 16: 60.0, 32: 70.0})) == [1, 2, 4, 8, 16, 32]
    assert list(searched({1: 2.0, 2: 4.0, 4: 4.0, 8: 4.0})) == [1, 2, 4]


def test_a_machine_that_becomes_slower_meanwhile_changes_no_order():
    clock, speeds = Clock(), {1: 1000.0, 2: 1500.0, 4: 2000.0, 8: 2000.0, 16: 2000.0, 32: 2000.0}

    def sized(size):
        classifier = clock.classifier(slowed, size)
        for each in speeds:
            slowed[each] *= 0.7  # with each size that is prepared, all become slower
        return classifier

    slowed = dict(speeds)
    found = speeds_by_batch_size(sized, clock)

    assert found == pytest.approx({size: speed * 0.7 for size, speed in speeds.items()})
    assert best_batch_size(found) == 4


def test_sizes_end_where_memory_does():
    assert list(speeds_by_batch_size(lambda _: FakeClassifier(max_batch=4))) == [1, 2, 4]
    with pytest.raises(MemoryError):
        speeds_by_batch_size(lambda _: FakeClassifier(max_batch=0))


def test_a_size_that_would_need_more_memory_than_is_left_is_not_tried(monkeypatch):
    used = iter([0, 10, 10, 30, 30, 70])  # before and after each size: 10, 20 and 40 more
    monkeypatch.setattr(timing, "memory_used", lambda: next(used))
    monkeypatch.setattr(timing, "memory_left", lambda: 50)

    assert list(searched(dict.fromkeys((1, 2, 4, 8), 1e6))) == [1, 2, 4]


def test_the_times_of_batches_are_sorted_and_of_all_streams_after_their_first_calls():
    calls = []

    times = batch_seconds(lambda images: calls.append(len(images)), random_images(Preprocessing("L", 4, 4), 8), 3)

    assert times == sorted(times)
    assert len(times) == len(calls) - 2 * 3
    assert len(times) >= 3
    assert set(calls) == {8}


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
        if size == 4:
            raise RuntimeError("no memory for this graph")
        return FakeClassifier()

    assert list(speeds_by_batch_size(sized)) == [1, 2]
