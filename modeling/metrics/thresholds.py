"""Fits a calibration on validation images: the temperature, and thresholds that keep an error budget.

Own search, not scipy's: temperature and thresholds are part of a model and must repeat to the bit.
"""

# Shapes: N images, M images of a group, L labels.
import math
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from modeling.errors import DataError, ModelingError
from modeling.metrics.answers import Answers, Scored, check_finite, log_softmax
from modeling.metrics.calibration import NEVER, Calibration
from modeling.metrics.chance import exceeds_p
from modeling.metrics.evaluation import NothingAccepted

MIN_EXPECTED_ERRORS = 3  # a label with at least 3 / max_error images to accept has a threshold of its own
USUAL_BUDGETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3)  # to propose where nothing is accepted
_HOPELESS_P = 0.001  # a label whose best images chance explains no better than this is never accepted
REJECT_BELOW = 0.5  # the best label is more likely wrong than right

_LOG_T = math.log(20.0)  # the search covers [-_LOG_T, _LOG_T]
_PRIOR_SD = 0.5  # of the temperature's logarithm: a factor of 1.6 is common, one of 5 needs evidence
_MAX_FIT_IMAGES, _MAX_FIT_LOGITS = 10_000, 10_000_000  # enough for one number; they bound the time, with many labels
_MIN_FIT_IMAGES = 200
_GRID, _SEARCH_STEPS = 25, 16  # find the logarithm to within 0.0003
_GOLDEN = (math.sqrt(5) - 1) / 2
_SCORE_UNIT = 1e-6  # a manifest's scores have six digits; smaller differences are not visible


def fit_calibration(answers: Answers, *, max_error: float) -> Calibration:
    """Fit temperature and accept thresholds to the answers on validation images, which the training has not used.

    max_error, in (0, 1): the share of accepted images that may be wrong. `docs/evaluation.md` explains how thresholds
    are chosen; with fewer than 1 / max_error - 1 images, none can be accepted.

    Raises:
        DataError: there are no images.
        ModelingError: `max_error` is out of range, or a logit is not finite.
    """
    if not 0 < max_error < 1:
        raise ModelingError(f"max_error must be above 0 and below 1, such as 0.005, not {max_error}")
    if not answers.names:
        raise DataError("calibration needs validation images and there are none; hold some out (--validation)")
    check_finite(answers)
    temperature = fit_temperature(answers)
    scored = Scored.of(answers, temperature)
    accept = _thresholds(_Group.of_all(scored), len(answers.labels), max_error)
    reject_below = min(REJECT_BELOW, *accept)
    unmeasured = Calibration(temperature, max_error, accept, reject_below, len(answers.names), 0.0, 0.0, 0.0)
    return _with_measured_rates(unmeasured, scored)


def _with_measured_rates(calibration: Calibration, scored: Scored) -> Calibration:
    """The calibration with the rates that its thresholds give on the images it was fitted on."""
    decisions_N = np.array(calibration.decide_all(scored.predicted_N, scored.scores_N))
    accepted_N = decisions_N == "accept"
    return replace(
        calibration,
        review_rate=float((decisions_N == "review").mean()),
        reject_rate=float((decisions_N == "reject").mean()),
        accepted_error=float((~scored.right_N[accepted_N]).mean()) if accepted_N.any() else 0.0,
    )


# Temperature


