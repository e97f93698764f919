"""Publishes the manifest of a classify job with its summary and its sidecar."""

import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from modeling.durable import link_once, replace_durably, sync, target_of, write_durable
from modeling.names import path_to_text, text_to_path
from orchestrator.contract.errors import IntegrityError
from orchestrator.contract.jobs.end import remove_unpublished, unpublished_path
from orchestrator.contract.jobs.incomplete import incomplete_path, read_incomplete
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.listing import ListingFacts, count_shards, read_facts, read_lines_of_shard
from orchestrator.contract.jobs.parts import part_path
from orchestrator.contract.jobs.requests import ClassifyRequest
from orchestrator.contract.jobs.rows import summary_path
from orchestrator.contract.jobs.sidecar import sidecar_path
from orchestrator.contract.ledger.ledger import JobRecord
from workers.finalize.errors import PublishError, publishing_to
from workers.finalize.join import Joined, Totals, join_parts
from workers.finalize.lease import FinalizeLease
from workers.finalize.summary import make_summary


@dataclass(frozen=True)
class _Drafts:
    """The files of one output under temporary names, each beside the file that its name leads to."""

    output: Path
    manifest: Path
    sidecar: Path
    summary: Path

    @classmethod
    def of(cls, request: ClassifyRequest, fence: int) -> Self:
        """Raises PublishError where a name is a link that leads back to itself."""
        output = Path(text_to_path(request.output))
        try:
            manifest = unpublished_path(request, fence)
            sidecar = target_of(sidecar_path(output)).with_name(f"{manifest.stem}.sources.tmp")
            summary = target_of(summary_path(output)).with_name(f"{manifest.stem}.summary.tmp")
        except OSError as err:
            raise PublishError(f"cannot write {request.output}: {err.strerror}") from err
        return cls(output, manifest, sidecar, summary)

    def remove(self) -> None:
        """Remove those that were not renamed."""
        for path in (self.manifest, self.sidecar, self.summary):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def publish_manifest(
    folder: JobFolder, request: ClassifyRequest, record: JobRecord | None, lease: FinalizeLease
) -> Totals:
    """Join, verify and publish; doing it twice publishes the same bytes.

    `lease` is checked often, and confirmed just before anything becomes visible.

    Raises:
        BadPartError: a part is missing or damaged.
        IntegrityError: the parts do not add up to the listing.
        PublishError: the output appeared meanwhile, or cannot be written.
    """
    facts = read_facts(folder.work)
    if facts is None:
        raise IntegrityError(f"{folder.work / 'listing.json'} is missing: the listing is not whole")
    remove_unpublished(request, before=lease.fence)
    drafts = _Drafts.of(request, lease.fence)
    try:
        with publishing_to(request.output):
            joined = join_parts(folder, request, range(facts.num_shards), (drafts.manifest, drafts.sidecar), lease)
            if joined.totals.num_rows != facts.num_images:
                raise IntegrityError(f"{joined.totals.num_rows} rows for {facts.num_images} listed images")
            summary = make_summary(request, facts, joined, record)
            lease.confirm()
            _put(drafts, joined, summary, overwrite=request.overwrite)
    finally:
        drafts.remove()
    replace_durably(folder.summary, summary, mode=None)
    return joined.totals


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
    facts = _facts_of(folder, shards)
    drafts = _Drafts.of(kept, lease.fence)
    try:
        with publishing_to(kept.output):
            joined = join_parts(folder, kept, shards, (drafts.manifest, drafts.sidecar), lease)
            summary = make_summary(kept, facts, joined, record, _missing(folder, joined.totals, reason))
            lease.confirm()
            _put(drafts, joined, summary, overwrite=read_incomplete(output) is not None)
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


def _put(drafts: _Drafts, joined: Joined, summary: bytes, *, overwrite: bool) -> None:
    """Rename the files into place; the manifest comes last, so that every manifest has a sidecar and a summary."""
    output, sha256 = drafts.output, joined.manifest.sha256
    if not overwrite and output.exists() and not _is_ours(output, sha256):
        raise PublishError(f"{output} appeared while the job ran; it was left as it is")
    drafts.sidecar.replace(target_of(sidecar_path(output)))
    write_durable(drafts.summary, summary)
    drafts.summary.replace(target_of(summary_path(output)))
    if overwrite:
        drafts.manifest.replace(target_of(output))
    elif not link_once(drafts.manifest, target_of(output)) and not _is_ours(output, sha256):
        _withdraw(sidecar_path(output), joined.sidecar.sha256)
        _withdraw(summary_path(output), hashlib.sha256(summary).hexdigest())
        raise PublishError(f"{output} appeared while the job ran; it was left as it is")
    for folder in {target_of(path).parent for path in (output, summary_path(output), sidecar_path(output))}:
        sync(folder)


def _withdraw(path: Path, sha256: str) -> None:
    """Remove a file of ours that lies beside a manifest that is not."""
    if _is_ours(path, sha256):
        target_of(path).unlink()


def _is_ours(output: Path, sha256: str) -> bool:
    """Whether `output` is what an earlier finalizer published just before it died."""
    with contextlib.suppress(OSError), output.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    return False
