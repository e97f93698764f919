"""The sentences of a verdict, for every kind of evaluation."""

from dataclasses import asdict

import pytest

from modeling.metrics.chance import exceeds_p, wilson_interval
from modeling.metrics.evaluation import DecisionFigures, NothingAccepted
from modeling.metrics.verdict import EvaluationVerdict, share_text, with_interval


def decided(num_accepted, num_wrong, max_error=0.01):
    """Decisions as `evaluate_answers` counts them."""
    if not num_accepted:
        return DecisionFigures(max_error, 0, 0, 0, 0, None, None, None)
    interval, p = wilson_interval(num_wrong, num_accepted), exceeds_p(num_wrong, num_accepted, max_error)
    return DecisionFigures(max_error, num_accepted, num_wrong, 0, 0, num_wrong / num_accepted, interval, p)


def verdict(decisions, *, part="test", num_images=600, num_right=590, nothing_accepted=None):
    interval = wilson_interval(num_right, num_images)
    return EvaluationVerdict(part, num_images, num_right, interval, decisions, nothing_accepted)


PROMISED = "budget 1 %, kept on average over models, not by each one"


@pytest.mark.parametrize(
    ("decisions", "said"),
    [
        (decided(412, 3), f"accepted 412 of 600 test images; of these 3 wrong, 0.7 %, 95 %: 0.2 to 2.1 %; {PROMISED}"),
        (decided(600, 0), f"accepted 600 of 600 test images; of these 0 wrong, 0 %, 95 %: 0.00 to 0.64 %; {PROMISED}"),
        (
            decided(412, 9),
            "accepted 412 of 600 test images; of these 9 wrong, 2.2 %, 95 %: 1.2 to 4.1 %; "
            "budget 1 % NOT kept: so many would be wrong by chance with p = 0.025",
        ),
        (
            decided(200, 90, 0.005),
            "accepted 200 of 600 test images; of these 90 wrong, 45 %, 95 %: 38.3 to 51.9 %; "
            "budget 0.5 % NOT kept: so many would be wrong by chance with p = below 0.0001",
        ),
        (decided(0, 0), "accepted 0 of 600 test images: no score reaches its threshold"),
        (None, "no thresholds: there were no validation images to choose them on, so every answer needs a look"),
    ],
)
def test_what_was_accepted_is_said_with_its_counts_its_interval_and_whether_the_budget_is_kept(decisions, said):
    assert verdict(decisions).sentences == ["590 of 600 test images right: accuracy 98.3 %, 95 %: 97.0 to 99.1 %", said]


def test_a_budget_is_said_not_to_be_kept_only_where_chance_is_refuted_at_five_per_cent():
    kept = [wrong for wrong in range(20) if not decided(412, wrong).budget_refuted]

    assert kept == list(range(9))
    assert exceeds_p(8, 412, 0.01) > 0.05 > exceeds_p(9, 412, 0.01)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            NothingAccepted(47, 0.01, 99, 0.03),
            "nothing is accepted: 47 validation images; 1 % needs 99, all of them right: add images, or "
            "`--max-error 3%`",
        ),
        (
            NothingAccepted(1, 0.005, 199, None),
            "nothing is accepted: 1 validation image; 0.5 % needs 199, all of them right: add images",
        ),
        (
            NothingAccepted(300, 0.01, 99, 0.05),
            "nothing is accepted: of 300 validation images too many are wrong even among the best scores for 1 %: "
            "`--max-error 5%`, better labels or another network",
        ),
        (
            NothingAccepted(300, 0.01, 99, None),
            "nothing is accepted: of 300 validation images too many are wrong even among the best scores for 1 %: "
            "better labels or another network",
        ),
    ],
)
def test_where_nothing_can_be_accepted_the_reason_and_a_way_out_are_said(found, said):
    assert verdict(decided(0, 0), nothing_accepted=found).accepted == said


def test_images_that_the_thresholds_were_chosen_on_say_nothing_of_the_budget():
    accuracy, accepted = verdict(decided(1, 0), part="validation", num_images=1, num_right=1).sentences

    assert accuracy == "1 of 1 validation image right: accuracy 100 %, 95 %: 20.7 to 100.0 %"
    assert accepted == (
        "accepted 1 of 1 validation image; of these 0 wrong, 0 %, 95 %: 0.0 to 79.3 %; "
        "budget 1 %, whose thresholds were chosen on these images: hold some out (--test)"
    )


def test_a_verdict_is_read_from_the_document_of_an_evaluation():
    whole = verdict(decided(412, 3), part="all", nothing_accepted=NothingAccepted(47, 0.01, 99, 0.03))

    found = EvaluationVerdict.from_json(asdict(whole) | {"more": "is ignored"})

    assert found == whole
    assert found.sentences[0].startswith("590 of 600 images right")
    with pytest.raises(TypeError):
        EvaluationVerdict.from_json(asdict(whole) | {"decisions": {"max_error": 0.01}})  # of an earlier release


@pytest.mark.parametrize(
    ("share", "said"),
    [(0, "0 %"), (1, "100 %"), (0.007, "0.7 %"), (0.0003, "0.03 %"), (0.00001, "0.001 %"), (0.99996, "99.996 %")],
)
def test_a_share_is_never_rounded_to_none_or_all(share, said):
    assert share_text(share) == said


def test_a_narrow_interval_has_two_digits():
    assert with_interval(0.0057, (0.0044, 0.0074)) == "0.57 %, 95 %: 0.44 to 0.74 %"
