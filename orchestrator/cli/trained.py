"""The result of a training: what was published, and what its held-out images say of it."""

from collections.abc import Mapping
from typing import Any

from modeling.durable import decode_json
from modeling.errors import ModelNotFoundError
from modeling.metrics.verdict import EvaluationVerdict
from modeling.registry.card import REPORT_FILE
from modeling.registry.store import ModelStore, ModelVersion
from orchestrator.cli.output import print_json, print_line, print_message
from orchestrator.contract.errors import IntegrityError
from orchestrator.contract.ledger.record import JobRecord
from orchestrator.contract.settings import Settings
from orchestrator.jobs.follow import to_json

EVALUATION_FILE = "evaluation.json"
_SHOWN = (
    "part", "engine", "num_images", "num_right", "accuracy", "accuracy_interval", "classes_without_images", "decisions",
    "nothing_accepted",
)  # fmt: skip


def show_trained(settings: Settings, record: JobRecord, as_json: bool) -> None:
    """Print the published model; the last lines of the talk are what the test part says of it."""
    version = _find(settings, record.result) if record.result else None
    evaluation = _read_evaluation(version) if version else None
    if as_json:
        print_json(to_json(settings, record) | _facts(version, evaluation))
        return
    if version is not None:
        print_message(f"published {record.result}; its report: {version.path / REPORT_FILE}")
        print_message(f"use it with `pigeonhole classify SOURCE --model {record.result}`")
        for sentence in _sentences(evaluation):
            print_message(sentence)
    if record.result:
        print_line(record.result)


def _find(settings: Settings, ref: str) -> ModelVersion | None:
    try:
        return ModelStore(settings.models).resolve(ref)
    except ModelNotFoundError:  # a job is watched long after its end
        print_message(f"{ref} has been removed", color="yellow")
        return None


def _read_evaluation(version: ModelVersion) -> Mapping[str, Any] | None:
    """The evaluation that the training wrote; None if it held out no images."""
    path = version.path / EVALUATION_FILE
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    document = decode_json(data, str(path), error=IntegrityError)
    if not isinstance(document, dict):
        raise IntegrityError(f"{path} is not an evaluation")
    return document


def _sentences(evaluation: Mapping[str, Any] | None) -> list[str]:
    if evaluation is None:
        return ["nothing is known of its accuracy: no test or validation images were held out (--test, --validation)"]
    try:
        return EvaluationVerdict.from_json(evaluation).sentences
    except (LookupError, TypeError, ValueError, ArithmeticError):
        return ["its figures are those of another release; `pigeonhole models evaluate` computes them again"]


def _facts(version: ModelVersion | None, evaluation: Mapping[str, Any] | None) -> dict[str, Any]:
    """For `--json`: the network, the card's metrics, the counts on the held-out images, and what they say."""
    if version is None:
        return {"network": None, "metrics": {}, "evaluation": None}
    card = version.card()
    network = {name: card.training.get(name) for name in ("chosen", "weights", "weights_sha256")}
    shown = {key: evaluation.get(key) for key in _SHOWN} if evaluation else {}
    return {
        "network": network | {"architecture": card.architecture},
        "metrics": card.metrics,
        "evaluation": shown | {"sentences": _sentences(evaluation)},
    }
