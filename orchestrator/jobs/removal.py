"""Removing a model version, unless somebody still counts on it."""

import re
from pathlib import Path

from modeling.errors import ModelInUseError
from modeling.registry.store import ModelStore, ModelVersion
from orchestrator.contract.errors import NotFoundError, UsageError
from orchestrator.contract.jobs.job_folder import JobFolder, active_jobs
from orchestrator.contract.jobs.requests import AnyJobRequest, TrainJobRequest
from orchestrator.contract.settings import Settings

JOBS_TOLD = 5


def find_version(settings: Settings, model: str) -> ModelVersion:
    """The version to remove, which must be named by its number: nobody removes `latest` by mistake.

    Raises:
        UsageError: no number.
        ModelNotFoundError: there is no such version.
    """
    version = ModelStore(settings.models).resolve(model)
    if not re.search(r"@[0-9]+$", model):
        raise UsageError(f"say which version of {version.name!r} to remove by its number; {model!r} is {version.ref}")
    return version


def check_removable(settings: Settings, version: ModelVersion) -> None:
    """See that no alias stands for a version, and that no job which has not ended uses it.

    Raises:
        ModelInUseError: which alias or job it is, and what to do.
    """
    ModelStore(settings.models).check_not_aliased(version)
    jobs = jobs_that_use(settings, version)
    if jobs:
        more = f" and {len(jobs) - JOBS_TOLD} more" if len(jobs) > JOBS_TOLD else ""
        shown = f"{'job' if len(jobs) == 1 else 'jobs'} {', '.join(jobs[:JOBS_TOLD])}{more}"
        raise ModelInUseError(f"{version.ref} is used by {shown}; wait with `pigeonhole wait`, or cancel")


def remove_version(settings: Settings, version: ModelVersion) -> None:
    """Remove a version; see `check_removable` and `ModelStore.remove` for what may be wrong."""
    check_removable(settings, version)
    ModelStore(settings.models).remove(version)


def jobs_that_use(settings: Settings, version: ModelVersion) -> list[str]:
    """Ids of the jobs that have not ended and want this version, oldest first."""
    found = []
    for job in active_jobs(settings):
        try:
            request = JobFolder.open(settings, job).request()
        except NotFoundError:  # deleted by hand: it wants nothing any more
            continue
        if _uses(request, version):
            found.append(job)
    return found


def _uses(request: AnyJobRequest, version: ModelVersion) -> bool:
    """Whether a job works with a version, or trains from its weights."""
    if isinstance(request, TrainJobRequest):
        weights = request.train.get("weights")
        return weights == version.ref or (isinstance(weights, str) and Path(weights) == version.path)
    return (request.model.name, request.model.number) == (version.name, version.version)
