"""Which bin a predicted item gets."""

from dataclasses import replace

import pytest

from orchestrator.contract.lines.answers import Verdict
from orchestrator.contract.lines.settings import Line, LineSettings
from orchestrator.contract.lines.verdicts import cause_of, choose_verdict, late_verdict

LINE = Line(LineSettings("post", "cards@champion", "F", "R", bins={"ash": ("1", "2"), "birch": ("3",)}))


@pytest.mark.parametrize(
    ("label", "decision", "closed", "degraded", "verdict"),
    [
        ("ash", "accept", (), False, Verdict("1")),
        ("ash", None, (), False, Verdict("1")),
        ("ash", "accept", (), True, Verdict("1", "degraded")),
        ("ash", "accept", ("1",), False, Verdict("2", "next_bin")),
        ("ash", "accept", ("1",), True, Verdict("2", "next_bin")),
        ("ash", "accept", ("2",), False, Verdict("1")),
        ("ash", "accept", ("1", "2"), False, Verdict("F", "bin_full")),
        ("ash", "accept", ("1", "2"), True, Verdict("F", "bin_full")),
        ("birch", "accept", ("3",), False, Verdict("F", "bin_full")),
        ("cedar", "accept", (), False, Verdict("F", "no_bin")),
        ("cedar", None, (), True, Verdict("F", "no_bin")),
        ("ash", "review", (), False, Verdict("R", "low_confidence")),
        ("ash", "reject", ("1", "2"), True, Verdict("R", "low_confidence")),
        ("cedar", "review", (), False, Verdict("R", "low_confidence")),
    ],
)
@pytest.mark.parametrize("how", ["full", "disabled"])
def test_the_first_open_bin_of_the_label_or_else_the_reason_why_not(label, decision, closed, degraded, verdict, how):
    line = replace(LINE, **{how: closed})

    assert choose_verdict(line, label, decision, degraded=degraded) == verdict


def test_what_is_late_goes_to_the_fallback_bin_with_the_cause():
    assert late_verdict(LINE, "decode") == Verdict("F", "late", "decode")


@pytest.mark.parametrize(
    ("stage_ms", "cause"),
    [
        ({"queue": 5.0, "decode": 2.0, "device": 4.0}, "queue"),
        ({"queue": 1.0, "decode": 2.0}, "decode"),
        ({"queue": 1.0, "decode": 2.0, "device": 3.0}, "device"),
        ({}, "queue"),
    ],
)
def test_the_cause_is_the_stage_that_took_longest(stage_ms, cause):
    assert cause_of(stage_ms) == cause
