"""The figures of an evaluation, as its JSON document, its table and its report show them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

Interval = tuple[float, float]  # 95 %, Wilson
BUDGET_LEVEL = 0.05  # one-sided: so often a model that just keeps its budget is said not to keep it


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """The figures of one class; None where the denominator is zero, and all of them where the data lack the class."""

    label: str
    num_images: int
    num_predicted: int
    num_right: int
    precision: float | None
    recall: float | None
    recall_interval: Interval | None
    f1: float | None


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """The images whose best score is in [low, high): their mean score and the share that is right."""

    low: float
    high: float
    num_images: int
    mean_score: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class CoveragePoint:
    """If scores of at least `threshold` are accepted: the accepted share, and the error of the accepted."""

    threshold: float
    coverage: float
    error: float


@dataclass(frozen=True, slots=True)
class DecisionFigures:
    """The decisions that the model's thresholds make for these images.

    accepted_error: the share of the accepted images that is wrong. budget_p: the probability of so many wrong or more
    if the true share were the budget, `max_error` (`modeling.metrics.chance.exceeds_p`). All None if none is accepted.
    """

    max_error: float
    num_accepted: int
    num_accepted_wrong: int
    num_reviewed: int
    num_rejected: int
    accepted_error: float | None
    accepted_error_interval: Interval | None
    budget_p: float | None

    @property
    def budget_refuted(self) -> bool:
        """Whether more of the accepted images are wrong than chance explains if the budget is kept."""
        return self.budget_p is not None and self.budget_p < BUDGET_LEVEL


@dataclass(frozen=True, slots=True)
class NothingAccepted:
    """Why a model's thresholds accept nothing, not even on the validation images that they were chosen on.

    num_images: validation images. num_needed: how many it takes at least, all of them right, to accept any within
    max_error. smallest_max_error: the smallest usual budget that accepts some of these images; None: no usual one does.
    """

    num_images: int
    max_error: float
    num_needed: int
    smallest_max_error: float | None


@dataclass(frozen=True, slots=True)
class Mistake:
    """An image whose best label is wrong. `index` is its position in the evaluated data."""

    index: int
    name: str
    label: str
    predicted: str
    score: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How good a model is on labelled images. Shares and scores are in [0, 1].

    top_k: the share of images whose true label is among the k best, by k ("2", "5", ... below the number of labels).
    nll, ece: negative log likelihood in nats and expected calibration error (15 equal bins) of the calibrated
        scores; `raw_*` before temperature scaling.
    confusion: the pairs of labels that occur, by their places in `labels`: true, predicted, number of images; in that
        order. A matrix of 40,000 labels would be 13 GB, and nearly all of it zeros.
    mistakes: the most confident first.
    """

    labels: tuple[str, ...]
    num_images: int
    num_right: int
    accuracy: float
    accuracy_interval: Interval
    top_k: dict[str, float]
    macro_f1: float
    nll: float
    ece: float
    raw_nll: float
    raw_ece: float
    temperature: float
    confusion: tuple[tuple[int, int, int], ...]
    classes: tuple[ClassFigures, ...]
    reliability: tuple[ReliabilityBin, ...]
    coverage: tuple[CoveragePoint, ...]
    decisions: DecisionFigures | None
    mistakes: tuple[Mistake, ...]

    @property
    def classes_without_images(self) -> tuple[str, ...]:
        """Labels of which the data have no image, so that nothing is measured for them."""
        return tuple(each.label for each in self.classes if not each.num_images)

    def to_json(self) -> dict[str, Any]:
        """A dict that JSON can hold; the confusion names its labels."""
        named = [
            {"label": self.labels[label], "predicted": self.labels[predicted], "num_images": num_images}
            for label, predicted, num_images in self.confusion
        ]
        return asdict(self) | {"confusion": named, "classes_without_images": list(self.classes_without_images)}


def document_text(document: Mapping[str, Any]) -> str:
    """A document of figures as JSON: a line for each key, and for each of the objects in a list."""
    encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode

    def text_of(value: Any) -> str:
        if isinstance(value, Sequence) and value and isinstance(value[0], Mapping):
            return "[\n    " + ",\n    ".join(map(encode, value)) + "\n  ]"
        return encode(value)

    return "{\n" + ",\n".join(f"  {encode(key)}: {text_of(value)}" for key, value in document.items()) + "\n}\n"


@dataclass(frozen=True, slots=True)
class ReferenceDifference:
    """How much an engine's answers differ from the reference's, on a sample of the evaluated images.

    same_label: share of images with the same best label. max_score_difference, mean_score_difference: between the
    score of the engine's best label and the reference's score of that label. accuracy_change: the engine's accuracy
    minus the reference's.
    """

    num_images: int
    same_label: float
    max_score_difference: float
    mean_score_difference: float
    accuracy_change: float


@dataclass(frozen=True, slots=True)
class EngineFigures:
    """The engine that answered, its precision, and how it differs from the reference.

    difference: None if the engine is the reference itself.
    """

    engine: str
    precision: str
    reference: str
    difference: ReferenceDifference | None

    def to_json(self) -> dict[str, Any]:
        """A dict that JSON can hold."""
        difference = None if self.difference is None else asdict(self.difference)
        reference = {"engine": self.reference, "difference": difference}
        return {"engine": self.engine, "precision": self.precision, "reference": reference}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The reverse of `to_json`; other keys are ignored."""
        reference = value["reference"]
        difference = reference["difference"] and ReferenceDifference(**reference["difference"])
        return cls(value["engine"], value["precision"], reference["engine"], difference)

    def describe(self) -> str:
        """The difference in one line, for people."""
        found = self.difference
        if found is None:
            return "the reference itself"
        return (
            f"{found.same_label:.2%} of {found.num_images:,} labels as {self.reference}; score differs by at most "
            f"{found.max_score_difference:.2g}, on average {found.mean_score_difference:.2g}; "
            f"accuracy {found.accuracy_change:+.4f}"
        )
