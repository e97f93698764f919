"""Small contents of reports: answers made up, pictures of a few pixels."""

from collections.abc import Callable

import numpy as np

from modeling.metrics.calibration import Calibration
from modeling.metrics.evaluation import (
    ClassFigures,
    CoveragePoint,
    DecisionFigures,
    Evaluation,
    Mistake,
    ReliabilityBin,
)
from modeling.report.content import LabelledPicture, ReportContent, Sample

EVIL = """<script>alert("x")</script> ' onload='x' {{ 7 * 7 }}{% raw %} & $\\frac{1}"""
HISTORY = (
    {"epoch": 1, "loss": 0.9, "accuracy": 0.5, "learning_rate": 0.1, "seconds": 1.0},
    {"epoch": 2, "loss": 0.4, "accuracy": 0.75, "learning_rate": 0.01, "seconds": 1.0},
)
DATA = {
    "num_images": 12,
    "classes": {"cat": 9, "dog": 3},
    "findings": [
        {"severity": "info", "code": "sizes", "message": "sizes differ"},
        {"severity": "error", "code": "corrupt", "message": "2 images do not decode"},
    ],
    "modes": {"RGB": 12},
}
CALIBRATION = Calibration(
    temperature=1.5,
    max_error=0.01,
    accept=(0.9, 1.1),
    reject_below=0.5,
    num_images=40,
    review_rate=0.2,
    reject_rate=0.05,
    accepted_error=0.005,
)


def picture(index: int, side: int = 8, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (side, side, channels), dtype=np.uint8)


def evaluation(
    confusion=((8, 2), (1, 9)), labels=("cat", "dog"), *, decisions: bool = True, mistakes=None
) -> Evaluation:
    counts = np.array(confusion)
    num_images, num_right = int(counts.sum()), int(np.trace(counts))
    rows, columns = np.nonzero(counts - np.diag(np.diag(counts)))
    wrong = zip(rows.tolist(), columns.tolist(), strict=True)
    made = tuple(
        Mistake(index, f"{labels[row]}/{index}.png", labels[row], labels[column], 0.95 - index / 1000)
        for index, (row, column) in enumerate(wrong)
    )
    return Evaluation(
        labels=tuple(labels),
        num_images=num_images,
        num_right=num_right,
        accuracy=num_right / num_images,
        accuracy_interval=(0.64, 0.95),
        top_k={},
        macro_f1=0.85,
        nll=0.4,
        ece=0.02,
        raw_nll=0.6,
        raw_ece=0.08,
        temperature=1.5 if decisions else 1.0,
        confusion=tuple((row, column, int(counts[row, column])) for row, column in np.argwhere(counts).tolist()),
        classes=tuple(_figures(labels[i], counts, i) for i in range(len(labels))),
        reliability=(ReliabilityBin(0.4, 0.5, 0, 0.0, 0.0), ReliabilityBin(0.9, 1.0, num_images, 0.95, 0.85)),
        coverage=(CoveragePoint(0.9, 0.5, 0.0), CoveragePoint(0.5, 0.8, 0.01), CoveragePoint(0.0, 1.0, 0.15)),
        decisions=DecisionFigures(0.01, 14, 0, 4, 2, 0.0, (0.0, 0.22), 1.0) if decisions else None,
        mistakes=made if mistakes is None else mistakes,
    )


def _figures(label: str, counts: np.ndarray, place: int) -> ClassFigures:
    of_class, predicted, right = int(counts[place].sum()), int(counts[:, place].sum()), int(counts[place, place])
    recall = right / of_class if of_class else None
    interval = (0.0, 1.0) if of_class else None
    return ClassFigures(
        label, of_class, predicted, right, right / predicted if predicted else None, recall, interval, recall
    )


def whole_content(**changes) -> ReportContent:
    parts = {
        "title": "animals@3",
        "facts": (("architecture", "cnn"), ("seed", "0")),
        "history": HISTORY,
        "data": DATA,
        "evaluation": evaluation(),
        "picture": picture,
        "samples": (
            Sample("cat/7.png", "cat", "cat", 0.97, "accept", picture(7)),
            Sample("dog/8.png", "dog", "cat", 0.6, "review", picture(8, 200, 1)),
        ),
        "calibration": CALIBRATION,
    }
    return ReportContent(**(parts | changes))


TEXT_FIELDS = (
    *("title", "part", "fact-name", "fact-value", "label-1", "label-2", "mistake-name", "mistake-label"),
    *("sample-name", "sample-label", "sample-predicted", "sample-decision"),
    *("path", "kind", "parts", "format", "mode", "size", "error-code", "class", "finding"),
    *("look-name", "look-label"),
    *("copy", "copy-label-1", "copy-label-2", "unreadable-path", "unreadable-message"),
)


def named_content(name: Callable[[str], str]) -> ReportContent:
    """A content that says `name(field)` in each of the TEXT_FIELDS."""
    labels = (name("label-1"), name("label-2"))
    mistake = Mistake(0, name("mistake-name"), name("mistake-label"), labels[0], 0.9)
    return whole_content(
        title=name("title"),
        part=name("part"),
        facts=((name("fact-name"), name("fact-value")),),
        data=_named_data(name),
        doubtful=(
            (
                LabelledPicture(name("look-name"), name("look-label"), picture(2)),
                LabelledPicture(name("look-name"), name("look-label"), None),
                True,
            ),
        ),
        num_doubtful=1,
        evaluation=evaluation(labels=labels, mistakes=(mistake,)),
        samples=(
            Sample(
                name("sample-name"),
                name("sample-label"),
                name("sample-predicted"),
                0.5,
                name("sample-decision"),
                picture(1),
            ),
        ),
    )


def _named_data(name: Callable[[str], str]) -> dict:
    return {
        "path": name("path"),
        "kind": name("kind"),
        "parts": name("parts"),
        "formats": {name("format"): 1},
        "modes": {name("mode"): 1},
        "sizes": {"smallest": name("size")},
        "error_codes": {name("error-code"): 1},
        "classes": {name("class"): 3},
        "findings": [{"severity": name("severity"), "message": name("finding")}],
        "duplicates": [
            {"exact": True, "images": [name("copy")], "labels": [name("copy-label-1"), name("copy-label-2")]}
        ],
        "unreadable": [{"path": name("unreadable-path"), "message": name("unreadable-message")}],
    }
