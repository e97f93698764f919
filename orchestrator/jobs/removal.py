"""Removes a model version, unless an alias, an active job or a line uses it; and whether a line uses an alias."""

import contextlib
import re
from pathlib import Path

from modeling.errors import ModelingError, ModelInUseError
from modeling.registry.store import ModelStore, ModelVersion
from orchestrator.contract.errors import NotFoundError, UsageError
from orchestrator.contract.jobs.job_folder import JobFolder, active_jobs
from orchestrator.contract.jobs.requests import AnyJobRequest, TrainJobRequest
from orchestrator.contract.lines.registry import LinesOnDisk
from orchestrator.contract.settings import Settings

JOBS_SHOWN = 5


def find_version(settings: Settings, model: str) -> ModelVersion:
    """The version to remove, which must be named by its number, so that nobody removes `latest` by mistake.

    Raises UsageError where it is not named by its number, ModelNotFoundError where there is no such version.
    """
    version = ModelStore(settings.models).find(model)
    if not re.search(r"@[0-9]+$", model):
        raise UsageError(f"say which version of {version.name!r} to remove by its number; {model!r} is {version.ref}")
    return version


def check_removable(settings: Settings, version: ModelVersion) -> None:
    """Check that no alias stands for a version, and that no active job and no line uses it.

    Raises ModelInUseError where an alias, a job or a line uses it.
    """
    ModelStore(settings.models).check_not_aliased(version)
    jobs = jobs_that_use(settings, version)
    if jobs:
        more = f" and {len(jobs) - JOBS_SHOWN} more" if len(jobs) > JOBS_SHOWN else ""
        shown = f"{'job' if len(jobs) == 1 else 'jobs'} {', '.join(jobs[:JOBS_SHOWN])}{more}"
        raise ModelInUseError(f"{version.ref} is used by {shown}; wait with `pigeonhole wait`, or cancel")
    if lines := lines_that_use(settings, version):
        other = f"`pigeonhole lines set {lines[0]} --model OTHER`"
        raise ModelInUseError(
            f"{version.ref} is used by line {', '.join(lines[:JOBS_SHOWN])}; change it first: {other}"
        )


def check_alias_unused(settings: Settings, name: str, alias: str) -> None:
    """Raises ModelInUseError where a line names its model by this alias: no worker could load it again."""
    lines = LinesOnDisk(settings)
    for line in lines.names():
        if f"{name}@{alias}" in ((found := lines.get(line).settings).model, found.degraded):
            other = f"`pigeonhole lines set {line} --model OTHER`"
            raise ModelInUseError(f"{name}@{alias} is the model of line {line}; change it first: {other}")


def remove_version(settings: Settings, version: ModelVersion) -> None:
    """Remove a version; see `check_removable` and `ModelStore.remove` for the errors."""
    check_removable(settings, version)
    ModelStore(settings.models).remove(version)


def jobs_that_use(settings: Settings, version: ModelVersion) -> list[str]:
    """Ids of the active jobs that use this version, oldest first."""
    found = []
    for job in active_jobs(settings):
        try:
            request = JobFolder.open(settings, job).request()
        except NotFoundError:  # its folder was deleted by hand
            continue
        if _uses(request, version):
            found.append(job)
    return found


def lines_that_use(settings: Settings, version: ModelVersion) -> list[str]:
    """Names of the lines of which a model stands for this version now, by name alone or with its number."""
    store, lines = ModelStore(settings.models), LinesOnDisk(settings)
    found = []
    for name in lines.names():
        line = lines.get(name).settings
        for ref in (line.model, line.degraded):
            with contextlib.suppress(ModelingError):  # that model is gone already
                if ref is not None and store.resolve(ref).ref == version.ref and name not in found:
                    found.append(name)
    return found


def _uses(request: AnyJobRequest, version: ModelVersion) -> bool:
    """Whether a job uses a version, or trains from its weights."""
    if isinstance(request, TrainJobRequest):
        weights = request.train.get("weights")
        return weights == version.ref or (isinstance(weights, str) and Path(weights) == version.path)
    return (request.model.name, request.model.number) == (version.name, version.version)
