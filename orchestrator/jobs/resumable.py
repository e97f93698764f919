"""Whether a job can be resumed, as far as the disk can tell: what it needs to go on."""

import os
from pathlib import Path

from modeling.errors import ModelingError, ModelNotFoundError
from modeling.names import text_to_path
from modeling.registry.store import ModelStore
from orchestrator.contract.errors import NotFoundError, PigeonholeError
from orchestrator.contract.jobs.base import sha256_of
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.listing import count_shards, listing_is_whole, read_source_facts
from orchestrator.contract.jobs.requests import ClassifyRequest, EvaluateJobRequest, ModelPin, TrainJobRequest
from orchestrator.contract.settings import Settings
from orchestrator.jobs.outputs import check_resumed_folder, check_resumed_manifest
from orchestrator.jobs.relisting import open_again


def check_resumable(settings: Settings, job: str) -> JobFolder:
    """The folder of a job that can be resumed, as far as the disk can tell.

    Raises PigeonholeError where it has succeeded, NotFoundError where it does not exist or its model or source is gone,
    UsageError where its output appeared meanwhile, or its images cannot be listed again.
    """
    folder = JobFolder.open(settings, job)
    request, outcome = folder.request(), folder.outcome()
    if outcome is not None and outcome.state in ("succeeded", "partial"):
        retry = f"; `pigeonhole jobs retry {job}` tries failed images again" if outcome.num_failed else ""
        raise PigeonholeError(f"job {job} has ended as {outcome.state}: nothing is missing in {outcome.result}{retry}")
    match request:
        case ClassifyRequest():
            _check_classify(settings, folder, request)
        case TrainJobRequest():
            _check_training(folder, request)
        case EvaluateJobRequest():
            if not folder.evaluation.exists():
                _check_model(settings, job, request.model)
                _check_is_there(job, "data", request.data)
            if request.output is not None:
                check_resumed_folder(Path(text_to_path(request.output)))
    return folder


def _check_classify(settings: Settings, folder: JobFolder, request: ClassifyRequest) -> None:
    job, output = folder.job, Path(text_to_path(request.output))
    if not listing_is_whole(folder.work):
        open_again(folder, request)
    elif sum(1 for _ in folder.parts.glob("*.part")) < count_shards(folder.work)[0]:
        _check_is_there(job, "source", request.root)
        facts = read_source_facts(folder.work)
        if facts is not None and facts.walked and not os.listdir(text_to_path(request.root)):
            raise NotFoundError(f"the source of job {job}, {request.root!r}, is empty now: mount it, and resume again")
    _check_model(settings, job, request.model)
    base_job = request.base.job if request.base is not None and request.base.replaced else None
    overwrite = request.overwrite or _is_base(output, request)
    source = Path(text_to_path(request.source))
    check_resumed_manifest(output, job, base_job=base_job, overwrite=overwrite, source=source)


def _is_base(output: Path, request: ClassifyRequest) -> bool:
    """Whether the manifest at the output is the one that the new one is to take the place of."""
    base = request.base
    return base is not None and base.replaced and output.is_file() and sha256_of(output) == base.manifest_sha256


def _check_training(folder: JobFolder, request: TrainJobRequest) -> None:
    if folder.model.exists():
        return
    for data in (request.train["data"], *request.train.get("joined", ())):
        _check_is_there(folder.job, "data", data)
    if request.train.get("weights_pin") and not folder.weights.exists():
        raise NotFoundError(
            f"the weights that job {folder.job} starts from are not in its folder any more ({folder.weights}); "
            "submit it again"
        )


def _check_model(settings: Settings, job: str, pin: ModelPin) -> None:
    try:
        ModelStore(settings.models).resolve_pinned(pin.ref, pin.digest)
    except ModelNotFoundError as err:
        raise NotFoundError(f"job {job} needs its model again: {err}; import it, or submit with another") from err
    except ModelingError as err:
        raise PigeonholeError(f"job {job} needs its model as it was: {err}; submit it again") from err


def _check_is_there(job: str, what: str, place: str) -> None:
    if not os.path.exists(text_to_path(place)):  # noqa: PTH110 the name may not be UTF-8
        raise NotFoundError(f"the {what} of job {job}, {place!r}, is not there: bring it back, and resume again")
