"""Calibration fitted on validation images: the temperature, and thresholds that keep an error budget.

Own search, not scipy's: temperature and thresholds are part of a model and must repeat to the bit.
"""

# Shapes: N images, M images of a group, L labels.
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modeling.errors import DataError, ModelingError
from modeling.metrics.answers import Answers, Scored, check_finite, log_softmax
from modeling.metrics.calibration import NEVER, Calibration

ENOUGH = 3  # times 1 / max_error images, for a threshold of a label's own
REJECT_BELOW = 0.5  # the best label is more likely wrong than right

_LOG_T = math.log(20.0)  # the search ends there and at its negative
_PRIOR_SD = 0.5  # of the temperature's logarithm: a factor of 1.6 is nothing special, one of 5 wants evidence
_MAX_FIT_IMAGES = 10_000  # one number needs no more, and this bounds the time where labels are many
_GRID, _SEARCH_STEPS = 25, 16  # to within 0.0003 of the logarithm
_GOLDEN = (math.sqrt(5) - 1) / 2
_SCORE_UNIT = 1e-6  # a manifest's scores have six digits; nobody can tell nearer ones apart


def fit_calibration(answers: Answers, *, max_error: float) -> Calibration:
    """Temperature and accept thresholds from `answers` to validation images, which no training has seen.

    `max_error`, in (0, 1): the share of accepted images that may be wrong. `docs/evaluation.md` tells how the
    thresholds are chosen; with fewer than 1 / max_error - 1 images none can be accepted.

    Raises:
        DataError: no images.
        ModelingError: a budget out of range, or an answer that is not finite.
    """
    if not 0 < max_error < 1:
        raise ModelingError(f"max_error must be above 0 and below 1, such as 0.005, not {max_error}")
    if not answers.names:
        raise DataError("calibration needs validation images and there are none; hold some out (--validation)")
    check_finite(answers)
    temperature = fit_temperature(answers)
    scored = Scored.of(answers, temperature)
    accept = _thresholds(_Group(scored.predicted_N, _seen(scored), scored.right_N), len(answers.labels), max_error)
    reject_below = min(REJECT_BELOW, *accept)
    unmeasured = Calibration(temperature, max_error, accept, reject_below, len(answers.names), 0.0, 0.0, 0.0)
    return _measured(unmeasured, scored)


def _measured(calibration: Calibration, scored: Scored) -> Calibration:
    """The calibration with what its thresholds do to the images that it was fitted on."""
    decisions_N = np.array(calibration.decide_all(scored.predicted_N, scored.scores_N))
    accepted_N = decisions_N == "accept"
    return Calibration(
        calibration.temperature,
        calibration.max_error,
        calibration.accept,
        calibration.reject_below,
        calibration.num_images,
        review_rate=float((decisions_N == "review").mean()),
        reject_rate=float((decisions_N == "reject").mean()),
        accepted_error=float((~scored.right_N[accepted_N]).mean()) if accepted_N.any() else 0.0,
    )


# Temperature


def fit_temperature(answers: Answers) -> float:
    """The temperature that makes the truth likeliest (Guo et al. 2017, "On calibration of modern neural networks").

    A priori its logarithm is normal around 0 with standard deviation 0.5, worth about one image: few images leave
    the scores nearly as they are, and a set without mistakes cannot drive it to 0, nor a hopeless one to infinity.
    It stays within [1/20, 20].
    """
    step = -(-len(answers.names) // _MAX_FIT_IMAGES)
    logits_NL, targets_N = answers.logits_NL[::step], answers.targets_N[::step]
    images_N = np.arange(len(targets_N))

    def cost(log_t: float) -> float:
        log_truth_N = log_softmax(logits_NL, math.exp(log_t))[images_N, targets_N]
        return float(-log_truth_N.sum()) + log_t**2 / (2 * _PRIOR_SD**2)

    grid = np.linspace(-_LOG_T, _LOG_T, _GRID).tolist()  # the prior makes two valleys possible: look everywhere first
    lowest = int(np.argmin([cost(log_t) for log_t in grid]))
    low, high = grid[max(0, lowest - 1)], grid[min(_GRID - 1, lowest + 1)]
    for _ in range(_SEARCH_STEPS):  # golden section, evaluated afresh: 32 passes are cheap
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

    def of(self, chosen_M: NDArray[np.bool_]) -> "_Group":
        """Some of the images."""
        return _Group(self.labels_M[chosen_M], self.scores_M[chosen_M], self.right_M[chosen_M])

    def enough(self, max_error: float) -> bool:
        """Whether they are so many that accepting them all without a mistake would show the budget kept, 95 % sure.

        The rule of three (Hanley and Lippman-Hand 1983, "If nothing goes wrong, is everything all right?").
        """
        return len(self.labels_M) * max_error >= ENOUGH


def _thresholds(everything: _Group, num_labels: int, max_error: float) -> tuple[float, ...]:
    """The accept threshold of each label: its own where it has enough images, else one for all such labels."""
    shared = _threshold(everything, max_error)
    groups = {label: everything.of(everything.labels_M == label) for label in range(num_labels)}
    own = {label: _threshold(group, max_error) for label, group in groups.items() if group.enough(max_error)}
    rest = everything.of(~np.isin(everything.labels_M, list(own)))
    of_rest = _threshold(rest, max_error) if rest.enough(max_error) else shared
    accept_L = np.array([own.get(label, of_rest) for label in range(num_labels)])
    accepted = everything.of(everything.scores_M >= accept_L[everything.labels_M])
    if len(accepted.labels_M) and _likely_error(accepted) > max_error:  # labels with few images lean on the others'
        accept_L = np.full(num_labels, shared)
    return tuple(accept_L.tolist())


def _threshold(group: _Group, max_error: float) -> float:
    """The lowest score down to which the group's images can be accepted within the budget; `NEVER` if there is none.

    Down to a score, (wrong + 1) / (accepted + 1) estimates the error among new images: the one added is the price
    of having looked for the lowest score (Angelopoulos et al. 2022; Jin and Candès 2023).
    """
    order_M = np.argsort(-group.scores_M, kind="stable")
    scores_M = group.scores_M[order_M]
    num_wrong_M = np.cumsum(~group.right_M[order_M])
    fits_M = num_wrong_M + 1 <= max_error * (np.arange(len(scores_M)) + 2)
    last_of_equals_M = np.append(scores_M[1:] != scores_M[:-1], True)
    within = np.flatnonzero(fits_M & last_of_equals_M[: len(scores_M)])
    return float(scores_M[within[-1]]) - _SCORE_UNIT / 2 if len(within) else NEVER


def _likely_error(accepted: _Group) -> float:
    return float((~accepted.right_M).sum() + 1) / (len(accepted.right_M) + 1)


def _seen(scored: Scored) -> NDArray[np.float64]:
    """Scores as a manifest shows them: a device's last bits must not decide."""
    return np.round(scored.scores_N / _SCORE_UNIT) * _SCORE_UNIT
