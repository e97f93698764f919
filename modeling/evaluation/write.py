"""The files of an evaluation: figures as JSON, a line an image as CSV, the report with its plots."""

# Shapes: H height, W width, C channels, N images.
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modeling.data.dataset import Dataset, abbreviate
from modeling.data.images import load_image
from modeling.durable import replaced_folder
from modeling.errors import ImageError
from modeling.evaluation.labels import KnownImages
from modeling.evaluation.parts import lacks_record
from modeling.evaluation.predict import DatasetAnswers
from modeling.evaluation.request import EVALUATION_FILE, PREDICTIONS_FILE, EvaluateRequest
from modeling.images.pixels import Pixels
from modeling.images.preprocessing import Preprocessing
from modeling.metrics.answers import Scored
from modeling.metrics.evaluation import EngineFigures, Evaluation, document_text
from modeling.names import csv_lines, text_to_cell, to_cell
from modeling.registry.card import ModelCard

if TYPE_CHECKING:
    from modeling.report.content import Sample

EVALUATION_VERSION = 2  # 1 had the confusion as a matrix
PREDICTION_COLUMNS = ("name", "label", "predicted", "score", "decision")
MAX_UNREADABLE = 100  # listed; all are counted

_NUM_SAMPLES = 24
_PICTURE_PX = 128  # a report's pictures: no smaller than this where the file has more


@dataclass(frozen=True, slots=True, eq=False)
class Evaluated:
    """What was evaluated on what, and by which engine.

    known: the images of labels that the model knows; only these are evaluated.
    num_trained_on: evaluated images that the model's training saw; None where the model does not say which.
    """

    request: EvaluateRequest
    card: ModelCard
    dataset: Dataset
    known: KnownImages
    predicted: DatasetAnswers
    num_trained_on: int | None
    engine: EngineFigures

    def warnings(self, evaluation: Evaluation) -> list[str]:
        """What a reader of the figures must know."""
        num_images, num_unreadable = len(self.predicted.answers.names), len(self.predicted.unreadable)
        found = []
        if self.num_trained_on:
            found.append(
                f"the model was trained on {self.num_trained_on} of these {num_images} images: "
                "the figures flatter it; --part test leaves them out"
            )
        if lacks_record(self.card, self.num_trained_on):
            found.append(
                "the model has no record of its training images (an export carries none): "
                "if some of these are among them, the figures flatter it"
            )
        if num_unreadable:
            found.append(f"{num_unreadable} of {num_images + num_unreadable} images cannot be read; no figure has them")
        if left_out := self.known.describe():
            found.append(left_out)
        if absent := evaluation.classes_without_images:
            found.append(f"class {abbreviate(absent)} has no images: nothing is measured for it")
        return found

    def facts(self) -> dict[str, Any]:
        """What was evaluated, for the JSON document."""
        unreadable = self.predicted.unreadable
        return {
            "version": EVALUATION_VERSION,
            "model": self.request.model_ref,
            "weights_sha256": self.card.weights_sha256,
            "data": str(self.request.data),
            "part": self.request.part,
            **self.engine.to_json(),
            "num_unreadable": len(unreadable),
            "unreadable": [asdict(each) for each in unreadable[:MAX_UNREADABLE]],
            "num_left_out": self.known.num_left_out,
            "labels_left_out": list(self.known.labels_left_out),
            "num_trained_on": self.num_trained_on,
            "nothing_accepted": self.card.training.get("nothing_accepted"),  # why, where its thresholds accept nothing
        }


def write_evaluation(evaluated: Evaluated, evaluation: Evaluation) -> None:
    """Write everything to a folder beside the output, and rename it into the place of an earlier evaluation."""
    with replaced_folder(evaluated.request.output) as staging:
        for name, text in documents(evaluated, evaluation).items():
            (staging / name).write_text(text, encoding="utf-8", newline="")
        _write_report(staging, evaluated, evaluation)


def documents(evaluated: Evaluated, evaluation: Evaluation) -> dict[str, str]:
    """Text of `evaluation.json` and `predictions.csv` by their names."""
    figures = document_text(evaluated.facts() | evaluation.to_json())
    return {EVALUATION_FILE: figures, PREDICTIONS_FILE: _predictions(evaluated)}


