"""Decisions, and the calibration in a model's card."""

import numpy as np
import pytest

from modeling.errors import ModelFormatError
from modeling.metrics.calibration import NEVER, Calibration

CALIBRATION = Calibration(1.5, 0.01, (0.9, 0.3, NEVER), 0.3, 200, 0.1, 0.02, 0.005)


def test_many_images_are_decided_as_each_alone():
    labels = np.repeat([0, 1, 2], 101)
    scores = np.tile(np.linspace(0, 1, 101), 3)

    decisions = CALIBRATION.decide_all(labels, scores)

    assert decisions == [CALIBRATION.decide(*pair) for pair in zip(labels.tolist(), scores.tolist(), strict=True)]
    assert [decisions.count(name) for name in ("accept", "review", "reject")] == [11 + 71, 60 + 71, 90]


def test_a_threshold_is_reached_by_a_score_of_just_that():
    assert CALIBRATION.decide_all(np.array([0, 0]), np.array([0.9, np.nextafter(0.9, 0)])) == ["accept", "review"]


def test_no_score_reaches_the_threshold_that_means_never():
    assert CALIBRATION.decide(2, 1.0) == "review"


def test_no_images_have_no_decisions():
    assert CALIBRATION.decide_all(np.empty(0, np.int64), np.empty(0)) == []


def test_a_calibration_survives_json():
    assert Calibration.from_json(CALIBRATION.to_json(), 3) == CALIBRATION


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"temperature": 0}, "calibration: temperature: Input should be greater than 0, not 0"),
        ({"temperature": float("nan")}, "temperature: Input should be a finite number, not nan"),
        ({"accept": [0.9, 0.3, float("inf")]}, r"accept\.2: Input should be a finite number, not inf"),
        ({"accept": [0.9]}, r"must accept each of 3 labels, not \(0\.9,\)"),
        ({"accept": "0.9"}, "accept: Input should be a valid array, not '0.9'"),
        ({"review_rate": True}, "review_rate: Input should be a valid number, not True"),
        ({"epochs": 3}, "epochs: the key is unknown"),
    ],
)
def test_a_calibration_that_cannot_be_is_refused(change, told):
    with pytest.raises(ModelFormatError, match=told):
        Calibration.from_json(CALIBRATION.to_json() | change, 3)
