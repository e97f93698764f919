"""Evaluating a model: from a request to figures, predictions and a report in a folder."""

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from modeling.errors import ModelingError
from modeling.evaluation.parts import PARTS, Part
from modeling.metrics.evaluation import Evaluation
from modeling.metrics.figures import evaluate_answers
from modeling.registry.card import REPORT_FILE

if TYPE_CHECKING:
    from modeling.evaluation.write import Subject

Emit = Callable[[dict[str, Any]], None]

EVALUATION_FILE = "evaluation.json"
PREDICTIONS_FILE = "predictions.csv"
PLOTS_FOLDER = "plots"

_OURS = {EVALUATION_FILE, PREDICTIONS_FILE, REPORT_FILE, PLOTS_FOLDER}


@dataclass(frozen=True, slots=True)
class EvaluateRequest:
    """Evaluate the model in folder `model` on labelled images and leave the result in the folder `output`.

    part: `all` images of `data`, or those of one part of the model's own split (known by their content), or of the
        official parts of `data` where the model's training has not seen them.
    model_ref: what the model is called in the result; the folder's name where empty.
    """

    model: Path
    data: Path
    output: Path
    device: str = "cpu"
    part: Part = "all"
    model_ref: str = ""

    def __post_init__(self) -> None:
        for name in ("model", "data", "output"):
            object.__setattr__(self, name, Path(getattr(self, name)))
        if self.part not in PARTS:
            raise ModelingError(f"unknown part {self.part!r}; choose one of {', '.join(PARTS)}")
        object.__setattr__(self, "model_ref", self.model_ref or self.model.name)

    def to_json(self) -> dict[str, Any]:
        """A dict that JSON can hold."""
        return {name: str(value) for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The reverse of `to_json`; keys with a default may be left out.

        Raises:
            ModelingError: unknown or missing keys, or values that are no text.
        """
        if not isinstance(value, Mapping):
            raise ModelingError(f"an evaluation request must be an object, not {type(value).__name__}")
        unknown = sorted(set(value) - {field.name for field in fields(cls)})
        missing = sorted({"model", "data", "output"} - set(value))
        if unknown or missing:
            raise ModelingError(f"evaluation request: unknown keys {unknown}, missing keys {missing}")
        for key, text in value.items():
            if not isinstance(text, str):
                raise ModelingError(f"{key} must be a string, not {text!r}")
        return cls(**value)


def evaluate(request: EvaluateRequest, emit: Emit) -> Evaluation:
    """Evaluate as requested and leave `evaluation.json`, `predictions.csv`, `report.html` and `plots/` in the output.

    Raises:
        ModelingError: the model, the data, the device or the output folder cannot be used.
    """
    from modeling.evaluation.write import write_evaluation

    check_output(request.output)
    subject, evaluation = measure(request, emit)
    write_evaluation(subject, evaluation)
    return evaluation


def measure(request: EvaluateRequest, emit: Emit) -> tuple["Subject", Evaluation]:
    """Evaluate as requested, and write nothing.

    Events go to `emit` as they happen: `evaluate` with `num_done` and `num_images`, `note` and `warning` with a
    `text`. Images that cannot be read are counted and listed, and are no part of the figures.

    Raises:
        ModelingError: the model, the data or the device cannot be used.
    """
    from modeling.data.forms.open import open_dataset
    from modeling.evaluation.gather import gather
    from modeling.evaluation.parts import choose, num_trained_on, parts_of
    from modeling.evaluation.write import Subject
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
    subject = Subject(request, classifier.card, dataset, gathered, num_trained_on(split, gathered.sha256))
    for text in subject.warnings():
        emit({"event": "warning", "text": text})
    return subject, evaluation


def check_output(output: Path) -> None:
    """Refuse to write over anything but an earlier evaluation."""
    if output.exists() and not (output.is_dir() and set(os.listdir(output)) <= _OURS):
        raise ModelingError(f"output {output} exists and holds something else than an evaluation; give another folder")
