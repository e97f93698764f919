"""Which classes the model takes for which, and how well it does each."""

# Shapes: L labels (rows: true, columns: predicted).
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from modeling.metrics.calibration import Calibration
from modeling.metrics.evaluation import ClassFigures, Evaluation
from modeling.report.figures import NOTHING, count, interval, percent
from modeling.report.html import Html, element, join, short
from modeling.report.section import Plot, Section, bar, table

_MOST_PAIRS = 12
_OPEN_CLASSES = 12  # the rest is folded away where there are more than
_MOST_OPEN = 20
_MOST_CLASSES = 1000  # of the page's size; more stand in the evaluation's JSON
_NEVER = 1.0  # a threshold above it accepts nothing


@dataclass(frozen=True, slots=True)
class ConfusedPair:
    """Images of `label` that were taken for `predicted`; `share` is of all images of `label`."""

    label: str
    predicted: str
    num_images: int
    share: float


def confused_pairs(evaluation: Evaluation, most: int = _MOST_PAIRS) -> list[ConfusedPair]:
    """The most frequent mix-ups, each in one direction; of equal counts the larger share first."""
    counts_LL = np.array(evaluation.confusion, np.int64)
    totals_L = counts_LL.sum(axis=1)
    mistakes_LL = counts_LL - np.diag(np.diag(counts_LL))
    rows, columns = np.nonzero(mistakes_LL)
    pairs = [
        (int(mistakes_LL[row, column]), float(mistakes_LL[row, column] / totals_L[row]), row, column)
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
    ]
    pairs.sort(key=lambda pair: (-pair[0], -pair[1], pair[2], pair[3]))
    labels = evaluation.labels
    return [ConfusedPair(labels[row], labels[column], number, share) for number, share, row, column in pairs[:most]]


def confusion_section(evaluation: Evaluation, plot: Plot) -> Section:
    """The most confused pairs beside the whole matrix."""
    pairs = confused_pairs(evaluation)
    lead = (
        "What is taken for what. In the matrix each row is a true class, each column an answer: blue on the diagonal "
        "is right, orange beside it is a mix-up, darker the larger its share of the row."
    )
    alt = f"Confusion matrix of {count(len(evaluation.labels), 'class', 'classes')}. "
    alt += (
        "; ".join(f"{pair.label} taken for {pair.predicted}: {pair.num_images}" for pair in pairs[:5])
        if pairs
        else "No image is off the diagonal."
    )
    wide = "split" if len(evaluation.labels) <= 12 else "split large"
    body = element("div", plot.image(alt), _pair_table(pairs), class_=wide)
    return Section("confusion", "Most confused classes", lead, body)


def classes_section(evaluation: Evaluation, calibration: Calibration | None) -> Section:
    """Every class, the worst first."""
    lead = (
        "The weakest classes first. Recall: of the images of this class, the share recognised. Precision: of the "
        "images given this label, the share that belong there. F1 is the mean of both that a low one pulls down."
    )
    ordered = sorted(evaluation.classes, key=_weakness)
    taken_for = _taken_for(evaluation)
    thresholds = dict(zip(evaluation.labels, calibration.accept, strict=False)) if calibration else None
    rows = [_class_row(each, taken_for, thresholds) for each in ordered[:_MOST_CLASSES]]
    head = _class_head(thresholds is not None)
    num_open = len(rows) if len(rows) <= _MOST_OPEN else _OPEN_CLASSES
    open_rows, folded = rows[:num_open], rows[num_open:]
    pieces = [table(head, open_rows, "classes")]
    if folded:
        summary = element("summary", f"The other {count(len(folded), 'class', 'classes')}")
        pieces.append(element("details", summary, table(head, folded, "classes")))
    if len(ordered) > _MOST_CLASSES:
        left = count(len(ordered) - _MOST_CLASSES, "class", "classes")
        pieces.append(element("p", f"{left} with better figures stand in the evaluation's JSON alone.", class_="note"))
    return Section("classes", "Class by class", lead, join(pieces))


def _pair_table(pairs: Sequence[ConfusedPair]) -> Html:
    if not pairs:
        return element("p", "No class was taken for another.", class_="note")
    most = pairs[0].num_images
    rows = [
        element(
            "tr",
            element("td", short(pair.label, 22)),
            element("td", short(pair.predicted, 22)),
            element("td", f"{pair.num_images:,}", class_="number"),
            element("td", bar(pair.num_images / most, "wrong"), percent(pair.share), class_="with-bar"),
        )
        for pair in pairs
    ]
    head = [
        element("th", "true", scope="col"),
        element("th", "taken for", scope="col"),
        element("th", "images", scope="col", class_="number"),
        element("th", "of the class", scope="col"),
    ]
    return table(head, rows, "pairs")


def _weakness(figures: ClassFigures) -> tuple[bool, float, float, str]:
    """Lowest recall first, then lowest F1; classes without images last."""
    return figures.recall is None, figures.recall or 0.0, figures.f1 or 0.0, figures.label


def _taken_for(evaluation: Evaluation) -> dict[str, tuple[str, int]]:
    """By label, what its images are most often taken for, and how many."""
    counts_LL = np.array(evaluation.confusion, np.int64)
    np.fill_diagonal(counts_LL, 0)
    most_L = counts_LL.argmax(axis=1).tolist()
    return {
        label: (evaluation.labels[column], int(counts_LL[row, column]))
        for row, (label, column) in enumerate(zip(evaluation.labels, most_L, strict=True))
    }


def _class_head(with_threshold: bool) -> list[Html]:
    names = [("class", ""), ("images", "number"), ("recall", ""), ("95 % interval", "number"), ("precision", "number")]
    names += [("F1", "number"), ("most often taken for", "")]
    names += [("accepted from", "number")] if with_threshold else []
    return [element("th", name, scope="col", class_=class_ or None) for name, class_ in names]


def _class_row(
    figures: ClassFigures, taken_for: dict[str, tuple[str, int]], thresholds: dict[str, float] | None
) -> Html:
    other, number = taken_for[figures.label]
    confused = join([short(other, 22), element("span", f" {number:,}×", class_="key")]) if number else NOTHING
    cells = [
        element("th", short(figures.label, 26), scope="row"),
        element("td", f"{figures.num_images:,}", class_="number"),
        element("td", bar(figures.recall or 0.0), percent(figures.recall), class_="with-bar"),
        element("td", interval(figures.recall_interval), class_="number faint"),
        element("td", percent(figures.precision), class_="number"),
        element("td", percent(figures.f1), class_="number"),
        element("td", confused),
    ]
    if thresholds is not None:
        cells.append(element("td", _threshold(thresholds.get(figures.label)), class_="number"))
    return element("tr", *cells)


def _threshold(value: float | None) -> str:
    if value is None:
        return NOTHING
    return "never" if value > _NEVER else percent(value)
