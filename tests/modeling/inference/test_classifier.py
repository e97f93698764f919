"""A loaded model: scores, decisions and logits, with a network whose answers are known."""

import math

import numpy as np
import pytest

from modeling.inference.classifier import Classifier
from modeling.inference.prediction import Prediction
from modeling.metrics.calibration import NEVER, Calibration
from modeling.registry.card import ModelCard
from tests.support.small_models import SIDE, make_model

SLOPE = 0.05  # logit for each step of brightness
BRIGHTNESS = [0, 100, 127, 150, 255]


def images(*brightness):
    return np.stack([np.full((SIDE, SIDE, 1), value, np.uint8) for value in brightness])


def load(folder, calibration=None):
    return Classifier.load(make_model(folder, slope=SLOPE, calibration=calibration))


def calibration(temperature=2.0, accept=(0.8, 0.9), reject_below=0.55):
    return Calibration(temperature, 0.01, accept, reject_below, 100, 0.1, 0.0, 0.0)


def light(brightness, temperature=1.0):
    """The score of `light` at a brightness."""
    logit = SLOPE * (brightness - 127.5)
    return 1 / (1 + math.exp(-logit / temperature))


def test_without_calibration_scores_are_the_softmax_and_nothing_is_decided(tmp_path):
    predictions = load(tmp_path / "model").predict(images(*BRIGHTNESS), 2)

    scores = [dict(zip(each.labels, each.scores, strict=True))["light"] for each in predictions]
    assert scores == pytest.approx([light(value) for value in BRIGHTNESS], abs=1e-6)
    assert [each.labels[0] for each in predictions] == ["dark", "dark", "dark", "light", "light"]
    assert {each.decision for each in predictions} == {None}


def test_the_calibrations_temperature_softens_scores_and_keeps_their_order(tmp_path):
    raw = load(tmp_path / "raw").predict(images(*BRIGHTNESS), 2)
    calibrated = load(tmp_path / "calibrated", calibration(temperature=4.0)).predict(images(*BRIGHTNESS), 2)

    scores = [dict(zip(each.labels, each.scores, strict=True))["light"] for each in calibrated]
    assert scores == pytest.approx([light(value, 4.0) for value in BRIGHTNESS], abs=1e-6)
    assert [each.labels for each in calibrated] == [each.labels for each in raw]


def test_each_label_is_decided_by_its_own_threshold(tmp_path):
    classifier = load(tmp_path / "model", calibration(temperature=1.0, accept=(0.79, 0.9)))

    predictions = classifier.predict(images(100, 155, 175, 128), 1)

    # dark at 0.798, light at 0.798 and 0.915, light at 0.506
    assert [each.decision for each in predictions] == ["accept", "review", "accept", "reject"]


def test_a_label_that_is_never_accepted_goes_to_review_however_sure(tmp_path):
    classifier = load(tmp_path / "model", calibration(accept=(0.8, NEVER)))

    assert [each.decision for each in classifier.predict(images(255, 0), 1)] == ["review", "accept"]


def test_decisions_are_those_that_the_calibration_makes_of_the_scores(tmp_path):
    fitted = calibration(temperature=1.5, accept=(0.81, 0.93), reject_below=0.6)
    classifier = load(tmp_path / "model", fitted)

    predictions = classifier.predict(images(*range(256)), 1)

    assert [each.decision for each in predictions] == [
        fitted.decide(classifier.labels.index(each.labels[0]), each.scores[0]) for each in predictions
    ]
    assert {each.decision for each in predictions} == {"accept", "review", "reject"}


def test_the_same_batch_gives_the_same_predictions(tmp_path):
    classifier = load(tmp_path / "model", calibration())

    assert classifier.predict(images(*range(64)), 2) == classifier.predict(images(*range(64)), 2)


def test_logits_are_what_the_network_says_before_any_temperature(tmp_path):
    raw, calibrated = load(tmp_path / "raw"), load(tmp_path / "calibrated", calibration())

    logits = calibrated.logits(images(*BRIGHTNESS))

    assert (logits.dtype, logits.shape) == (np.float32, (5, 2))
    assert np.array_equal(logits, raw.logits(images(*BRIGHTNESS)))
    margins = logits[:, 1] - logits[:, 0]
    assert margins.tolist() == pytest.approx([SLOPE * (value - 127.5) for value in BRIGHTNESS], abs=1e-4)


@pytest.mark.parametrize("method", ["predict", "logits"])
def test_images_of_another_shape_or_type_are_refused(tmp_path, method):
    classifier = load(tmp_path / "model")
    arguments = (1,) if method == "predict" else ()

    for wrong in (np.zeros((1, SIDE, SIDE, 3), np.uint8), np.zeros((1, SIDE, SIDE, 1), np.float32)):
        with pytest.raises(ValueError, match=r"expected uint8 images of \(4, 4, 1\)"):
            getattr(classifier, method)(wrong, *arguments)


def test_a_network_whose_answer_is_not_finite_is_told(tmp_path):
    classifier = load(tmp_path / "model")
    classifier.network[-1].bias.fill_(float("nan"))

    with pytest.raises(FloatingPointError, match="not finite"):
        classifier.predict(images(0), 1)


def test_a_card_of_the_first_format_has_no_calibration_and_decides_nothing(tmp_path):
    folder = make_model(tmp_path / "model")
    card = ModelCard.from_bytes((folder / "model.json").read_bytes(), folder)
    old = card.to_json() | {"format_version": 1}
    del old["calibration"]
    (folder / "model.json").write_bytes(ModelCard.from_json(old).to_bytes())

    classifier = Classifier.load(folder)

    assert classifier.calibration is None
    assert classifier.predict(images(255), 1) == [Prediction(("light",), (pytest.approx(1.0),))]
