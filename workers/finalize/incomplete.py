"""Keeps what a job found before it ended without a manifest, as `OUT.incomplete`."""

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modeling.durable import target_of
from modeling.names import path_to_text, text_to_path
from orchestrator.contract.jobs.end import remove_unpublished
from orchestrator.contract.jobs.incomplete import incomplete_path, read_incomplete
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.listing import ListingFacts, count_shards, read_facts, read_lines_of_shard
from orchestrator.contract.jobs.parts import part_path
from orchestrator.contract.jobs.requests import ClassifyRequest
from orchestrator.contract.jobs.rows import summary_path
from orchestrator.contract.jobs.sidecar import sidecar_path
from orchestrator.contract.ledger.record import JobRecord
from workers.finalize.errors import publishing_to
from workers.finalize.join import Totals, join_parts
from workers.finalize.lease import FinalizeLease
from workers.finalize.put import Drafts, put
from workers.finalize.summary import ListedRows, make_summary, version_facts


def publish_incomplete(
    folder: JobFolder, request: ClassifyRequest, record: JobRecord | None, lease: FinalizeLease, reason: str
) -> str:
    """Publish the rows that are there beside the output of a job that ends without it; returns their path, as text.

    What an earlier run, or an earlier job, kept there is replaced.

    Raises:
        BadPartError: a part is damaged.
        PublishError: what is there is nobody's incomplete manifest, or nothing can be written.
    """
    output = incomplete_path(Path(text_to_path(request.output)))
    kept = request.model_copy(update={"output": path_to_text(str(output))})
    shards = [shard for shard in range(count_shards(folder.work)[0]) if part_path(folder.parts, shard).exists()]
    listed = ListedRows.of_shards(folder, _facts_of(folder, shards))
    remove_unpublished(request, before=lease.fence)
    drafts = Drafts.of(kept, lease.fence)
    try:
        with publishing_to(kept.output):
            joined = join_parts(folder, kept, shards, (drafts.manifest, drafts.sidecar), lease)
            missing = {"incomplete": _missing(folder, joined.totals, reason)} | version_facts(folder)
            summary = make_summary(kept, listed, joined, record, missing)
            put(drafts, joined, summary, lease, replace=read_incomplete(output) is not None)
    finally:
        drafts.remove()
    return kept.output


def _facts_of(folder: JobFolder, shards: Sequence[int]) -> ListingFacts:
    """The listing of these shards alone."""
    sha256, num_images = hashlib.sha256(), 0
    for shard in shards:
        data, count = read_lines_of_shard(folder.work, shard)
        sha256.update(data)
        num_images += count
    whole = read_facts(folder.work)
    skipped = whole.skipped if whole else {}
    return ListingFacts(num_images=num_images, num_shards=len(shards), sha256=sha256.hexdigest(), skipped=skipped)


def _missing(folder: JobFolder, totals: Totals, reason: str) -> dict[str, Any]:
    """What is missing of a manifest, and why. listed: whether all images were listed before the job ended."""
    num_listed = count_shards(folder.work)[1]
    listed = read_facts(folder.work) is not None
    return {
        "reason": reason,
        "listed": listed,
        "num_listed": num_listed,
        "num_missing": num_listed - totals.num_rows,
    }


def remove_incomplete(request: ClassifyRequest) -> None:
    """Remove the incomplete manifest that is superseded by the one just published: of this job, or of this source."""
    output = incomplete_path(Path(text_to_path(request.output)))
    summary = read_incomplete(output)
    if summary is None:
        return
    of_source = (summary.get("source"), summary.get("root")) == (request.source, request.root)
    if of_source or summary.get("job") == request.job:
        for path in (output, sidecar_path(output), summary_path(output)):  # never without its summary
            with contextlib.suppress(OSError):
                target_of(path).unlink(missing_ok=True)
