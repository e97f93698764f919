"""Whether the model's scores mean what they say, and what its thresholds cost."""

from collections.abc import Sequence
from dataclasses import dataclass

from modeling.metrics.calibration import Calibration
from modeling.metrics.evaluation import CoveragePoint, Evaluation
from modeling.report.canvas import Plot
from modeling.report.figures import count, percent

_BUDGETS = (0.001, 0.005, 0.01, 0.02, 0.05)


@dataclass(frozen=True, slots=True)
class Reliability:
    """The reliability diagram with its text for those who do not see it, and the figures beside it."""

    plot: Plot
    alt: str
    evaluation: Evaluation


@dataclass(frozen=True, slots=True)
class Budget:
    """The share that one threshold could accept within a largest error."""

    max_error: float
    share: float


@dataclass(frozen=True, slots=True)
class Coverage:
    """Error by coverage with its text for those who do not see it.

    decided: whether the evaluation has the decisions of the model's thresholds. expected: what these thresholds did
    where they were chosen.
    """

    plot: Plot
    alt: str
    decided: bool
    expected: str | None
    budgets: Sequence[Budget]


def describe_reliability(evaluation: Evaluation, plot: Plot) -> Reliability:
    """Scores beside the share that is right, before calibration and after."""
    alt = "Reliability diagram: " + "; ".join(
        f"scores {percent(each.low)} to {percent(each.high)}: {percent(each.accuracy)} right of {each.num_images:,}"
        for each in evaluation.reliability
        if each.num_images
    )
    return Reliability(plot, alt, evaluation)


def describe_coverage(evaluation: Evaluation, calibration: Calibration | None, plot: Plot) -> Coverage:
    """The share accepted without a person against the share that is wrong, and the model's thresholds."""
    points = [(budget, coverage_within(evaluation, budget)) for budget in _BUDGETS]
    return Coverage(
        plot=plot,
        alt=_alt(evaluation),
        decided=bool(evaluation.decisions),
        expected=_expected(evaluation, calibration),
        budgets=[Budget(max_error, point.coverage if point else 0.0) for max_error, point in points],
    )


def coverage_within(evaluation: Evaluation, max_error: float) -> CoveragePoint | None:
    """The largest share that one threshold could accept on these images within the error; None where there is none."""
    fitting = [point for point in evaluation.coverage if point.error <= max_error and point.coverage > 0]
    return max(fitting, key=lambda point: point.coverage) if fitting else None


def _alt(evaluation: Evaluation) -> str:
    ends = [point for budget in (0.01, 0.05) if (point := coverage_within(evaluation, budget))]
    named = "; ".join(f"{percent(point.coverage)} accepted, {percent(point.error)} of them wrong" for point in ends)
    return f"Coverage against error: {named or 'no threshold keeps the error under 5 %'}"


def _expected(evaluation: Evaluation, calibration: Calibration | None) -> str | None:
    """What the model's own thresholds did on the images they were chosen on."""
    if calibration is None:
        return None if evaluation.decisions else "This model has no thresholds: every answer is for you to judge."
    share = calibration.review_rate + calibration.reject_rate
    marked = "every one was marked for a look."
    if share < 1:
        wrong = percent(calibration.accepted_error)
        marked = f"{percent(share)} were marked for a look and {wrong} of the rest were wrong."
    return f"On the {count(calibration.num_images, 'validation image')} that the thresholds were chosen on, {marked}"
