"""What the counts of an evaluation say, in sentences: the last lines of a training, an evaluation and the report.

Intervals are Wilson's, for 95 % (`modeling.metrics.chance.wilson_interval`). A budget is said NOT to be kept where the
one-sided exact binomial test refutes at the 5 % level that it is (`DecisionFigures.budget_refuted`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from modeling.metrics.evaluation import DecisionFigures, Interval, NothingAccepted

PROMISE = "kept on average over models, not by each one"
ON_AVERAGE = "on average over models, not for each one"
_MOST_DIGITS = 6
_SMALLEST_P = 0.0001
_WIDE_POINTS = 1  # an interval at least so wide needs one digit only


@dataclass(frozen=True, slots=True)
class EvaluationVerdict:
    """The main counts of an evaluation, and what they say.

    part: of the data, such as `test`; `validation` if a training held no test images out; `all`: there are no parts.
    decisions: None for a model without thresholds. nothing_accepted: why its thresholds accept nothing.
    """

    part: str
    num_images: int
    num_right: int
    accuracy_interval: Interval
    decisions: DecisionFigures | None
    nothing_accepted: NothingAccepted | None = None

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """The verdict of an `evaluation.json`; other keys are ignored.

        Raises:
            LookupError, TypeError: it is not an evaluation of this release.
        """
        decisions, nothing = document["decisions"], document.get("nothing_accepted")
        return cls(
            part=document["part"],
            num_images=document["num_images"],
            num_right=document["num_right"],
            accuracy_interval=tuple(document["accuracy_interval"]),
            decisions=decisions and DecisionFigures(**decisions),
            nothing_accepted=nothing and NothingAccepted(**nothing),
        )

    @property
    def sentences(self) -> list[str]:
        """How many images are right, what the thresholds accept, and whether the error budget is kept."""
        accuracy = with_interval(self.num_right / self.num_images, self.accuracy_interval)
        return [f"{self.num_right:,} of {self._images} right: accuracy {accuracy}", self.accepted]

    @property
    def accepted(self) -> str:
        """What the thresholds accept, and whether the error budget is kept."""
        decisions = self.decisions
        if decisions is None:
            return "no thresholds: there were no validation images to choose them on, so every answer needs a look"
        if self.nothing_accepted is not None:
            return describe_nothing_accepted(self.nothing_accepted)
        if not decisions.num_accepted:
            return f"accepted 0 of {self._images}: no score reaches its threshold"
        error, interval = decisions.accepted_error, decisions.accepted_error_interval
        assert error is not None
        assert interval is not None
        counts = (
            f"accepted {decisions.num_accepted:,} of {self._images}; of these {decisions.num_accepted_wrong:,} wrong"
        )
        return f"{counts}, {with_interval(error, interval)}; {self._budget(decisions)}"

    @property
    def _images(self) -> str:
        part = "" if self.part == "all" else f"{self.part} "
        return f"{self.num_images:,} {part}image{'s' if self.num_images != 1 else ''}"

    def _budget(self, decisions: DecisionFigures) -> str:
        if self.part == "validation":
            budget = share_text(decisions.max_error)
            return f"budget {budget}, whose thresholds were chosen on these images: hold some out (--test)"
        return budget_text(decisions)


def budget_text(decisions: DecisionFigures) -> str:
    """Whether these images refute that the error budget is kept, and what the budget promises."""
    budget = f"budget {share_text(decisions.max_error)}"
    if not decisions.budget_refuted:
        return f"{budget}, {PROMISE}"
    return f"{budget} NOT kept: so many would be wrong by chance with p = {probability(decisions)}"


def probability(decisions: DecisionFigures) -> str:
    """The p of the budget's test, such as `0.031`; `below 0.0001` where it is."""
    p = decisions.budget_p or 0.0
    return "below 0.0001" if p < _SMALLEST_P else f"{p:.2g}"


def describe_nothing_accepted(found: NothingAccepted) -> str:
    """Why nothing is accepted, and what to do."""
    budget = share_text(found.max_error)
    larger = found.smallest_max_error
    images = f"{found.num_images:,} validation image{'s' if found.num_images != 1 else ''}"
    if found.num_images < found.num_needed:
        why = f"{images}; {budget} needs {found.num_needed:,}, all of them right"
        option = f", or `--max-error {_option(larger)}`" if larger else ""
        return f"nothing is accepted: {why}: add images{option}"
    option = f"`--max-error {_option(larger)}`, " if larger else ""
    why = f"of {images} too many are wrong even among the best scores for {budget}"
    return f"nothing is accepted: {why}: {option}better labels or another network"


def share_text(share: float, digits: int = 1) -> str:
    """A share in [0, 1] such as `0.7 %`, with at least one digit more where it would be rounded to none or all."""
    value = 100 * share
    while share not in (0, 1) and not 0 < round(value, digits) < 100 and digits < _MOST_DIGITS:
        digits += 1
    text = f"{value:.{digits}f}"
    return f"{text.rstrip('0').rstrip('.')} %"


def with_interval(share: float, bounds: Interval) -> str:
    """A share and its interval, such as `0.7 %, 95 %: 0.2 to 2.1 %`."""
    low, high = (100 * bound for bound in bounds)
    digits = 1 if high - low >= _WIDE_POINTS else 2
    return f"{share_text(share, digits)}, 95 %: {low:.{digits}f} to {high:.{digits}f} %"


def _option(share: float) -> str:
    return share_text(share).replace(" ", "")
