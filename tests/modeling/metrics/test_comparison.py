"""Two models' answers to the same images."""

import json
from dataclasses import replace

import numpy as np
import pytest

from modeling.errors import ModelingError
from modeling.metrics.answers import Answers
from modeling.metrics.calibration import Calibration
from modeling.metrics.comparison import ClassDifference, Flip, ModelFigures, compare
from tests.support.answers import LABELS, answers_of

SURE = {0: [0.8, 0.1, 0.1], 1: [0.1, 0.8, 0.1], 2: [0.1, 0.1, 0.8]}
TARGETS = [0, 0, 1, 1, 1, 2]
A = answers_of(TARGETS, [SURE[index] for index in (0, 0, 1, 1, 2, 0)])  # 4 right
B = answers_of(TARGETS, [SURE[index] for index in (0, 1, 1, 1, 1, 2)])  # 5 right


def calibration(*accept, reject_below=0.5):
    return Calibration(1.0, 0.1, accept, reject_below, 10, 0.0, 0.0, 0.0)


def reordered(answers, order):
    """The same answers of a model that has its labels in another order."""
    labels = tuple(answers.labels[index] for index in order)
    targets = np.array([order.index(target) for target in answers.targets_N.tolist()])
    return Answers(labels, answers.names, targets, answers.logits_NL[:, order])


def test_flipped_images_are_named_with_both_answers():
    comparison = compare(A, B, None, None)

    assert comparison.worse == (Flip(1, "1.png", "ant", "ant", "bee"),)
    assert comparison.better == (Flip(4, "4.png", "bee", "cow", "bee"), Flip(5, "5.png", "cow", "ant", "cow"))
    assert comparison.num_both_wrong == 0


def test_figures_of_both_and_of_every_label_are_counted():
    comparison = compare(A, B, None, None)

    assert comparison.num_images == 6
    assert comparison.a == ModelFigures(4, 4 / 6, comparison.a.accuracy_interval, None, None, None, None)
    assert comparison.b == ModelFigures(5, 5 / 6, comparison.b.accuracy_interval, None, None, None, None)
    assert comparison.b.accuracy_interval == pytest.approx((0.436497, 0.969947), abs=1e-6)
    assert comparison.classes == (
        ClassDifference("ant", 2, 2, 1),
        ClassDifference("bee", 3, 2, 3),
        ClassDifference("cow", 1, 0, 1),
    )
    assert comparison.p == 1.0  # 1 against 2


def test_review_rates_are_those_of_each_models_own_thresholds():
    strict, lenient = calibration(0.7, 0.9, 0.9), calibration(0.7, 0.7, 0.9, reject_below=0.85)

    comparison = compare(A, B, strict, lenient)

    assert comparison.a == ModelFigures(4, 4 / 6, comparison.a.accuracy_interval, 3, 1, 0.5, 0.0)
    assert comparison.b == ModelFigures(5, 5 / 6, comparison.b.accuracy_interval, 5, 1, 0.0, 1 / 6)
    assert comparison.review_change == -0.5
    assert compare(A, B, strict, None).review_change is None


def test_the_order_of_the_labels_does_not_matter():
    thresholds = calibration(0.7, 0.7, 0.9)
    turned = calibration(0.9, 0.7, 0.7)

    assert compare(A, reordered(B, [2, 0, 1]), thresholds, turned) == compare(A, B, thresholds, thresholds)


def test_swapping_the_models_swaps_everything_but_the_chance():
    one, other = compare(A, B, None, None), compare(B, A, None, None)

    assert (other.a, other.b, other.p) == (one.b, one.a, one.p)
    assert [flip.name for flip in other.better] == [flip.name for flip in one.worse]


@pytest.mark.parametrize(
    ("num_worse", "num_better", "expected"),
    [
        (0, 0, "birds@1 and birds@2 are right on the same images"),
        (3, 5, "no difference that these 700 images can show (p = 0.73)"),
        (4, 16, "birds@2 is better: 12 more right of 700, p = 0.012"),
        (16, 4, "birds@1 is better: 12 more right of 700, p = 0.012"),
        (0, 60, "birds@2 is better: 60 more right of 700, p < 0.0001"),
    ],
)
def test_the_conclusion_is_one_sentence(num_worse, num_better, expected):
    right = np.ones(700, bool)
    a, b = right.copy(), right.copy()
    b[:num_worse], a[num_worse : num_worse + num_better] = False, False

    def answers(right_all):
        return answers_of([0] * 700, [SURE[0] if right else SURE[1] for right in right_all])

    assert compare(answers(a), answers(b), None, None).conclusion("birds@1", "birds@2") == expected


def test_the_document_is_json_with_its_conclusion():
    document = json.loads(json.dumps(compare(A, B, None, None).to_json(), allow_nan=False))

    assert document["conclusion"] == "no difference that these 6 images can show (p = 1)"
    assert document["worse"] == [
        {"index": 1, "name": "1.png", "label": "ant", "predicted_a": "ant", "predicted_b": "bee"}
    ]


def test_an_answer_that_only_one_model_knows_is_wrong():
    dogs = np.full((len(TARGETS), 1), -9, dtype=np.float32)
    dogs[0] = 9
    other = Answers(("dog", *LABELS), B.names, B.targets_N + 1, np.hstack([dogs, B.logits_NL]))

    comparison = compare(A, other, None, None)

    assert comparison.worse == (Flip(0, "0.png", "ant", "ant", "dog"), Flip(1, "1.png", "ant", "ant", "bee"))
    assert comparison.better == compare(A, B, None, None).better
    assert comparison.classes == (
        ClassDifference("ant", 2, 2, 0),
        *compare(A, B, None, None).classes[1:],
    )


@pytest.mark.parametrize(
    "other", [replace(B, names=("x.png", *B.names[1:])), replace(B, targets_N=np.array([1, 0, 1, 1, 1, 2]))]
)
def test_answers_to_other_images_cannot_be_compared(other):
    with pytest.raises(ModelingError, match="only on the same images"):
        compare(A, other, None, None)


def test_labels_are_those_of_the_first_model():
    assert compare(reordered(A, [2, 1, 0]), B, None, None).classes[0].label == LABELS[2]
