"""Every figure against a value computed by hand."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from modeling.errors import ModelingError
from modeling.metrics.answers import MAX_POINTS, Answers, Scored
from modeling.metrics.calibration import NEVER, Calibration
from modeling.metrics.evaluation import (
    ClassFigures,
    CoveragePoint,
    DecisionFigures,
    Mistake,
    ReliabilityBin,
    document_text,
)
from modeling.metrics.figures import MAX_MISTAKES, evaluate_answers
from modeling.metrics.thresholds import fit_calibration
from tests.support.answers import LABELS, answers_of, drawn

# ant, ant, ant, bee, bee: the second ant is taken for a bee, the last bee for a cow; there are no cows.
FIVE = answers_of(
    [0, 0, 0, 1, 1],
    [[0.9, 0.05, 0.05], [0.3, 0.6, 0.1], [0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.1, 0.15, 0.75]],
)


def approx(value):
    """Every float of a dataclass or tuple to within float32."""
    return pytest.approx(value, abs=1e-6)


def test_counts_shares_and_intervals_are_those_of_the_answers():
    evaluation = evaluate_answers(FIVE, None)

    assert (evaluation.labels, evaluation.num_images, evaluation.num_right) == (LABELS, 5, 3)
    assert evaluation.accuracy == 0.6
    assert evaluation.accuracy_interval == approx((0.230724, 0.882379))
    assert evaluation.confusion == ((0, 0, 2), (0, 1, 1), (1, 1, 1), (1, 2, 1))
    assert evaluation.top_k == {"2": 1.0}
    assert evaluation.decisions is None


def test_classes_without_images_or_answers_have_no_figures_to_divide_by():
    ant, bee, cow = evaluate_answers(FIVE, None).classes

    assert ant == ClassFigures("ant", 3, 2, 2, 1.0, 2 / 3, ant.recall_interval, 0.8)
    assert ant.recall_interval == approx((0.207660, 0.938508))
    assert bee == ClassFigures("bee", 2, 2, 1, 0.5, 0.5, bee.recall_interval, 0.5)
    assert cow == ClassFigures("cow", 0, 1, 0, None, None, None, None)


def test_a_label_that_appears_nowhere_has_no_figures_and_does_not_lower_the_mean():
    answers = answers_of([0, 1], [[0.9, 0.05, 0.05], [0.1, 0.8, 0.1]])

    evaluation = evaluate_answers(answers, None)

    assert evaluation.classes[2] == ClassFigures("cow", 0, 0, 0, None, None, None, None)
    assert evaluation.macro_f1 == 1.0


def test_macro_f1_is_the_mean_over_labels_that_have_images():
    assert evaluate_answers(FIVE, None).macro_f1 == approx((0.8 + 0.5) / 2)


def test_likelihood_and_calibration_error_are_those_of_the_formulas():
    evaluation = evaluate_answers(FIVE, None)

    truths = (0.9, 0.3, 0.7, 0.8, 0.15)
    gaps = (1 - 0.9, 0.6 - 0, 1 - 0.7, 1 - 0.8, 0.75 - 0)  # one image in each bin
    assert evaluation.nll == approx(-sum(map(math.log, truths)) / 5)
    assert evaluation.ece == approx(sum(gaps) / 5)
    assert (evaluation.raw_nll, evaluation.raw_ece, evaluation.temperature) == (evaluation.nll, evaluation.ece, 1.0)


def test_images_of_one_bin_are_averaged_before_their_gap_is_taken():
    answers = answers_of([0, 1, 0], [[0.81, 0.10, 0.09], [0.85, 0.10, 0.05], [1.0, 1e-30, 1e-30]])

    evaluation = evaluate_answers(answers, None)

    low, high = evaluation.reliability
    assert low == ReliabilityBin(12 / 15, 13 / 15, 2, approx(0.83), 0.5)
    assert high == ReliabilityBin(14 / 15, 1.0, 1, approx(1.0), 1.0)
    assert evaluation.ece == approx((2 * 0.33 + 0) / 3)


def test_a_temperature_divides_the_logits_and_leaves_the_raw_figures():
    calibration = Calibration(2.0, 0.1, (0.5, 0.5, 0.5), 0.5, 10, 0.0, 0.0, 0.0)
    answers = answers_of([0, 1], [[0.8, 0.1, 0.1], [0.64, 0.32, 0.04]])

    evaluation = evaluate_answers(answers, calibration)

    def softened(scores, index):
        return math.sqrt(scores[index]) / sum(map(math.sqrt, scores))

    truths = (softened((0.8, 0.1, 0.1), 0), softened((0.64, 0.32, 0.04), 1))
    assert evaluation.nll == approx(-sum(map(math.log, truths)) / 2)
    assert evaluation.raw_nll == approx(-(math.log(0.8) + math.log(0.32)) / 2)
    assert evaluation.temperature == 2.0
    assert evaluation.mistakes == (Mistake(1, "1.png", "bee", "ant", approx(softened((0.64, 0.32, 0.04), 0))),)


def test_coverage_falls_from_everything_to_the_surest_image():
    evaluation = evaluate_answers(FIVE, None)

    assert evaluation.coverage == (
        CoveragePoint(approx(0.9), 0.2, 0.0),
        CoveragePoint(approx(0.8), 0.4, 0.0),
        CoveragePoint(approx(0.75), 0.6, approx(1 / 3)),
        CoveragePoint(approx(0.7), 0.8, 0.25),
        CoveragePoint(approx(0.6), 1.0, 0.4),
    )


def test_images_of_equal_score_are_accepted_together():
    answers = answers_of([0, 1, 0], [[0.8, 0.1, 0.1], [0.8, 0.1, 0.1], [0.6, 0.2, 0.2]])

    assert evaluate_answers(answers, None).coverage == (
        CoveragePoint(approx(0.8), approx(2 / 3), 0.5),
        CoveragePoint(approx(0.6), 1.0, approx(1 / 3)),
    )


def test_a_long_coverage_curve_is_thinned_and_keeps_its_ends():
    scored = Scored.of(drawn(0, 5000), 2.0)

    points = scored.coverage()

    assert MAX_POINTS - 20 <= len(points) <= MAX_POINTS
    assert points[0].coverage == (scored.scores_N == scored.scores_N.max()).mean()
    assert points[-1] == CoveragePoint(float(scored.scores_N.min()), 1.0, float((~scored.right_N).mean()))
    assert sorted(points, key=lambda point: point.coverage) == list(points)


def test_the_most_confident_mistakes_come_first_and_are_bounded():
    scores = [[0.5 + index / 1000, 0.5 - index / 1000, 1e-9] for index in range(1, 200)]
    answers = answers_of([1] * 199, scores)

    mistakes = evaluate_answers(answers, None).mistakes

    assert len(mistakes) == MAX_MISTAKES
    assert mistakes[0] == Mistake(198, "198.png", "bee", "ant", approx(0.699))
    assert [mistake.index for mistake in mistakes] == list(range(198, 198 - MAX_MISTAKES, -1))


def test_of_equal_scores_the_first_label_is_the_best():
    answers = answers_of([0, 1, 2], [[1 / 3, 1 / 3, 1 / 3]] * 3)

    evaluation = evaluate_answers(answers, None)

    assert evaluation.confusion == ((0, 0, 1), (1, 0, 1), (2, 0, 1))
    assert evaluation.top_k == {"2": approx(2 / 3)}


def test_top_k_counts_the_k_best_labels():
    ranks = np.arange(12)  # image i has its truth at rank i
    labels = tuple(map(str, range(12)))
    logits = np.tile(-np.arange(12.0, dtype=np.float32), (12, 1))
    answers = Answers(labels, labels, ranks, logits)

    evaluation = evaluate_answers(answers, None)

    assert evaluation.top_k == {"2": approx(2 / 12), "3": approx(3 / 12), "5": approx(5 / 12), "10": approx(10 / 12)}
    assert evaluation.accuracy == approx(1 / 12)


def test_decisions_are_counted_with_the_error_of_what_was_accepted():
    calibration = Calibration(1.0, 0.1, (0.65, 0.55, NEVER), 0.5, 10, 0.0, 0.0, 0.0)

    decisions = evaluate_answers(FIVE, calibration).decisions

    assert decisions == DecisionFigures(0.1, 4, 1, 1, 0, 0.25, decisions.accepted_error_interval, 0.3439)
    assert decisions.accepted_error_interval == approx((0.045587, 0.699358))


def test_where_nothing_is_accepted_there_is_no_accepted_error():
    calibration = Calibration(1.0, 0.1, (NEVER,) * 3, 0.72, 10, 0.0, 0.0, 0.0)

    assert evaluate_answers(FIVE, calibration).decisions == DecisionFigures(0.1, 0, 0, 3, 2, None, None, None)


def test_one_image_is_enough_for_every_figure():
    evaluation = evaluate_answers(answers_of([1], [[0.1, 0.8, 0.1]]), None)

    assert (evaluation.accuracy, evaluation.macro_f1, evaluation.mistakes) == (1.0, 1.0, ())
    assert evaluation.accuracy_interval == approx((0.206549, 1.0))
    assert evaluation.coverage == (CoveragePoint(approx(0.8), 1.0, 0.0),)


def test_perfect_answers_have_no_error_and_hopeless_ones_nothing_else():
    surest = [[1.0, 1e-38, 1e-38], [1e-38, 1.0, 1e-38]]

    perfect = evaluate_answers(answers_of([0, 1], surest), None)
    hopeless = evaluate_answers(answers_of([1, 2], surest), None)

    assert (perfect.accuracy, perfect.nll, perfect.ece, perfect.macro_f1) == (1.0, 0.0, 0.0, 1.0)
    assert (hopeless.accuracy, hopeless.ece, hopeless.macro_f1) == (0.0, 1.0, 0.0)
    assert hopeless.nll == pytest.approx(-math.log(1e-38), rel=1e-6)


def test_huge_logits_do_not_overflow():
    answers = replace(FIVE, logits_NL=FIVE.logits_NL * np.float32(1e4))

    evaluation = evaluate_answers(answers, None)

    assert math.isfinite(evaluation.nll)
    assert evaluation.mistakes[0].score == 1.0


def test_the_document_holds_everything_and_reads_back():
    evaluation = evaluate_answers(FIVE, None)

    document = json.loads(document_text(evaluation.to_json()))

    assert set(document) == set(evaluation.__dataclass_fields__) | {"classes_without_images"}
    assert document["classes"][2]["recall"] is None
    assert document["classes_without_images"] == ["cow"]
    assert document["confusion"] == [
        {"label": "ant", "predicted": "ant", "num_images": 2},
        {"label": "ant", "predicted": "bee", "num_images": 1},
        {"label": "bee", "predicted": "bee", "num_images": 1},
        {"label": "bee", "predicted": "cow", "num_images": 1},
    ]


def test_the_document_has_a_line_for_each_key_and_each_class():
    lines = document_text(evaluate_answers(FIVE, None).to_json()).splitlines()

    assert '  "num_images": 5,' in lines
    assert '    {"label": "ant", "predicted": "bee", "num_images": 1},' in lines
    assert sum(line.startswith('    {"label": "cow"') for line in lines) == 1


def test_many_labels_cost_no_square_of_their_number():
    labels = tuple(f"label {index:05d}" for index in range(20_000))
    chance = np.random.default_rng(0)
    logits = chance.normal(0, 1, (300, len(labels))).astype(np.float32)
    targets = np.arange(300)
    logits[:200, :200] += 20 * np.eye(200, dtype=np.float32)
    answers = Answers(labels, tuple(map(str, range(300))), targets, logits)

    evaluation = evaluate_answers(answers, fit_calibration(answers, max_error=0.05))

    assert evaluation.num_right == 200
    assert sum(number for _, _, number in evaluation.confusion) == 300
    assert len(evaluation.classes_without_images) == 19_700
    assert len(document_text(evaluation.to_json())) < 5_000_000


def test_figures_do_not_depend_on_how_rows_are_cut_into_blocks(monkeypatch):
    whole = evaluate_answers(drawn(3, 500), None)

    monkeypatch.setattr("modeling.metrics.answers._BLOCK_LOGITS", 70)

    assert evaluate_answers(drawn(3, 500), None) == whole


def test_an_answer_that_is_not_finite_is_named():
    logits = FIVE.logits_NL.copy()
    logits[3, 1] = np.nan

    with pytest.raises(ModelingError, match=r"the network's answer to 3\.png is not finite"):
        evaluate_answers(replace(FIVE, logits_NL=logits), None)


def test_no_images_have_no_figures():
    none = Answers(LABELS, (), np.empty(0, np.int64), np.empty((0, 3), np.float32))

    with pytest.raises(ModelingError, match="there are no images to evaluate"):
        evaluate_answers(none, None)
