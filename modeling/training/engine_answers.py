"""The test of a trained model by the engine that answers jobs on this machine, instead of by torch."""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from modeling.data.images import Indices
from modeling.errors import reason_of, trouble_of
from modeling.evaluation.predict import DatasetAnswers, predict_dataset
from modeling.images.progress import Emit
from modeling.inference.choose_engine import load_fastest
from modeling.inference.classifier import Classifier
from modeling.inference.engines.choice import copy_artifacts
from modeling.metrics.figures import evaluate_answers
from modeling.registry.card import CARD_FILE, INT8_FILE, WEIGHTS_FILE
from modeling.registry.store import ModelVersion
from modeling.training.data import TrainingData
from modeling.training.model_folder import HeldOutResults, Model, metrics_of
from modeling.training.request import TrainRequest

logger = logging.getLogger(__name__)


def answer_by_engine(
    request: TrainRequest, data: TrainingData, held_out: HeldOutResults, model: Model, device: str, emit: Emit
) -> tuple[HeldOutResults, Model]:
    """The results on the test part as jobs will answer it, and the model with them in its card.

    The choice of the engine, and its graph, are stored for the model that is then written to the output. If the engine
    fails, the results of torch remain, with a warning: a training is not lost for its test.
    """
    assert request.engines is not None
    try:
        with _stored(request.output, model) as draft:
            classifier = _load(draft, device, request.engines, emit)
            predicted = _predict(classifier, data, held_out.indices_M, emit)
            tested = replace(
                held_out,
                indices_M=predicted.indices_N,
                answers=predicted.answers,
                evaluation=evaluate_answers(predicted.answers, held_out.calibration),
                engine=classifier.engine_name,
            )
            described = replace(model, card=replace(model.card, metrics=metrics_of(data, tested)))
            copy_artifacts(draft.artifacts, _artifacts_of(request.output, described))
    except Exception as err:  # whatever a library raises: torch's answers remain
        if trouble_of(err):
            raise
        logger.warning("the test part was not answered by the engine of jobs", exc_info=err)
        text = f"torch answered the test images, and not the engine that jobs use: {reason_of(err)}"
        emit({"event": "warning", "text": text})
        return held_out, model
    return tested, described


@contextmanager
def _stored(output: Path, model: Model) -> Iterator[ModelVersion]:
    """The model as a version in a folder of its own, as long as it is needed.

    The folder begins with the name of the output: with the results of lost claims, the end of a job removes it, too,
    where this process was killed.
    """
    with tempfile.TemporaryDirectory(prefix=f"{output.name}.test-", dir=output.parent) as scratch:
        path = Path(scratch, "1")
        path.mkdir()
        (path / CARD_FILE).write_bytes(model.card.to_bytes())
        (path / WEIGHTS_FILE).write_bytes(model.weights)
        if model.int8 is not None:
            (path / INT8_FILE).write_bytes(model.int8)
        yield ModelVersion.at(path)


def _load(version: ModelVersion, device: str, engines: Path, emit: Emit) -> Classifier:
    def report(text: str) -> None:
        emit({"event": "note", "text": text})

    return load_fastest(version, device, report=report, shared=engines)


def _predict(classifier: Classifier, data: TrainingData, indices_M: Indices, emit: Emit) -> DatasetAnswers:
    def report(num_done: int, num_images: int | None) -> None:
        emit({"event": "evaluate", "num_done": num_done, "num_images": num_images})

    return predict_dataset(classifier, data.dataset, indices_M, on_progress=report)


def _artifacts_of(output: Path, model: Model) -> Path:
    """Where the model's artifacts will be once it is written to `output`."""
    return ModelVersion(output.name, 0, model.card.digest, output).artifacts
