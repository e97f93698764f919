"""Prepares the retry of a job: its failed images once more, as they are now, merged into one manifest in its place."""

from collections.abc import Collection
from pathlib import Path

from modeling.names import text_to_path
from orchestrator.contract.settings import Settings
from orchestrator.jobs.merging.base import open_base
from orchestrator.jobs.merging.failed import FailedRows
from orchestrator.jobs.merging.merge import Merge
from orchestrator.jobs.pinned import pin_again, published_request
from orchestrator.jobs.prepare import PreparedClassify
from orchestrator.jobs.results import find_latest
from orchestrator.jobs.sources import Source
from orchestrator.jobs.specs import ClassifySpec
from orchestrator.jobs.walk import SourceOptions


def prepare_retry(settings: Settings, job: str, codes: Collection[str], *, need_worker: bool) -> PreparedClassify:
    """Check all that can be checked without a server, and find the failed images.

    job: the first attempt or a later one; the failed images are those of the latest. codes: none: of any error.

    Raises NotFoundError where the job, its manifest, sidecar, model or source is not there, UsageError where it still
    runs or nothing has failed, IntegrityError where the manifest was changed, ModelingError where another model has
    its name.
    """
    request = published_request(settings, job)
    base = open_base(find_latest(settings, job))
    model = pin_again(settings, request)
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
