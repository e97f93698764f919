"""Evaluating a model: from a request to figures, predictions and a report in a folder."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from modeling.errors import ModelingError
from modeling.evaluation.request import EVALUATION_FILE, PLOTS_FOLDER, PREDICTIONS_FILE, EvaluateRequest
from modeling.images.progress import Emit, quiet_phase
from modeling.metrics.evaluation import Evaluation
from modeling.metrics.figures import evaluate_answers
from modeling.registry.card import REPORT_FILE

if TYPE_CHECKING:
    from modeling.evaluation.write import Evaluated

_OURS = {EVALUATION_FILE, PREDICTIONS_FILE, REPORT_FILE, PLOTS_FOLDER}


def evaluate(request: EvaluateRequest, emit: Emit) -> Evaluation:
    """Evaluate as requested and write `evaluation.json`, `predictions.csv`, `report.html` and `plots/` to the output.

    Raises:
        ModelingError: the model, the data, the device, the precision or the output folder cannot be used.
    """
    from modeling.evaluation.write import write_evaluation

    check_output(request.output)
    evaluated, evaluation = evaluate_model(request, emit)
    quiet_phase(emit, "writing the report")
    write_evaluation(evaluated, evaluation)
    return evaluation


def evaluate_model(request: EvaluateRequest, emit: Emit) -> tuple["Evaluated", Evaluation]:
    """Evaluate as requested, without writing anything.

    Events go to `emit` as they happen: `evaluate` with `num_done` and `num_images`, `phase`, `note` and `warning` with
    a `text`. Unreadable images, and images of labels that the model does not know, are counted and listed, and are in
    no figure.

    Raises:
        ModelingError: the model, the data, the device or the precision cannot be used.
    """
    from modeling.data.forms.open import open_dataset
    from modeling.evaluation.engine import engine_figures, load_classifier
    from modeling.evaluation.labels import known_images
    from modeling.evaluation.parts import choose_images, count_trained_on, parts_of
    from modeling.evaluation.predict import predict_dataset
    from modeling.evaluation.write import Evaluated

    classifier = load_classifier(request.model, request.device, request.precision, emit)
    quiet_phase(emit, "looking for images")
    dataset = open_dataset(request.data, request.layout, to_learn=False)
    split = parts_of(request.model)
    if split and request.part != "all":
        emit({"event": "note", "text": f"comparing {dataset.num_images} images with the model's training data"})

    def report(num_done: int, num_images: int | None) -> None:
        emit({"event": "evaluate", "num_done": num_done, "num_images": num_images})

    known = known_images(dataset, choose_images(dataset, request.part, split), classifier.labels)
    predicted = predict_dataset(classifier, dataset, known.indices, hashed=split is not None, on_progress=report)
    evaluation = evaluate_answers(predicted.answers, classifier.calibration)
    num_trained_on, engine = count_trained_on(split, predicted.sha256), engine_figures(classifier, dataset, predicted)
    evaluated = Evaluated(request, classifier.card, dataset, known, predicted, num_trained_on, engine)
    for text in evaluated.warnings(evaluation):
        emit({"event": "warning", "text": text})
    return evaluated, evaluation


def check_output(output: Path) -> None:
    """Refuse to write over anything but an earlier evaluation."""
    if output.exists() and not (output.is_dir() and set(os.listdir(output)) <= _OURS):
        raise ModelingError(f"output {output} exists and holds something else than an evaluation; give another folder")
