"""The model version that a job is submitted with, and the job whose images are to be classified again with it."""

import os
from dataclasses import dataclass

from modeling.errors import ModelNotFoundError
from modeling.inference.engines.precision import WantedPrecision
from modeling.names import text_to_path
from modeling.registry.card import INT8_FILE, ModelCard
from modeling.registry.store import ModelStore, ModelVersion
from orchestrator.contract.errors import NotFoundError, UsageError
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.requests import ClassifyRequest, ModelPin
from orchestrator.contract.settings import Settings


@dataclass(frozen=True)
class PinnedModel:
    """The version that the operator's reference stands for now, and its card."""

    version: ModelVersion
    card: ModelCard

    @property
    def pin(self) -> ModelPin:
        """As a request holds it."""
        return ModelPin(
            name=self.version.name,
            number=self.version.version,
            digest=self.version.digest,
            preprocessing_digest=self.card.preprocessing.digest,
            model_format=self.card.format_version,
        )


def pin_model(settings: Settings, ref: str) -> PinnedModel:
    """The version that `ref` stands for now.

    Raises ModelingError where there is no such version, or its card cannot be read.
    """
    version = ModelStore(settings.models).resolve(ref)
    return PinnedModel(version, version.card())


def check_precision(model: PinnedModel, precision: WantedPrecision) -> None:
    """Raises UsageError where the model has no int8 weights; does not check whether workers support int8."""
    if precision == "int8" and not (model.version.path / INT8_FILE).is_file():
        why = model.card.why_no_int8()
        raise UsageError(f"--precision int8: {model.version.ref} {why}; leave the precision to auto")


def published_request(settings: Settings, job: str) -> ClassifyRequest:
    """The request of a classify job that has published a manifest.

    Raises NotFoundError where there is no such job, UsageError where it has no manifest, or none yet.
    """
    folder = JobFolder.open(settings, job)
    request, outcome = folder.request(), folder.outcome()
    if not isinstance(request, ClassifyRequest):
        raise UsageError(f"job {job} has no manifest: its kind is {request.kind}, not classify")
    if outcome is None:
        raise UsageError(f"job {job} has not ended; `pigeonhole wait {job}` waits for it")
    if outcome.result is None:
        raise UsageError(
            f"job {job} is {outcome.state} and has no manifest; `pigeonhole jobs resume {job}` goes on with it"
        )
    return request


def pin_again(settings: Settings, request: ClassifyRequest) -> PinnedModel:
    """The version that a job was submitted with, to classify its images again.

    Raises NotFoundError where it or the folder of the images is gone, ModelingError where another has its name.
    """
    root, ref = text_to_path(request.root), request.model.ref
    if not os.path.isdir(root):  # noqa: PTH112 the name may not be UTF-8
        raise NotFoundError(f"{request.root!r}, the folder of the job's images, is not there; mount it, or put it back")
    try:
        version = ModelStore(settings.models).resolve_pinned(ref, request.model.digest)
    except ModelNotFoundError as err:
        raise NotFoundError(f"the model of job {request.job}, {ref}, is gone: {err}; import it again") from err
    return PinnedModel(version, version.card())
