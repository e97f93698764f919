"""What the process of a job is asked to do: a training or an evaluation, on this worker's device."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from modeling.evaluation.request import EvaluateRequest
from modeling.registry.store import ModelStore
from modeling.training.request import TrainRequest
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.requests import AnyJobRequest, EvaluateJobRequest, TrainJobRequest
from workers.context import WorkerContext


@dataclass(frozen=True)
class ProcessSpec:
    """One kind of work for `modeling.training.process`.

    name: of the work, in messages.
    result: path of the complete result in the job folder.
    request: makes the request for the process from the file of its attempt and the folder it writes to; raises
        modeling's ModelingError.
    distributed: whether the work uses one process for each GPU of the worker.
    """

    name: str
    result: Path
    request: Callable[[Path, Path], dict[str, Any]]
    distributed: bool = False


def process_spec(request: AnyJobRequest, folder: JobFolder, context: WorkerContext) -> ProcessSpec | None:
    """The spec of a job; None for one that needs no process of its own."""
    match request:
        case TrainJobRequest():
            make = partial(_train, request, folder, context)
            return ProcessSpec("training", folder.model, make, distributed=True)
        case EvaluateJobRequest():
            return ProcessSpec("evaluation", folder.evaluation, partial(_evaluate, request, context))
        case _:
            return None


def _train(
    request: TrainJobRequest, folder: JobFolder, context: WorkerContext, attempt: Path, output: Path
) -> dict[str, Any]:
    """The operator's request, on this worker's device; the next attempt continues from the last checkpoint."""
    places = {"output": output, "work": folder.training, "attempt": attempt, "cache": context.settings.cache}
    places["engines"] = ModelStore(context.settings.models).engines
    if request.train.get("weights_pin"):
        places["weights"] = folder.weights  # the job's own copy: the operator's file may be on another machine
    wanted = request.train | places | {"device": context.device}
    return {"task": "train"} | TrainRequest.from_json(wanted).to_json()


def _evaluate(request: EvaluateJobRequest, context: WorkerContext, attempt: Path, output: Path) -> dict[str, Any]:
    """The pinned model, if the store still has it, on this worker's device."""
    version = ModelStore(context.settings.models).resolve_pinned(request.model.ref, request.model.digest)
    wanted = EvaluateRequest(
        version.path,
        Path(request.data),
        output,
        context.device,
        request.part,
        version.ref,
        request.precision,
        request.layout,
    )
    return {"task": "evaluate"} | wanted.to_json()