def fit_temperature(answers: Answers) -> float:
    """The temperature with the highest likelihood (Guo et al. 2017, "On calibration of modern neural networks").

    Its logarithm has a normal prior with mean 0 and standard deviation 0.5, which weighs about as much as one image:
    few images change the scores little, a set without mistakes does not drive the temperature to 0, and one with only
    mistakes does not drive it to infinity. The result is in [1/20, 20].
    """
    step = -(-len(answers.names) // min(_MAX_FIT_IMAGES, max(_MIN_FIT_IMAGES, _MAX_FIT_LOGITS // len(answers.labels))))
    logits_NL, targets_N = answers.logits_NL[::step], answers.targets_N[::step]
    images_N = np.arange(len(targets_N))

    def cost(log_t: float) -> float:
        log_truth_N = log_softmax(logits_NL, math.exp(log_t))[images_N, targets_N]
        return float(-log_truth_N.sum()) + log_t**2 / (2 * _PRIOR_SD**2)

    grid = np.linspace(-_LOG_T, _LOG_T, _GRID).tolist()  # the prior makes two minima possible: search a grid first
    lowest = int(np.argmin([cost(log_t) for log_t in grid]))
    low, high = grid[max(0, lowest - 1)], grid[min(_GRID - 1, lowest + 1)]
    for _ in range(_SEARCH_STEPS):  # golden section without reuse of values: 32 evaluations are cheap
        width = (high - low) * _GOLDEN
        if cost(high - width) <= cost(low + width):
            high = low + width
        else:
            low = high - width
    return round(math.exp((low + high) / 2), 6)


# Thresholds


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """Images that share a threshold: best label, its score, whether it is right."""

    labels_M: NDArray[np.int64]
    scores_M: NDArray[np.float64]
    right_M: NDArray[np.bool_]

    @classmethod
    def of_all(cls, scored: Scored) -> Self:
        """All images. Their scores are rounded as a manifest shows them: a device's last bits do not matter."""
        return cls(scored.predicted_N, np.round(scored.scores_N / _SCORE_UNIT) * _SCORE_UNIT, scored.right_N)

    def of(self, chosen_M: NDArray[np.bool_]) -> "_Group":
        """The chosen images."""
        return _Group(self.labels_M[chosen_M], self.scores_M[chosen_M], self.right_M[chosen_M])

    def is_large_enough(self, max_error: float) -> bool:
        """Whether they are enough for a threshold of their own.

        For so many images, were they not chosen by their scores, the rule of three would hold: none wrong shows with
        95 % confidence that the budget is kept (Hanley and Lippman-Hand 1983). Here it is a rule of thumb.
        """
        return len(self.labels_M) * max_error >= MIN_EXPECTED_ERRORS


def _thresholds(all_images: _Group, num_labels: int, max_error: float) -> tuple[float, ...]:
    """The accept threshold of each label: its own if it has enough images, else one shared by all such labels."""
    shared = _threshold(all_images, max_error)
    counts_L = np.bincount(all_images.labels_M, minlength=num_labels)
    large = np.flatnonzero(counts_L * max_error >= MIN_EXPECTED_ERRORS).tolist()  # few, however many labels there are
    found = {label: _own_threshold(all_images.of(all_images.labels_M == label), max_error) for label in large}
    own = {label: threshold for label, threshold in found.items() if threshold is not None}
    of_rest = _own_threshold(all_images.of(~np.isin(all_images.labels_M, list(own))), max_error)
    rest_threshold = shared if of_rest is None else of_rest
    accept_L = np.array([own.get(label, rest_threshold) for label in range(num_labels)])
    accepted = all_images.of(all_images.scores_M >= accept_L[all_images.labels_M])
    error = ((~accepted.right_M).sum() + 1) / (len(accepted.right_M) + 1)
    if len(accepted.labels_M) and error > max_error:  # labels with few images depend on the others
        accept_L = np.full(num_labels, shared)
    return tuple(accept_L.tolist())


def _own_threshold(group: _Group, max_error: float) -> float | None:
    """The threshold of a group of images for itself; None if there are too few to show that it keeps the budget.

    A threshold that accepts few images may be luck. Of many labels some are always lucky; if they alone had thresholds,
    all that a model accepts would be theirs, and the budget would not be kept even on average over models.
    """
    if not group.is_large_enough(max_error):
        return None
    threshold = _threshold(group, max_error)
    if group.of(group.scores_M >= threshold).is_large_enough(max_error):
        return threshold
    best_M = np.argsort(-group.scores_M, kind="stable")[: num_needed(max_error)]
    num_wrong = int((~group.right_M[best_M]).sum())
    return NEVER if exceeds_p(num_wrong, len(best_M), max_error) < _HOPELESS_P else None


def _threshold(group: _Group, max_error: float) -> float:
    """The lowest score from which the group's images can be accepted within the budget; `NEVER` if there is none.

    (wrong + 1) / (accepted + 1) estimates the error among new images; the added 1 corrects for the search for the
    lowest score (as in Jin and Candès 2023). On average over models the error keeps the budget; that of a single model
    may exceed it (`benchmarks.budget_promise`).
    """
    order_M = np.argsort(-group.scores_M, kind="stable")
    scores_M = group.scores_M[order_M]
    num_wrong_M = np.cumsum(~group.right_M[order_M])
    fits_M = num_wrong_M + 1 <= max_error * (np.arange(len(scores_M)) + 2)
    last_of_equals_M = np.append(scores_M[1:] != scores_M[:-1], True)
    within = np.flatnonzero(fits_M & last_of_equals_M[: len(scores_M)])
    return float(scores_M[within[-1]]) - _SCORE_UNIT / 2 if len(within) else NEVER


def why_nothing_accepted(answers: Answers, calibration: Calibration) -> NothingAccepted | None:
    """Why the calibration, fitted on these answers, accepts none of them; None if it accepts some."""
    images, num_labels = _Group.of_all(Scored.of(answers, calibration.temperature)), len(answers.labels)
    if _accepts(images, calibration.accept):
        return None
    larger = (budget for budget in USUAL_BUDGETS if budget > calibration.max_error)
    enough = (budget for budget in larger if _accepts(images, _thresholds(images, num_labels, budget)))
    needed = num_needed(calibration.max_error)
    return NothingAccepted(len(answers.names), calibration.max_error, needed, next(enough, None))


def num_needed(max_error: float) -> int:
    """How many validation images it takes at least, all of them right, to accept any within the budget."""
    number = max(1, math.ceil(1 / max_error) - 2)  # a little too few: _threshold's arithmetic decides
    while not max_error * (number + 1) >= 1:
        number += 1
    return number


def _accepts(images: _Group, accept: tuple[float, ...]) -> bool:
    return bool((images.scores_M >= np.array(accept)[images.labels_M]).any())
