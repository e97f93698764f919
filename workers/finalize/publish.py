"""Publishes the manifest of a classify job with its summary and its sidecar."""

from pathlib import Path

from modeling.durable import replace_durably
from orchestrator.contract.errors import IntegrityError
from orchestrator.contract.jobs.base import BaseFiles, sha256_of
from orchestrator.contract.jobs.end import remove_unpublished
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.requests import ClassifyRequest
from orchestrator.contract.ledger.record import JobRecord
from workers.finalize.errors import PublishError, publishing_to
from workers.finalize.join import Joined, Totals, join_parts
from workers.finalize.keep_base import keep_base
from workers.finalize.lease import FinalizeLease
from workers.finalize.merge import MergeJob, merge_rows
from workers.finalize.put import Drafts, put
from workers.finalize.summary import ListedRows, make_summary, merge_facts, version_facts


def publish_manifest(
    folder: JobFolder, request: ClassifyRequest, record: JobRecord | None, lease: FinalizeLease
) -> Totals:
    """Join, verify and publish; doing it twice publishes the same bytes.

    `lease` is checked often, and confirmed just before anything becomes visible.

    Raises:
        BadPartError: a part is missing or damaged.
        IntegrityError: the parts do not add up to the listing, or a merge's base or plan was changed.
        PublishError: the output appeared or changed meanwhile, or cannot be written.
    """
    listed = ListedRows.of(folder)
    remove_unpublished(request, before=lease.fence)
    drafts = Drafts.of(request, lease.fence)
    try:
        with publishing_to(request.output):
            joined = _join(folder, request, listed, drafts, lease)
            _check_complete(joined, listed)
            _check_base_is_there(drafts.output, request, joined)
            kept_as = _keep_base(folder, request, drafts, lease)
            more = merge_facts(request, listed.plan, joined, kept_as) | version_facts(folder)
            summary = make_summary(request, listed, joined, record, more)
            put(drafts, joined, summary, lease, replace=request.overwrite or kept_as is not None)
    finally:
        drafts.remove()
    replace_durably(folder.summary, summary, mode=None)
    return joined.totals


def _join(
    folder: JobFolder, request: ClassifyRequest, listed: ListedRows, drafts: Drafts, lease: FinalizeLease
) -> Joined:
    """Write manifest and sidecar; merged with the base, if the job has one."""
    paths, shards = (drafts.manifest, drafts.sidecar), range(listed.facts.num_shards)
    if request.base is None:
        return join_parts(folder, request, shards, paths, lease)
    assert listed.plan is not None
    return merge_rows(MergeJob(folder, request, request.base, listed.plan, shards), paths, lease)


def _check_complete(joined: Joined, listed: ListedRows) -> None:
    """Raises IntegrityError where the manifest has another number of rows than the listing."""
    if joined.totals.num_rows != listed.num_rows:
        raise IntegrityError(f"{joined.totals.num_rows} rows for {listed.num_rows} listed images")


def _check_base_is_there(output: Path, request: ClassifyRequest, joined: Joined) -> None:
    """Raises PublishError where a merge is to take the place of its base, and something else is there."""
    base = request.base
    if base is None or not base.replaced or request.overwrite or not output.exists():
        return
    if not output.is_file() or sha256_of(output) not in (joined.manifest.sha256, base.manifest_sha256):
        raise PublishError(f"{output} changed while the job ran; it was left as it is")


def _keep_base(folder: JobFolder, request: ClassifyRequest, drafts: Drafts, lease: FinalizeLease) -> Path | None:
    """Keep the manifest that the new one takes the place of; returns its name, None where there is none."""
    if request.base is None or not request.base.replaced:
        return None
    lease.confirm()
    temporary = drafts.output.with_name(f".{request.job}.{lease.fence}.kept.tmp")
    return keep_base(BaseFiles.in_folder(folder.path), drafts.output, temporary=temporary)