def _predictions(evaluated: Evaluated) -> str:
    """One line an image, in the order of the data."""
    answers, labels = evaluated.predicted.answers, evaluated.card.labels
    scored, decisions = _scored(evaluated)
    columns = (answers.targets_N.tolist(), scored.predicted_N.tolist(), scored.scores_N.tolist(), decisions)
    rows = (
        (text_to_cell(name), to_cell(labels[target]), to_cell(labels[predicted]), f"{score:.6f}", decision or "")
        for name, target, predicted, score, decision in zip(answers.names, *columns, strict=True)
    )
    return csv_lines(chain([PREDICTION_COLUMNS], rows))


def _scored(evaluated: Evaluated) -> tuple[Scored, list[str | None]]:
    """Scores and decisions as the model's calibration makes them."""
    calibration = evaluated.card.calibration
    scored = Scored.of(evaluated.predicted.answers, calibration.temperature if calibration else 1.0)
    if calibration is None:
        return scored, [None] * len(scored.scores_N)
    return scored, list(calibration.decide_all(scored.predicted_N, scored.scores_N))


def _write_report(folder: Path, evaluated: Evaluated, evaluation: Evaluation) -> None:
    from modeling.report.content import ReportContent
    from modeling.report.write import write_report

    request, card = evaluated.request, evaluated.card
    facts = [
        ("model", request.model_ref),
        ("architecture", card.architecture),
        ("weights", card.weights_sha256[:12]),
        ("data", str(request.data)),
        ("device", request.device),
        ("engine", evaluated.engine.engine),
        ("reference", evaluated.engine.describe()),
        *(("beware", warning) for warning in evaluated.warnings(evaluation)),
    ]
    content = ReportContent(
        title=request.model_ref,
        facts=facts,
        evaluation=evaluation,
        part="evaluated" if request.part == "all" else request.part,
        picture=_pictures(evaluated),
        samples=_samples(evaluated),
        calibration=card.calibration,
        left_out=evaluated.known.describe(),
    )
    write_report(folder, content)


def _pictures(evaluated: Evaluated) -> Callable[[int], Pixels | None]:
    """A function from an evaluated image's place to its pixels, framed as the network sees it."""
    shown = _enlarged(evaluated.card.preprocessing)

    def picture(place: int) -> Pixels | None:
        index = int(evaluated.predicted.indices_N[place])
        if evaluated.dataset.pixels_NHWC is not None:
            pixels_HWC: Pixels = evaluated.dataset.pixels_NHWC[index]
            return pixels_HWC
        try:
            return load_image(evaluated.dataset, index, shown)
        except ImageError:  # it was there a moment ago; the report shows a blank
            return None

    return picture


def _enlarged(preprocessing: Preprocessing) -> Preprocessing:
    """The same framing with sides of at least `_PICTURE_PX`."""
    factor = max(1, -(-_PICTURE_PX // max(preprocessing.height, preprocessing.width)))
    return Preprocessing(
        preprocessing.mode,
        preprocessing.height * factor,
        preprocessing.width * factor,
        None if preprocessing.resize is None else preprocessing.resize * factor,
        background=preprocessing.background,
    )


def _samples(evaluated: Evaluated) -> list["Sample"]:
    """Some images with predictions, evenly spread over the data."""
    from modeling.report.content import Sample

    answers, labels = evaluated.predicted.answers, evaluated.card.labels
    scored, decisions = _scored(evaluated)
    picture = _pictures(evaluated)
    last = len(answers.names) - 1
    places = np.unique(np.linspace(0, last, min(_NUM_SAMPLES, last + 1)).round().astype(int)).tolist()
    return [
        Sample(
            name=answers.names[place],
            label=labels[answers.targets_N[place]],
            predicted=labels[scored.predicted_N[place]],
            score=float(scored.scores_N[place]),
            decision=decisions[place],
            picture=pixels_HWC,
        )
        for place in places
        if (pixels_HWC := picture(place)) is not None
    ]
