"""The figures of one evaluation, as the JSON document, the table and the report show them."""

from dataclasses import asdict, dataclass
from typing import Any

Interval = tuple[float, float]  # 95 %, Wilson


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """One class: None where there is nothing to divide by."""

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
    """The images whose best score lies in [low, high): mean score beside the share that is right."""

    low: float
    high: float
    num_images: int
    mean_score: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class CoveragePoint:
    """Accepting only best scores of at least `threshold`: the share accepted, and the share of those wrong."""

    threshold: float
    coverage: float
    error: float


@dataclass(frozen=True, slots=True)
class DecisionFigures:
    """What the model's thresholds do to these images: shares of all of them, and of the accepted those wrong."""

    max_error: float
    num_accepted: int
    num_reviewed: int
    num_rejected: int
    accepted_error: float | None
    accepted_error_interval: Interval | None


@dataclass(frozen=True, slots=True)
class Mistake:
    """An image whose best label is wrong. `index` is its place in the evaluated data."""

    index: int
    name: str
    label: str
    predicted: str
    score: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How good a model is on labelled images. Shares and scores are in [0, 1].

    top_k: accuracy where the k best labels count, by k ("2", "5", ... below the number of labels).
    nll, ece: negative log likelihood in nats and expected calibration error (15 equal bins) of the calibrated
        scores; `raw_*` before temperature scaling.
    confusion: rows are true labels, columns predicted ones, in the order of `labels`.
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
    confusion: tuple[tuple[int, ...], ...]
    classes: tuple[ClassFigures, ...]
    reliability: tuple[ReliabilityBin, ...]
    coverage: tuple[CoveragePoint, ...]
    decisions: DecisionFigures | None
    mistakes: tuple[Mistake, ...]

    def to_json(self) -> dict[str, Any]:
        """A dict that JSON can hold."""
        return asdict(self)
