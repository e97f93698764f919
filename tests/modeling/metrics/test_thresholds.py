"""Temperature and thresholds: by hand on a few images, and on fresh draws from a known distribution."""

import math

import numpy as np
import pytest

from modeling.errors import DataError, ModelingError
from modeling.metrics.answers import Answers, Scored
from modeling.metrics.calibration import NEVER, Calibration
from modeling.metrics.evaluation import NothingAccepted
from modeling.metrics.figures import evaluate_answers
from modeling.metrics.thresholds import fit_calibration, fit_temperature, num_needed, why_nothing_accepted
from tests.support.answers import LABELS, answers_of, drawn


def two_labels(margins, right):
    """Answers of two labels whose logits differ by `margins`; where `right` is false the other label is true."""
    logits = np.stack([np.asarray(margins, np.float32), np.zeros(len(margins), np.float32)], axis=1)
    names = tuple(map(str, range(len(margins))))
    return Answers(("yes", "no"), names, np.where(right, 0, 1).astype(np.int64), logits)


def margin(score):
    return np.log(score / (1 - score))


# Temperature


def test_the_temperature_of_overconfident_logits_is_found():
    temperatures = [fit_temperature(drawn(seed, 3000, temperature=2.0)) for seed in range(3)]

    assert temperatures == pytest.approx([2.0] * 3, rel=0.08)


def test_the_temperature_of_timid_logits_is_found():
    assert fit_temperature(drawn(0, 3000, temperature=0.5)) == pytest.approx(0.5, rel=0.08)


def test_calibrated_scores_are_better_than_raw_ones_on_fresh_images():
    evaluation = evaluate_answers(drawn(1, 5000), fit_calibration(drawn(0, 2000), max_error=0.01))

    assert evaluation.nll < 0.95 * evaluation.raw_nll
    assert evaluation.ece < 0.5 * evaluation.raw_ece


def test_validation_images_without_a_mistake_do_not_drive_the_temperature_to_zero():
    timid = two_labels([2.0] * 1000, [True] * 1000)
    sure = two_labels([12.0] * 1000, [True] * 1000)

    assert 0.2 < fit_temperature(timid) < 0.5
    assert 0.9 < fit_temperature(sure) <= 1.0


def test_validation_images_without_a_right_answer_do_not_drive_it_to_infinity():
    assert 5 < fit_temperature(two_labels([10.0] * 1000, [False] * 1000)) <= 20


def test_few_images_leave_the_scores_nearly_as_they_are():
    one_right, one_wrong = two_labels([1.0], [True]), two_labels([3.0], [False])

    assert 0.85 < fit_temperature(one_right) < 1
    assert 1 < fit_temperature(one_wrong) < 1.6
    assert fit_temperature(two_labels([0.0], [True])) == pytest.approx(1.0, abs=0.001)


def test_a_model_of_one_label_keeps_its_scores():
    answers = Answers(("only",), ("a", "b"), np.zeros(2, np.int64), np.ones((2, 1), np.float32))

    assert fit_temperature(answers) == pytest.approx(1.0, abs=0.001)


# Thresholds


def scored(scores, right):
    """Two-label answers with these scores after a temperature that fits them, whatever it is."""
    return two_labels([margin(score) for score in scores], right)


def accepted(calibration, answers):
    """How many of the answers are accepted, and how many of those are wrong."""
    decisions = evaluate_answers(answers, calibration).decisions
    return decisions.num_accepted, round(decisions.num_accepted * (decisions.accepted_error or 0))


def test_the_threshold_is_the_lowest_down_to_which_the_budget_holds():
    # 40 right, a wrong one, 58 right, a wrong one, 20 right: at 2 % down to the second wrong one: (1 + 1) / (99 + 1).
    right = [True] * 40 + [False] + [True] * 58 + [False] + [True] * 20
    answers = scored(np.linspace(0.99, 0.6, len(right)), right)

    calibration = fit_calibration(answers, max_error=0.02)

    assert accepted(calibration, answers) == (99, 1)
    assert (calibration.num_images, calibration.max_error) == (120, 0.02)
    assert calibration.accepted_error == pytest.approx(1 / 99)
    assert calibration.review_rate + calibration.reject_rate == pytest.approx(21 / 120)


