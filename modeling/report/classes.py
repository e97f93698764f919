"""Which classes the model confuses, and its figures for each class."""

from collections.abc import Sequence
from dataclasses import dataclass

from modeling.metrics.calibration import Calibration
from modeling.metrics.evaluation import ClassFigures, Evaluation
from modeling.report.canvas import Plot
from modeling.report.figures import count

_MOST_PAIRS = 12
_OPEN_CLASSES = 12  # where there are more than _MOST_OPEN; the rest is folded away
_MOST_OPEN = 20
_MOST_CLASSES = 1000  # more make the page too large; the evaluation's JSON has all
_FEW_LABELS = 12  # the matrix needs less room


@dataclass(frozen=True, slots=True)
class ConfusedPair:
    """Images of `label` that were taken for `predicted`; `share` is of all images of `label`."""

    label: str
    predicted: str
    num_images: int
    share: float


@dataclass(frozen=True, slots=True)
class Confusion:
    """The confusion matrix with its text for those who do not see it, and the most confused pairs."""

    plot: Plot
    alt: str
    pairs: Sequence[ConfusedPair]
    large: bool


@dataclass(frozen=True, slots=True)
class ClassRow:
    """A class, the one it is most often taken for (`num_taken` times), and the score from which it is accepted."""

    figures: ClassFigures
    taken_for: str
    num_taken: int
    threshold: float | None


@dataclass(frozen=True, slots=True)
class ClassTable:
    """Every class, the weakest first; `num_left` more classes are not shown.

    unmeasured: the first of `num_unmeasured` classes without images.
    """

    open_rows: Sequence[ClassRow]
    folded_rows: Sequence[ClassRow]
    num_left: int
    with_threshold: bool
    unmeasured: Sequence[str]
    num_unmeasured: int


def confused_pairs(evaluation: Evaluation, most: int = _MOST_PAIRS) -> list[ConfusedPair]:
    """The most frequently confused pairs, each in one direction; of equal counts the larger share first."""
    totals = [each.num_images for each in evaluation.classes]
    pairs = [
        (number, number / totals[row], row, column) for row, column, number in evaluation.confusion if row != column
    ]
    pairs.sort(key=lambda pair: (-pair[0], -pair[1], pair[2], pair[3]))
    labels = evaluation.labels
    return [ConfusedPair(labels[row], labels[column], number, share) for number, share, row, column in pairs[:most]]


def describe_confusion(evaluation: Evaluation, plot: Plot) -> Confusion:
    """The most confused pairs beside the whole matrix."""
    pairs = confused_pairs(evaluation)
    named = "; ".join(f"{pair.label} taken for {pair.predicted}: {pair.num_images}" for pair in pairs[:5])
    num_classes = count(len(evaluation.labels), "class", "classes")
    alt = f"Confusion matrix of {num_classes}. {named or 'No image is off the diagonal.'}"
    return Confusion(plot, alt, pairs, large=len(evaluation.labels) > _FEW_LABELS)


def tabulate_classes(evaluation: Evaluation, calibration: Calibration | None) -> ClassTable:
    """Every class, the weakest first."""
    ordered = sorted(evaluation.classes, key=_weakness)
    taken_for = _taken_for(evaluation)
    thresholds = dict(zip(evaluation.labels, calibration.accept, strict=False)) if calibration else {}
    rows = [ClassRow(each, *taken_for[each.label], thresholds.get(each.label)) for each in ordered[:_MOST_CLASSES]]
    num_open = len(rows) if len(rows) <= _MOST_OPEN else _OPEN_CLASSES
    unmeasured = evaluation.classes_without_images
    left, few = len(ordered) - len(rows), unmeasured[:_MOST_OPEN]
    return ClassTable(rows[:num_open], rows[num_open:], left, calibration is not None, few, len(unmeasured))


def _weakness(figures: ClassFigures) -> tuple[bool, float, float, str]:
    """Lowest recall first, then lowest F1; classes without images last."""
    return figures.recall is None, figures.recall or 0.0, figures.f1 or 0.0, figures.label


def _taken_for(evaluation: Evaluation) -> dict[str, tuple[str, int]]:
    """By label, what its images are most often taken for, and how many."""
    labels = evaluation.labels
    most = dict.fromkeys(labels, ("", 0))
    for row, column, number in evaluation.confusion:
        if row != column and number > most[labels[row]][1]:  # of equal numbers the first
            most[labels[row]] = (labels[column], number)
    return most
