"""What a training and an evaluation ask of the child process that does them, and where the result goes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modeling.evaluation.request import EvaluateRequest
from modeling.registry.store import ModelStore
from modeling.training.request import TrainRequest
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.requests import AnyJobRequest, EvaluateJobRequest, TrainJobRequest
from workers.context import Station


@dataclass(frozen=True)
class ChildSpec:
    """One kind of work for `modeling.training.process`.

    name: what it is called, in messages.
    place: where the result lies in the job folder, once it is whole.
    request: what the child is told, given the folder that it shall make; raises modeling's ModelingError.
    together: whether a process on every GPU of the worker does it, all of them together.
    """

    name: str
    place: Path
    request: Callable[[Path], dict[str, Any]]
    together: bool = False


def child_spec(request: AnyJobRequest, folder: JobFolder, station: Station) -> ChildSpec | None:
    """The spec of a job; None for one that needs no child process."""
    match request:
        case TrainJobRequest():
            return ChildSpec("training", folder.model, lambda output: _train(request, output, folder, station), True)
        case EvaluateJobRequest():
            return ChildSpec("evaluation", folder.evaluation, lambda output: _evaluate(request, output, station))
        case _:
            return None


def _train(request: TrainJobRequest, output: Path, folder: JobFolder, station: Station) -> dict[str, Any]:
    """The operator's wish, on this worker's device; whoever tries again goes on from the last checkpoint."""
    places = {"output": str(output), "work": str(folder.path / "training"), "cache": str(station.settings.cache)}
    wish = request.train | places | {"device": station.device}
    return {"task": "train"} | TrainRequest.from_json(wish).to_json()


def _evaluate(request: EvaluateJobRequest, output: Path, station: Station) -> dict[str, Any]:
    """The pinned model, if the store still has it, on this worker's device."""
    version = ModelStore(station.settings.models).resolve_pinned(request.model.ref, request.model.digest)
    wish = EvaluateRequest(
        version.path, Path(request.data), output, station.device, request.part, model_ref=version.ref
    )
    return {"task": "evaluate"} | wish.to_json()
