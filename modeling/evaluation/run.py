"""Evaluating a model: from a request to figures, predictions and a report in a folder."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from modeling.errors import ModelingError
from modeling.evaluation.request import EVALUATION_FILE, PLOTS_FOLDER, PREDICTIONS_FILE, EvaluateRequest
from modeling.images.progress import Emit
from modeling.metrics.evaluation import Evaluation
from modeling.metrics.figures import evaluate_answers
from modeling.registry.card import REPORT_FILE

if TYPE_CHECKING:
    from modeling.evaluation.write import Evaluated

_OURS = {EVALUATION_FILE, PREDICTIONS_FILE, REPORT_FILE, PLOTS_FOLDER}


def evaluate(request: EvaluateRequest, emit: Emit) -> Evaluation:
    """Evaluate as requested and leave `evaluation.json`, `predictions.csv`, `report.html` and `plots/` in the output.

    Raises:
        ModelingError: the model, the data, the device or the output folder cannot be used.
    """
    from modeling.evaluation.write import write_evaluation

    check_output(request.output)
    evaluated, evaluation = measure_model(request, emit)
    write_evaluation(evaluated, evaluation)
    return evaluation


def measure_model(request: EvaluateRequest, emit: Emit) -> tuple["Evaluated", Evaluation]:
    """Evaluate as requested, and write nothing.

    Events go to `emit` as they happen: `evaluate` with `num_done` and `num_images`, `note` and `warning` with a
    `text`. Images that cannot be read are counted and listed, and are no part of the figures.

    Raises:
        ModelingError: the model, the data or the device cannot be used.
    """
    from modeling.data.forms.open import open_dataset
    from modeling.evaluation.gather import gather
    from modeling.evaluation.parts import choose, num_trained_on, parts_of
    from modeling.evaluation.write import Evaluated
    from modeling.inference.classifier import Classifier  # torch: only where a model is wanted

    classifier = Classifier.load(request.model, request.device)
    dataset = open_dataset(request.data)
    split = parts_of(request.model)
    if split and request.part != "all":
        emit({"event": "note", "text": f"comparing {dataset.num_images} images with the model's training data"})
    gathered = gather(
        classifier,
        dataset,
        choose(dataset, request.part, split),
        hashed=split is not None,
        on_progress=lambda num_done, num_images: emit(
            {"event": "evaluate", "num_done": num_done, "num_images": num_images}
        ),
    )
    evaluation = evaluate_answers(gathered.answers, classifier.calibration)
    evaluated = Evaluated(request, classifier.card, dataset, gathered, num_trained_on(split, gathered.sha256))
    for text in evaluated.warnings():
        emit({"event": "warning", "text": text})
    return evaluated, evaluation


def check_output(output: Path) -> None:
    """Refuse to write over anything but an earlier evaluation."""
    if output.exists() and not (output.is_dir() and set(os.listdir(output)) <= _OURS):
        raise ModelingError(f"output {output} exists and holds something else than an evaluation; give another folder")
