"""A network's answers on labelled images, and what follows from their scores.

Own code, not torchmetrics: figures must repeat to the bit, whatever version of a library is installed.
"""

# Shapes: N images, B images of a block, L labels, P points of a curve.
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from modeling.errors import ModelingError
from modeling.metrics.evaluation import CoveragePoint, ReliabilityBin


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """A network's logits and the true labels, in the order of the data.

    names: each image's name in its data set (relative path, or part and number), for people.
    targets_N: index into `labels` of each image's class.
    logits_NL: float32, before temperature scaling.
    """

    labels: tuple[str, ...]
    names: tuple[str, ...]
    targets_N: NDArray[np.int64]
    logits_NL: NDArray[np.float32]

    def __post_init__(self) -> None:
        expected = (len(self.names), len(self.labels))
        if self.logits_NL.shape != expected or self.targets_N.shape != expected[:1]:
            found = f"{self.logits_NL.shape} logits and {self.targets_N.shape} targets"
            raise ValueError(f"{expected[0]} images with {expected[1]} labels do not match {found}")


NUM_BINS = 15  # as Guo et al. 2017 and most since
_BLOCK_LOGITS = 1 << 22  # 32 MB as float64
MAX_POINTS = 200  # of a coverage curve; a plot cannot show more


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """Each image's best label with its score in [0, 1], and the logarithm of the true label's score."""

    predicted_N: NDArray[np.int64]
    scores_N: NDArray[np.float64]
    log_truth_N: NDArray[np.float64]
    right_N: NDArray[np.bool_]

    @classmethod
    def of(cls, answers: Answers, temperature: float) -> Self:
        """The softmax of the logits divided by `temperature`; of equal scores, the first label wins.

        Raises:
            ModelingError: a logit is not finite.
        """
        check_finite(answers)
        predicted_N = answers.logits_NL.argmax(axis=1).astype(np.int64)  # dividing could make different logits equal
        scores_N, log_truth_N = np.empty(len(answers.names)), np.empty(len(answers.names))
        for rows in row_blocks(answers.logits_NL):
            log_scores_BL = log_softmax(answers.logits_NL[rows], temperature)
            images_B = np.arange(len(log_scores_BL))
            scores_N[rows] = np.exp(log_scores_BL[images_B, predicted_N[rows]])
            log_truth_N[rows] = log_scores_BL[images_B, answers.targets_N[rows]]
        return cls(predicted_N, scores_N, log_truth_N, predicted_N == answers.targets_N)

    @property
    def nll(self) -> float:
        """Mean negative log likelihood of the true labels, in nats."""
        return float(-self.log_truth_N.mean()) + 0.0  # never -0.0

    def reliability(self) -> tuple[ReliabilityBin, ...]:
        """Mean score and accuracy in bins of equal width over the score; empty bins are omitted."""
        bins_N = np.minimum((self.scores_N * NUM_BINS).astype(np.int64), NUM_BINS - 1)
        counts = np.bincount(bins_N, minlength=NUM_BINS)
        scores = np.bincount(bins_N, weights=self.scores_N, minlength=NUM_BINS)
        right = np.bincount(bins_N, weights=self.right_N, minlength=NUM_BINS)
        return tuple(
            ReliabilityBin(
                low=index / NUM_BINS,
                high=(index + 1) / NUM_BINS,
                num_images=int(counts[index]),
                mean_score=float(scores[index] / counts[index]),
                accuracy=float(right[index] / counts[index]),
            )
            for index in np.flatnonzero(counts).tolist()
        )

    @property
    def ece(self) -> float:
        """Expected calibration error (Naeini et al. 2015): the mean gap between score and accuracy over the bins."""
        bins = self.reliability()
        return sum(each.num_images * abs(each.mean_score - each.accuracy) for each in bins) / len(self.scores_N)

    def coverage(self) -> tuple[CoveragePoint, ...]:
        """Accepted share, and the error of the accepted, by threshold, highest first; at most `MAX_POINTS` points.

        Thresholds are scores that occur, because images of equal score are accepted together. Points are thinned evenly
        over the accepted share; the first and the last (all images accepted) are kept.
        """
        order_N = np.argsort(-self.scores_N, kind="stable")
        scores_N = self.scores_N[order_N]
        num_wrong_N = np.cumsum(~self.right_N[order_N])
        last_P = np.flatnonzero(np.append(scores_N[1:] != scores_N[:-1], True))
        if len(last_P) > MAX_POINTS:
            targets = np.linspace(last_P[0], last_P[-1], MAX_POINTS)
            last_P = np.unique(last_P[np.searchsorted(last_P, targets)])
        return tuple(
            CoveragePoint(float(scores_N[at]), (at + 1) / len(scores_N), float(num_wrong_N[at] / (at + 1)))
            for at in last_P.tolist()
        )


def log_softmax(logits_NL: NDArray[np.float32], temperature: float) -> NDArray[np.float64]:
    """Logarithms of the scores, in float64, safe for logits of any size."""
    scaled_NL = logits_NL.astype(np.float64) / temperature
    scaled_NL -= scaled_NL.max(axis=1, keepdims=True)
    normaliser_N1: NDArray[np.float64] = np.log(np.exp(scaled_NL).sum(axis=1, keepdims=True))
    scaled_NL -= normaliser_N1
    return scaled_NL


def check_finite(answers: Answers) -> None:
    """Raise ModelingError if a logit is not finite, or there are no images."""
    if not answers.names:
        raise ModelingError("there are no images to evaluate: all of them are excluded or unreadable")
    for rows in row_blocks(answers.logits_NL):
        finite_B = np.isfinite(answers.logits_NL[rows]).all(axis=1)
        if not finite_B.all():
            worst = answers.names[rows.start + int(np.argmin(finite_B))]
            raise ModelingError(f"the network's answer to {worst} is not finite; its weights are damaged or diverged")


def row_blocks(logits_NL: NDArray[np.float32]) -> Iterator[slice]:
    """Slices of rows that together are all: what is computed from one block fits in memory, however many labels."""
    size = max(1, _BLOCK_LOGITS // max(1, logits_NL.shape[1]))
    return (slice(start, start + size) for start in range(0, len(logits_NL), size))
