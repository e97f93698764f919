"""Single images and small batches are predicted with the rows of jobs, or it is said that they are not."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import numpy as np
import pytest
import torch

from modeling.inference.classifier import Classifier
from modeling.inference.engines.openvino_engine import OpenVinoEngine
from modeling.inference.push_predictor import prepare_for_pushes, useful_sizes
from modeling.networks.onnx_graph import write_graph
from tests.support.small_models import make_random_model, random_images


class FakeEngine:
    """Logits from an image's mean; batches of sizes in `other` have other last bits.

    refused: raises at an image of this brightness. together: the engine on all cores, if it is another one.
    """

    name = "fake fp32"

    def __init__(self, *, other=(), num_streams=2, refused=None, together=None, by_place=False):
        self.other = other
        self.num_streams = num_streams
        self.refused = refused
        self.together = together
        self.by_place = by_place
        self.sizes = []

    def logits(self, images, /):
        self.sizes.append(len(images))
        means = images.reshape(len(images), -1).mean(axis=1).astype(np.float32) / 255
        if self.refused is not None and (images == self.refused).all(axis=(1, 2, 3)).any():
            raise ValueError("cannot take it")
        means = means + np.float32(1e-6) * (len(images) in self.other)
        means = means + np.arange(len(images), dtype=np.float32) * np.float32(1e-6) * self.by_place
        return torch.from_numpy(np.stack([means, 1 - means, means * 0.5], axis=1))

    def for_batch_size(self, batch_size) -> Self:
        return self

    def on_all_cores(self):
        return self.together or self


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return Classifier.load(make_random_model(tmp_path_factory.mktemp("pushes") / "model"))


@pytest.fixture(scope="module")
def prepared(model, tmp_path_factory):
    """OpenVINO's engine with two streams, whose best batch is 4."""
    graph = tmp_path_factory.mktemp("graph") / "network.onnx"
    write_graph(model.network, model.card, graph)
    engine = OpenVinoEngine(graph, "fp32", num_streams=2)
    classifier = model.on(engine.for_batch_size(4), 4)
    return classifier, prepare_for_pushes(classifier)


def with_fake(model, engine, batch_size=8):
    return prepare_for_pushes(model.on(engine, batch_size))


def test_pushed_images_have_the_rows_of_a_job_in_every_size_that_says_so(prepared):
    classifier, predictor = prepared
    images = random_images(4)
    rows = classifier.predict(images, 3)

    assert predictor.sizes[0] == 1
    assert predictor.sizes[-1] == 4
    assert 4 in predictor.equal
    for num_images in (1, 2, 3, 4):
        found = predictor.predict(list(images[:num_images]), 3)
        if predictor.engine_for(num_images) is None:
            assert found == rows[:num_images]
        else:
            assert [each.labels for each in found] == [each.labels for each in rows[:num_images]]


def test_one_image_on_all_cores_has_the_row_of_the_smallest_size(prepared):
    _, predictor = prepared

    for image in random_images(4):
        assert [predictor.predict_alone(image, 3)] == predictor.predict([image], 3)


def test_what_is_prepared_is_described(prepared):
    classifier, predictor = prepared

    assert set(predictor.batch_ms) == set(predictor.sizes)
    assert min(predictor.batch_ms.values()) > 0
    assert predictor.alone_ms > 0
    assert (predictor.num_streams, predictor.labels) == (2, classifier.labels)
    assert predictor.preprocessing is classifier.preprocessing
    assert predictor.alone_streams in (1, 2)


def test_a_batch_is_padded_to_the_smallest_size_that_holds_it(model):
    engine = FakeEngine()
    predictor = with_fake(model, engine)
    predictor.sizes, predictor._by_size = (1, 8), {size: predictor._by_size[size] for size in (1, 8)}
    engine.sizes.clear()

    found = [predictor.predict(list(random_images(count)), 1) for count in (0, 1, 2, 8, 9)]

    assert [len(each) for each in found] == [0, 1, 2, 8, 9]
    assert engine.sizes == [1, 8, 8, 8, 1]


def test_sizes_with_other_rows_are_named(model):
    predictor = with_fake(model, FakeEngine(other=(1,)))

    assert predictor.equal == frozenset(predictor.sizes) - {1}
    assert predictor.engine_for(1) == "fake fp32, batch 1"
    assert predictor.engine_for(8) is None
    assert predictor.engine_for(100) is None


def test_where_an_images_place_changes_its_row_no_size_is_equal(model):
    predictor = with_fake(model, FakeEngine(by_place=True))

    assert predictor.equal <= {1}
    assert predictor.engine_for(8) == "fake fp32, batch 8"


def test_rows_of_a_job_whose_images_another_decoder_decodes_are_others(model):
    classifier = model.on(FakeEngine(), 1, batch_decoder=lambda files, max_pixels: [None] * len(files))

    assert prepare_for_pushes(classifier).engine_for(1) == "fake fp32"


def test_all_cores_together_are_not_used_if_they_change_a_bit(model, caplog):
    together = FakeEngine(other=(1,), num_streams=1)
    predictor = with_fake(model, FakeEngine(together=together))
    together.sizes.clear()

    predictor.predict_alone(random_images(1)[0], 1)

    assert together.sizes == []
    assert predictor.alone_streams == 1
    assert "computes other logits with all cores together" in caplog.text


def test_all_cores_together_are_used_if_they_are_faster(model):
    class Slow(FakeEngine):
        def logits(self, images, /):
            threading.Event().wait(0.002)
            return super().logits(images)

    predictor = with_fake(model, Slow(together=FakeEngine(num_streams=1)), batch_size=2)

    assert predictor.alone_streams == 2


@pytest.mark.parametrize("others", [0, 1, 5, 12])
def test_an_image_that_fails_costs_its_neighbours_nothing(model, others):
    engine = FakeEngine()
    predictor = with_fake(model, engine)
    images = list(random_images(others))
    expected = [predictor.predict([image], 3)[0] for image in images]
    bad = np.full(model.preprocessing.shape, 77, np.uint8)
    engine.refused = 77

    found = predictor.predict([*images, bad], 3)

    assert found[:-1] == expected
    assert found[-1].error_code == "predict_failed"
    assert predictor.predict_alone(bad, 1).error_code == "predict_failed"


def test_what_is_no_images_fault_is_raised(model):
    engine = FakeEngine()
    predictor = with_fake(model, engine)
    engine.logits = lambda images: (_ for _ in ()).throw(RuntimeError("the device is gone"))

    with pytest.raises(RuntimeError, match="the device is gone"):
        predictor.predict(list(random_images(2)), 1)


def test_many_threads_get_the_answers_to_their_own_images(prepared):
    _, predictor = prepared
    images = random_images(8)
    expected = [predictor.predict([image], 2) for image in images]

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda place: predictor.predict([images[place % 8]], 2), range(64)))
        alone = list(pool.map(lambda place: [predictor.predict_alone(images[place % 8], 2)], range(64)))

    assert found == alone == expected * 8


@pytest.mark.parametrize(
    ("batch_s", "sizes"),
    [
        ({1: 1.0}, (1,)),
        ({1: 1.0, 2: 2.0, 4: 4.0}, (1, 2, 4)),
        ({1: 1.0, 2: 1.0, 4: 1.01, 8: 1.02, 16: 2.0}, (1, 8, 16)),
        ({1: 3.0, 2: 2.0, 4: 2.1}, (1, 4)),
    ],
)
def test_a_size_is_used_if_its_batch_is_clearly_shorter_than_the_next(batch_s, sizes):
    assert useful_sizes(batch_s) == sizes
