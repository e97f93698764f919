"""Prepares the retry of a job: its failed images once more, as they are now, merged into one manifest in its place."""

import os
from collections.abc import Collection
from pathlib import Path

from modeling.errors import ModelNotFoundError
from modeling.names import text_to_path
from modeling.registry.store import ModelStore
from orchestrator.contract.errors import NotFoundError, UsageError
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.requests import ClassifyRequest
from orchestrator.contract.settings import Settings
from orchestrator.jobs.merging.base import open_base
from orchestrator.jobs.merging.failed import FailedRows
from orchestrator.jobs.merging.merge import Merge
from orchestrator.jobs.pinned import PinnedModel
from orchestrator.jobs.prepare import PreparedClassify
from orchestrator.jobs.results import find_latest
from orchestrator.jobs.sources import Source, SourceOptions
from orchestrator.jobs.specs import ClassifySpec


def prepare_retry(settings: Settings, job: str, codes: Collection[str], *, need_worker: bool) -> PreparedClassify:
    """Check all that can be checked without a server, and find the failed images.

    job: the first attempt or a later one; the failed images are those of the latest. codes: none: of any error.

    Raises NotFoundError where the job, its manifest, its sidecar or its source is not there, UsageError where it still
    runs or nothing has failed, IntegrityError where the manifest was changed, ModelingError where the model is gone.
    """
    request = _request_of(settings, job)
    base = open_base(find_latest(settings, job))
    model = _pinned(settings, request)
    failed = FailedRows(base, codes)
    root = text_to_path(request.root)
    source = Source(text_to_path(request.source), root, failed.paths(), is_list=True)
    spec = ClassifySpec(
        source.text,
        request.model.ref,
        output=Path(text_to_path(request.output)),
        output_format=request.output_format,
        top_k=request.top_k,
        shard_size=request.shard_size,
        precision=request.precision,
        checksum=base.has_checksums,
        priority=request.priority,
        need_worker=need_worker,
        reading=SourceOptions(follow_symlinks=request.follow_symlinks),
    )
    merge = Merge("retry", base, replaced=True, selection=failed)
    prepared = PreparedClassify(settings, spec, source, model, spec.output, request.output_format, None, merge)
    prepared.check_new()
    return prepared


def _request_of(settings: Settings, job: str) -> ClassifyRequest:
    """The request of a job that can be retried."""
    folder = JobFolder.open(settings, job)
    request, outcome = folder.request(), folder.outcome()
    if not isinstance(request, ClassifyRequest):
        raise UsageError(f"job {job} has no images to try again: its kind is {request.kind}, not classify")
    if outcome is None:
        raise UsageError(f"job {job} has not ended; `pigeonhole wait {job}` waits for it")
    if outcome.result is None:
        raise UsageError(
            f"job {job} is {outcome.state} and has no manifest; `pigeonhole jobs resume {job}` goes on with it"
        )
    root = text_to_path(request.root)
    if not os.path.isdir(root):  # noqa: PTH112 the name may not be UTF-8
        raise NotFoundError(f"{request.root!r}, the folder of the job's images, is not there; mount it, or put it back")
    return request


def _pinned(settings: Settings, request: ClassifyRequest) -> PinnedModel:
    """The version that the job was submitted with.

    Raises NotFoundError where it is gone, ModelingError where another has its name.
    """
    ref = request.model.ref
    try:
        version = ModelStore(settings.models).resolve_pinned(ref, request.model.digest)
    except ModelNotFoundError as err:
        raise NotFoundError(f"the model of job {request.job}, {ref}, is gone: {err}; import it again") from err
    return PinnedModel(version, version.card())
