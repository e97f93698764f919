"""The engine that answers an evaluation, and how far its answers are from those of the reference."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from modeling.data.dataset import Dataset
from modeling.errors import ModelingError
from modeling.evaluation.predict import DatasetAnswers, predict_dataset
from modeling.images.progress import Emit
from modeling.inference.engines.precision import WantedPrecision
from modeling.metrics.comparison import reference_difference
from modeling.metrics.evaluation import EngineFigures, ReferenceDifference
from modeling.registry.store import ModelVersion
from modeling.registry.version_folder import is_number

if TYPE_CHECKING:
    from modeling.inference.classifier import Classifier

SAMPLE_IMAGES = 500
_SEED = 0


def load_classifier(
    model: Path, device: str, precision: WantedPrecision, emit: Emit = lambda event: None
) -> "Classifier":
    """The model version in a folder of a store with the engine that jobs use; elsewhere a model with the reference.

    emit: receives a `note` with what is measured.

    Raises:
        ModelFormatError: the model is damaged.
        ModelingError: the precision cannot be had.
    """
    if is_number(model.name):
        from modeling.inference.choose_engine import load_fastest  # torch: only where a model is wanted

        def report(text: str) -> None:
            emit({"event": "note", "text": text})

        return load_fastest(ModelVersion.at(model), device, precision=precision, report=report)
    if precision not in ("auto", "fp32"):
        raise ModelingError(f"precision {precision} needs a published model, and {model} is none; give auto or fp32")
    from modeling.inference.classifier import Classifier

    return Classifier.load(model, device)


def engine_figures(classifier: "Classifier", dataset: Dataset, predicted: DatasetAnswers) -> EngineFigures:
    """What answered, and how far a sample of its answers is from the reference's.

    Raises:
        DataError: none of the sampled images can be read any more.
    """
    reference = classifier.reference.name
    difference = None
    if classifier.engine_name != reference:
        difference = _difference(classifier, dataset, predicted)
    precision = classifier.engine.name.split()[1]
    return EngineFigures(classifier.engine_name, precision, reference, difference)


def _difference(classifier: "Classifier", dataset: Dataset, predicted: DatasetAnswers) -> ReferenceDifference:
    sample = predicted.indices_N
    if len(sample) > SAMPLE_IMAGES:
        sample = np.sort(np.random.default_rng(_SEED).choice(sample, SAMPLE_IMAGES, replace=False))
    by_reference = predict_dataset(classifier.on(classifier.reference), dataset, sample)
    temperature = classifier.calibration.temperature if classifier.calibration else 1.0
    return reference_difference(predicted.only(by_reference.indices_N), by_reference.answers, temperature)
