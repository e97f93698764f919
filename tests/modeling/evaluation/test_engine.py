"""Which engine answers an evaluation, and how far it is from the reference."""

import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from modeling.data.forms.open import open_dataset
from modeling.errors import ModelingError
from modeling.evaluation import engine as engine_module
from modeling.evaluation.engine import engine_figures, load_classifier
from modeling.evaluation.predict import predict_dataset
from modeling.evaluation.request import EvaluateRequest
from modeling.evaluation.run import evaluate_model
from modeling.inference.classifier import Classifier
from modeling.metrics.evaluation import ReferenceDifference
from modeling.registry.store import ModelStore
from tests.support.small_models import make_data, make_model


@dataclass(frozen=True)
class FakeEngine:
    """Another engine: the reference's logits, changed."""

    classifier: Classifier
    change: Callable[[torch.Tensor], torch.Tensor]
    name: str = "fake bf16"
    num_streams: int = 1

    def logits(self, images):
        return self.change(self.classifier.reference.logits(images))

    def for_batch_size(self, batch_size):
        return self


@pytest.fixture
def dataset(tmp_path):
    return open_dataset(make_data(tmp_path / "data", dark=list(range(120)), light=list(range(140, 250))))


@pytest.fixture
def classifier(tmp_path):
    return Classifier.load(make_model(tmp_path / "model", slope=0.05))


def test_jobs_and_evaluations_use_the_same_engine_which_is_measured_once(tmp_path):
    version = ModelStore(tmp_path / "store").publish(make_model(tmp_path / "staged"), "lamps")
    data = make_data(tmp_path / "data", dark=[0, 1], light=[254, 255])
    request = EvaluateRequest(version.path, data, tmp_path / "out")

    evaluated, _ = evaluate_model(request, lambda event: None)

    (path,) = version.artifacts.glob("auto-*.json")
    before = path.stat()
    again, _ = evaluate_model(request, lambda event: None)
    assert evaluated.engine.engine == again.engine.engine == json.loads(path.read_bytes())["engine"]
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_the_wanted_precision_is_used(tmp_path):
    version = ModelStore(tmp_path / "store").publish(make_model(tmp_path / "staged"), "lamps")

    assert load_classifier(version.path, "cpu", "fp32").engine.name.endswith(" fp32")
    with pytest.raises(ModelingError, match="precision int8 cannot be used here"):
        load_classifier(version.path, "cpu", "int8")


def test_a_model_that_is_not_published_is_answered_by_the_reference(tmp_path):
    model = make_model(tmp_path / "model")

    assert load_classifier(model, "cpu", "auto").engine_name == "torch fp32"
    with pytest.raises(ModelingError, match=r"precision bf16 needs a published model, and .* is none"):
        load_classifier(model, "cpu", "bf16")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_reference_itself_is_not_measured(classifier, dataset):
    predicted = predict_dataset(classifier, dataset, np.arange(dataset.num_images))

    figures = engine_figures(classifier, dataset, predicted)

    assert (figures.engine, figures.precision, figures.difference) == ("torch fp32", "fp32", None)
    assert figures.describe() == "the reference itself"


def test_another_engine_is_compared_with_the_reference_on_the_same_images(classifier, dataset):
    def flipped(logits):
        return logits.flip(1)

    other = classifier.on(FakeEngine(classifier, flipped), 7)
    predicted = predict_dataset(other, dataset, np.arange(dataset.num_images))

    figures = engine_figures(other, dataset, predicted)

    assert (figures.engine, figures.precision, figures.reference) == ("fake bf16", "bf16", "torch fp32")
    assert figures.difference is not None
    assert (figures.difference.num_images, figures.difference.same_label) == (230, 0.0)
    assert figures.difference.accuracy_change == -1.0
    assert type(figures).from_json(json.loads(json.dumps(figures.to_json()))) == figures


def test_an_engine_that_answers_alike_differs_by_nothing(classifier, dataset):
    other = classifier.on(FakeEngine(classifier, lambda logits: logits), 64)
    predicted = predict_dataset(other, dataset, np.arange(dataset.num_images))

    assert engine_figures(other, dataset, predicted).difference == ReferenceDifference(230, 1.0, 0.0, 0.0, 0.0)


def test_the_sample_is_bounded_and_always_the_same(classifier, dataset, monkeypatch):
    monkeypatch.setattr(engine_module, "SAMPLE_IMAGES", 50)
    other = classifier.on(FakeEngine(classifier, lambda logits: logits * 1.01), 64)
    predicted = predict_dataset(other, dataset, np.arange(dataset.num_images))

    first, second = (engine_figures(other, dataset, predicted).difference for _ in range(2))

    assert first == second
    assert first is not None
    assert first.num_images == 50
    assert 0 < first.mean_score_difference <= first.max_score_difference < 0.01


@pytest.mark.parametrize("num_streams", [1, 3])
def test_batches_of_any_size_on_any_number_of_streams_give_the_same_answers(classifier, dataset, num_streams):
    indices = np.arange(dataset.num_images)[::-1]
    expected = predict_dataset(classifier, dataset, indices)
    progress = []

    other = classifier.on(FakeEngine(classifier, lambda logits: logits, num_streams=num_streams), 7)
    found = predict_dataset(other, dataset, indices, on_progress=lambda *done: progress.append(done))

    assert found.answers.names == expected.answers.names
    np.testing.assert_allclose(found.answers.logits_NL, expected.answers.logits_NL, rtol=1e-5)
    assert progress[-1] == (230, 230)


def test_a_device_that_decodes_is_asked_first_and_the_cores_decode_what_it_leaves(classifier, dataset, tmp_path):
    (tmp_path / "data" / "dark" / "005.png").write_bytes(b"no image at all")
    asked = []

    def together(files, max_pixels):
        asked.append(len(files))
        white = np.full(classifier.preprocessing.shape, 255, np.uint8)
        return [None if data.startswith(b"no") or place % 2 else white for place, data in enumerate(files)]

    device = classifier.on(classifier.reference, 32, batch_decoder=together)
    found = predict_dataset(device, dataset, np.arange(dataset.num_images), hashed=True)

    assert (sorted(asked), len(found.sha256)) == ([38, 64, 64, 64], 229)
    assert [each.name for each in found.unreadable] == ["dark/005.png"]
    light = found.answers.logits_NL.argmax(axis=1) == 1
    assert light[:4].tolist() == [True, False, True, False]  # every other one is white for the device
    figures = engine_figures(device, dataset, found)
    assert figures.engine == "torch fp32, nvjpeg"
    assert figures.difference is not None
