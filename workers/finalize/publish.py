"""Publishes the manifest of a classify job with its summary and its sidecar."""

import contextlib
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from modeling.durable import link_once, replace_durably, sync, target_of, write_durable
from modeling.names import text_to_path
from orchestrator.contract.errors import IntegrityError
from orchestrator.contract.jobs.end import remove_unpublished, unpublished_path
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.listing import read_facts
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
            joined = join_parts(folder, request, facts.num_shards, (drafts.manifest, drafts.sidecar), lease)
            if joined.totals.num_rows != facts.num_images:
                raise IntegrityError(f"{joined.totals.num_rows} rows for {facts.num_images} listed images")
            summary = make_summary(request, facts, joined, record)
            lease.confirm()
            _put(drafts, joined, summary, overwrite=request.overwrite)
    finally:
        drafts.remove()
    replace_durably(folder.summary, summary, mode=None)
    return joined.totals


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