def test_a_budget_needs_enough_images_to_be_shown():
    just_enough = scored(np.linspace(0.99, 0.9, 99), [True] * 99)
    one_too_few = scored(np.linspace(0.99, 0.9, 98), [True] * 98)

    assert accepted(fit_calibration(just_enough, max_error=0.01), just_enough) == (99, 0)
    assert fit_calibration(one_too_few, max_error=0.01).accept == (NEVER, NEVER)


@pytest.mark.parametrize(
    ("max_error", "expected"), [(0.05, 19), (0.03, 33), (0.02, 49), (0.01, 99), (0.005, 199), (0.001, 999), (0.9, 1)]
)
def test_the_number_of_images_that_a_budget_needs_is_the_first_that_the_rule_accepts(max_error, expected):
    enough = scored(np.linspace(0.99, 0.9, expected), [True] * expected)
    too_few = scored(np.linspace(0.99, 0.9, expected), [True] * (expected - 1) + [False])

    assert num_needed(max_error) == expected
    assert accepted(fit_calibration(enough, max_error=max_error), enough) == (expected, 0)
    assert fit_calibration(too_few, max_error=max_error).accept == (NEVER, NEVER)


@pytest.mark.parametrize(
    ("right", "expected"),
    [
        ([True] * 47, NothingAccepted(47, 0.01, 99, 0.03)),
        ([True] * 10 + [False] * 37, NothingAccepted(47, 0.01, 99, 0.1)),
        ([False] * 2 + [True] * 198, NothingAccepted(200, 0.01, 99, 0.02)),
        ([False] * 200, NothingAccepted(200, 0.01, 99, None)),
        ([True], NothingAccepted(1, 0.01, 99, None)),
        ([True] * 99, None),
    ],
)
def test_why_nothing_is_accepted_and_what_budget_would_accept_some(right, expected):
    answers = scored(np.linspace(0.99, 0.9, len(right)), right)
    calibration = fit_calibration(answers, max_error=0.01)

    found = why_nothing_accepted(answers, calibration)

    assert found == expected
    if found and found.smallest_max_error:
        assert accepted(fit_calibration(answers, max_error=found.smallest_max_error), answers)[0] > 0


def test_images_of_equal_score_are_accepted_together_or_not_at_all():
    right = [True] * 30 + [True] * 15 + [False] * 5
    answers = scored([0.95] * 30 + [0.8] * 20, right)

    assert accepted(fit_calibration(answers, max_error=0.05), answers) == (30, 0)


