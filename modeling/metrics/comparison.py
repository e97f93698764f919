"""Compares two models on the same images (with a significance test), or two engines of one model."""

# Shapes: N images, L labels.
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modeling.errors import ModelingError
from modeling.metrics.answers import Answers, Scored, log_softmax
from modeling.metrics.calibration import Calibration
from modeling.metrics.chance import mcnemar_p, wilson_interval
from modeling.metrics.evaluation import Interval, ReferenceDifference
from modeling.names import class_name

SIGNIFICANT = 0.05


@dataclass(frozen=True, slots=True)
class ModelFigures:
    """One model's figures; those on decisions are None without a calibration. Rates are shares of all images."""

    num_right: int
    accuracy: float
    accuracy_interval: Interval
    num_accepted: int | None
    num_accepted_wrong: int | None
    review_rate: float | None
    reject_rate: float | None


@dataclass(frozen=True, slots=True)
class Flip:
    """An image that just one of the models gets right."""

    index: int
    name: str
    label: str
    predicted_a: str
    predicted_b: str


@dataclass(frozen=True, slots=True)
class ClassDifference:
    """One label: its images, and how many of them each model gets right."""

    label: str
    num_images: int
    num_right_a: int
    num_right_b: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Model A and model B on the same images.

    worse, better: images that only A gets right, and images that only B gets right, in the order of the data.
    classes: labels that have images, in the order of A's labels.
    p: the probability that two equally good models differ at least this much (McNemar's test).
    review_change: B's review rate minus A's; None unless both have a calibration.
    """

    num_images: int
    a: ModelFigures
    b: ModelFigures
    worse: tuple[Flip, ...]
    better: tuple[Flip, ...]
    num_both_wrong: int
    classes: tuple[ClassDifference, ...]
    p: float
    review_change: float | None

    def to_json(self) -> dict[str, Any]:
        """A dict that JSON can hold."""
        return asdict(self) | {"conclusion": self.conclusion()}

    def conclusion(self, a: str = "A", b: str = "B") -> str:
        """One sentence for people; `a` and `b` are the names of the models."""
        gain = self.b.num_right - self.a.num_right
        if not self.worse and not self.better:
            return f"{a} and {b} are right on the same images"
        if self.p >= SIGNIFICANT:
            return f"no difference that these {self.num_images:,} images can show (p = {self.p:.2g})"
        winner, more = (b, gain) if gain > 0 else (a, -gain)
        p = f"p = {self.p:.2g}" if self.p >= 0.0001 else "p < 0.0001"
        return f"{winner} is better: {more:,} more right of {self.num_images:,}, {p}"


def compare(
    answers_a: Answers, answers_b: Answers, calibration_a: Calibration | None, calibration_b: Calibration | None
) -> Comparison:
    """Compare the answers of two models to the same images; their labels may be in another order.

    An answer that is a label of only one of the models is wrong: no image has it.

    Raises:
        ModelingError: the images or their labels differ, there are no images, or a logit is not finite.
    """
    labels, position_in_a = _joined_labels(answers_a.labels, answers_b.labels)
    targets_N = position_in_a[answers_b.targets_N]
    if answers_a.names != answers_b.names or not np.array_equal(answers_a.targets_N, targets_N):
        raise ModelingError(
            "two models can be compared only on the same images; these answers are for different images"
        )
    scored_a = Scored.of(answers_a, calibration_a.temperature if calibration_a else 1.0)
    scored_b = Scored.of(answers_b, calibration_b.temperature if calibration_b else 1.0)
    a = _model_figures(scored_a, calibration_a)
    b = _model_figures(scored_b, calibration_b)  # before B's labels are put into A's order
    scored_b = replace(scored_b, predicted_N=position_in_a[scored_b.predicted_N])
    worse_N = scored_a.right_N & ~scored_b.right_N
    better_N = scored_b.right_N & ~scored_a.right_N
    return Comparison(
        num_images=len(answers_a.names),
        a=a,
        b=b,
        worse=_flips(answers_a, labels, worse_N, scored_a, scored_b),
        better=_flips(answers_a, labels, better_N, scored_a, scored_b),
        num_both_wrong=int((~scored_a.right_N & ~scored_b.right_N).sum()),
        classes=_classes(answers_a, scored_a, scored_b),
        p=mcnemar_p(int(worse_N.sum()), int(better_N.sum())),
        review_change=None if a.review_rate is None or b.review_rate is None else b.review_rate - a.review_rate,
    )


def _joined_labels(a: Sequence[str], b: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    """A's labels and those that only B has, and the position of each of B's labels among them."""
    positions = {class_name(label): position for position, label in enumerate(a)}
    labels = list(a)
    for label in b:
        if class_name(label) not in positions:
            positions[class_name(label)] = len(labels)
            labels.append(label)
    return labels, np.array([positions[class_name(label)] for label in b], dtype=np.int64)


def _model_figures(scored: Scored, calibration: Calibration | None) -> ModelFigures:
    num_right, num_images = int(scored.right_N.sum()), len(scored.right_N)
    interval = wilson_interval(num_right, num_images)
    if calibration is None:
        return ModelFigures(num_right, num_right / num_images, interval, None, None, None, None)
    decisions_N = np.array(calibration.decide_all(scored.predicted_N, scored.scores_N))
    accepted_N = decisions_N == "accept"
    return ModelFigures(
        num_right=num_right,
        accuracy=num_right / num_images,
        accuracy_interval=interval,
        num_accepted=int(accepted_N.sum()),
        num_accepted_wrong=int((accepted_N & ~scored.right_N).sum()),
        review_rate=float((decisions_N == "review").mean()),
        reject_rate=float((decisions_N == "reject").mean()),
    )


def _flips(
    answers: Answers, labels: Sequence[str], chosen_N: NDArray[np.bool_], a: Scored, b: Scored
) -> tuple[Flip, ...]:
    return tuple(
        Flip(i, answers.names[i], labels[answers.targets_N[i]], labels[a.predicted_N[i]], labels[b.predicted_N[i]])
        for i in np.flatnonzero(chosen_N).tolist()
    )


def _classes(answers: Answers, a: Scored, b: Scored) -> tuple[ClassDifference, ...]:
    """Counts for each true label that has images."""
    counted = (answers.targets_N, answers.targets_N[a.right_N], answers.targets_N[b.right_N])
    counts = (np.bincount(targets, minlength=len(answers.labels)).tolist() for targets in counted)
    found = zip(answers.labels, *counts, strict=True)
    return tuple(ClassDifference(*each) for each in found if each[1])


def reference_difference(answers: Answers, reference: Answers, temperature: float) -> ReferenceDifference:
    """How much an engine's answers differ from the reference's on the same images.

    Raises:
        ModelingError: a logit is not finite.
    """
    scored, expected = Scored.of(answers, temperature), Scored.of(reference, temperature)
    scores_NL = np.exp(log_softmax(reference.logits_NL, temperature))
    differences_N = np.abs(scored.scores_N - scores_NL[np.arange(len(scores_NL)), scored.predicted_N])
    num_images = len(answers.names)
    return ReferenceDifference(
        num_images=num_images,
        same_label=float((scored.predicted_N == expected.predicted_N).mean()),
        max_score_difference=float(differences_N.max()),
        mean_score_difference=float(differences_N.mean()),
        accuracy_change=(int(scored.right_N.sum()) - int(expected.right_N.sum())) / num_images,
    )
