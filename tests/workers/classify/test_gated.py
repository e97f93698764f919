"""Shards leave the device to pushed images between batches, and their rows stay the same to the bit."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest

from modeling.inference.pipeline import predict_units
from tests.support.fakes import FakeClassifier
from tests.support.images import grey_png
from workers.classify.gated import GatedPredictor, shorter_batches
from workers.device_gate import DeviceGate


@dataclass
class FakePrepared:
    """A classifier prepared for pushes: batches of 1, 2, 4 and 8 take 10 ms an image."""

    classifier: FakeClassifier
    equal: frozenset[int] = frozenset({1, 2, 4, 8})
    sizes: tuple[int, ...] = (1, 2, 4, 8)
    batch_ms: dict[int, float] = field(default_factory=lambda: {1: 10.0, 2: 20.0, 4: 40.0, 8: 80.0})

    def in_size(self, size):
        def predict(images, top_k):
            assert len(images) <= size
            return self.classifier.predict(images, top_k)

        return SimpleNamespace(predict=predict)


def slow_classifier():
    return FakeClassifier(batch_size=8, images_per_sec=100.0)


def gated(classifier, gate, **changes):
    return GatedPredictor(classifier, gate, lambda: FakePrepared(classifier, **changes))


def run(predictor):
    sources = [[lambda value=value: grey_png(value) for value in range(start, start + 19)] for start in (0, 100)]
    return [
        prediction
        for result in predict_units(sources, predictor, top_k=2, decode_threads=2)
        for prediction in result.predictions
    ]


def batch_sizes(classifier):
    return [len(batch) for batch in classifier.batches]


def test_batches_are_shorter_while_a_line_is_open_and_the_rows_are_the_same():
    gate, plain, shortened = DeviceGate(2), slow_classifier(), slow_classifier()
    without = run(gated(plain, gate))
    gate.line_opened()
    with_line = run(gated(shortened, gate))

    assert with_line == without
    assert batch_sizes(plain) == [8, 8, 3, 8, 8, 3]
    assert batch_sizes(shortened) == [4, 4, 4, 4, 3, 4, 4, 4, 4, 3]


def test_batches_are_whole_again_when_the_line_is_closed():
    gate, classifier = DeviceGate(2), slow_classifier()
    gate.line_opened()
    predictor = gated(classifier, gate)
    gate.line_closed()

    predictor.predict(np.zeros((8, 2, 2, 1), np.uint8), 1)

    assert batch_sizes(classifier) == [8]


@pytest.mark.parametrize("equal", [frozenset(), frozenset({8})])
def test_a_batch_stays_whole_if_no_shorter_one_gives_the_same_rows(equal):
    gate, classifier = DeviceGate(2), slow_classifier()
    gate.line_opened()

    run(gated(classifier, gate, equal=equal))

    assert batch_sizes(classifier) == [8, 8, 3, 8, 8, 3]


@pytest.mark.parametrize("images_per_sec", [0.0, 1000.0])
def test_nothing_is_prepared_for_batches_that_are_short(images_per_sec):
    gate = DeviceGate(2)
    gate.line_opened()
    classifier = FakeClassifier(batch_size=8, images_per_sec=images_per_sec)

    predictor = GatedPredictor(classifier, gate, lambda: pytest.fail("prepared"))
    run(predictor)

    assert batch_sizes(classifier) == [8, 8, 3, 8, 8, 3]


def test_the_largest_short_size_is_taken_or_the_smallest_of_all():
    fake = FakePrepared(slow_classifier())

    assert shorter_batches(fake)[0] == 4
    fake.equal = frozenset({1, 2, 8})
    assert shorter_batches(fake)[0] == 2
    fake.batch_ms = dict.fromkeys(fake.sizes, 60.0)
    assert shorter_batches(fake)[0] == 1
    fake.equal = frozenset({8})
    assert shorter_batches(fake) is None


def test_a_failing_image_costs_its_batch_mates_nothing_in_pieces_either():
    gate, classifier = DeviceGate(2), slow_classifier()
    expected = run(gated(classifier, gate))
    classifier.refused = 5
    gate.line_opened()

    found = run(gated(classifier, gate))

    assert found[5].error_code == "predict_failed"
    assert found[:5] + found[6:] == expected[:5] + expected[6:]


def test_a_batch_holds_slots_of_the_gate_while_it_is_predicted():
    gate, free = DeviceGate(2), []
    classifier = FakeClassifier(before=lambda brightness: free.append(gate._free))

    run(GatedPredictor(classifier, gate, lambda: pytest.fail("prepared")))  # one stream: the whole device

    assert set(free) == {0}
    assert gate._free == 2
    assert gate.bound_ms > 0


def test_what_does_not_fit_in_memory_is_remembered_on_the_classifier():
    classifier = FakeClassifier(max_batch=2, batch_size=8)
    predictor = GatedPredictor(classifier, DeviceGate(2), lambda: pytest.fail("prepared"))

    run(predictor)

    assert predictor.largest_batch == classifier.largest_batch == 2