def test_scores_that_a_manifest_cannot_tell_apart_are_equal():
    answers = two_labels([5.0 - index // 5 * 5e-7 for index in range(50)], [True] * 45 + [False] * 5)

    calibration = fit_calibration(answers, max_error=0.05)

    assert len(np.unique(answers.logits_NL[:, 0])) == 10
    assert calibration.accept == (NEVER, NEVER)


def both(yes_scores, yes_right, no_scores, no_right):
    """Answers of two labels: of the first the `yes` ones are the best, of the second the others."""
    margins = [margin(score) for score in yes_scores] + [-margin(score) for score in no_scores]
    right = [*yes_right, *(not each for each in no_right)]
    return two_labels(margins, right)


def test_a_label_with_enough_images_has_a_threshold_of_its_own():
    # 60 images are enough at 5 %. All answers `yes` are right, one in four answers `no` below the surest 40 is wrong.
    scores = np.linspace(0.99, 0.6, 120)
    no_right = [True] * 40 + [index % 4 != 0 for index in range(80)]
    answers = both(scores, [True] * 120, scores, no_right)

    yes, no = fit_calibration(answers, max_error=0.05).accept

    one_for_all = fit_calibration(both(scores[:59], [True] * 59, scores[:59], no_right[:59]), max_error=0.05).accept
    assert yes < no
    assert one_for_all[0] == one_for_all[1]


def test_a_label_that_can_never_keep_the_budget_is_never_accepted():
    scores = np.linspace(0.99, 0.6, 100)
    hopeless = [index % 3 == 0 for index in range(100)]
    answers = both(scores, [True] * 100, scores, hopeless)

    calibration = fit_calibration(answers, max_error=0.05)

    assert calibration.accept[0] < 0.7
    assert calibration.accept[1] == NEVER
    assert accepted(calibration, answers) == (100, 0)


def test_labels_that_could_accept_few_images_share_a_threshold_so_that_the_lucky_ones_are_not_all_there_is():
    # Of ten labels with 60 images each, which is large at 5 %, only the best 20 are ever acceptable. Five labels are
    # lucky: none of these is wrong. For thresholds of their own, the others would never be accepted.
    scores = np.concatenate([np.linspace(0.99, 0.9, 20), np.linspace(0.6, 0.5, 40)])
    lucky, other = [True] * 20 + [False] * 40, [True] * 18 + [False] * 42
    labels = tuple(f"label {label}" for label in range(10))
    targets, logits = [], []
    for label in range(10):
        for score, right in zip(scores, lucky if label < 5 else other, strict=True):
            logits.append([math.log(score) if each == label else math.log((1 - score) / 9) for each in range(10)])
            targets.append(label if right else (label + 1) % 10)
    answers = Answers(labels, tuple(map(str, range(600))), np.array(targets), np.array(logits, np.float32))

    calibration = fit_calibration(answers, max_error=0.05)

    assert len(set(calibration.accept)) == 1
    num_accepted, num_wrong = accepted(calibration, answers)
    assert num_accepted > 100
    assert (num_wrong + 1) / (num_accepted + 1) <= 0.05


def test_labels_with_few_images_do_not_hide_behind_the_others():
    # Alone the first label is accepted down to its last image, which uses up the budget; the few of the second would
    # be accepted with it, being as sure, though 12 of 50 are wrong: 30 of 450 together.
    right = [True] * 300 + [index % 5 != 0 for index in range(90)] + [True] * 10
    answers = both(np.linspace(0.999, 0.8, 400), right, [0.999] * 50, [True] * 38 + [False] * 12)

    calibration = fit_calibration(answers, max_error=0.05)

    num_accepted, num_wrong = accepted(calibration, answers)
    assert num_accepted > 350
    assert (num_wrong + 1) / (num_accepted + 1) <= 0.05
    assert calibration.accept[0] == calibration.accept[1]


@pytest.mark.parametrize(("num_images", "max_error"), [(150, 0.02), (400, 0.05), (600, 0.01)])
def test_on_fresh_images_the_accepted_error_is_within_the_budget_on_average(num_images, max_error):
    errors = []
    for seed in range(20):
        calibration = fit_calibration(drawn(seed, num_images), max_error=max_error)
        fresh = Scored.of(drawn(1000 + seed, 1500), calibration.temperature)
        taken = np.array(calibration.decide_all(fresh.predicted_N, fresh.scores_N)) == "accept"
        errors.append(1 - fresh.right_N[taken].mean())

    assert 0.4 * max_error < np.mean(errors) <= max_error


def test_what_to_expect_is_what_the_thresholds_do_to_the_validation_images():
    answers = drawn(3, 800)

    calibration = fit_calibration(answers, max_error=0.01)

    decisions = evaluate_answers(answers, calibration).decisions
    assert calibration.review_rate == decisions.num_reviewed / 800
    assert calibration.reject_rate == decisions.num_rejected / 800
    assert calibration.accepted_error == decisions.accepted_error
    assert calibration.reject_below == min(0.5, *calibration.accept) == 0.5
    assert decisions.num_accepted > 600


def test_a_lenient_budget_accepts_what_is_more_likely_wrong_than_right():
    answers = two_labels([0.0] * 20 + [0.1] * 20, [True] * 20 + [False, True] * 10)

    calibration = fit_calibration(answers, max_error=0.9)

    assert calibration.reject_below == min(calibration.accept)
    assert (calibration.review_rate, calibration.reject_rate) == (0.0, 0.0)


def test_the_fit_is_the_same_every_time_and_survives_the_card():
    first, second = (fit_calibration(drawn(0, 500), max_error=0.02) for _ in range(2))

    assert first == second == Calibration.from_json(first.to_json(), 10)


def test_without_validation_images_there_is_no_calibration():
    none = Answers(LABELS, (), np.empty(0, np.int64), np.empty((0, 3), np.float32))

    with pytest.raises(DataError, match="calibration needs validation images and there are none"):
        fit_calibration(none, max_error=0.01)


@pytest.mark.parametrize("max_error", [0, 1, -0.1, float("nan")])
def test_a_budget_out_of_range_is_refused(max_error):
    with pytest.raises(ModelingError, match="max_error must be above 0 and below 1"):
        fit_calibration(answers_of([0], [[0.8, 0.1, 0.1]]), max_error=max_error)
