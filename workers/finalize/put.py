"""Puts the files of an output, which are complete under temporary names, under their own."""

import contextlib
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from modeling.durable import link_once, sync, target_of, write_durable
from modeling.names import text_to_path
from orchestrator.contract.jobs.end import unpublished_path
from orchestrator.contract.jobs.requests import ClassifyRequest
from orchestrator.contract.jobs.rows import summary_path
from orchestrator.contract.jobs.sidecar import sidecar_path
from workers.finalize.errors import PublishError
from workers.finalize.join import Joined
from workers.finalize.lease import FinalizeLease


@dataclass(frozen=True)
class Drafts:
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


def put(drafts: Drafts, joined: Joined, summary: bytes, lease: FinalizeLease, *, replace: bool) -> None:
    """Rename the files into place; the manifest comes last, so that every manifest has a sidecar and a summary.

    The lease is confirmed once all three are there: a later finalizer removes them, so that one that was frozen between
    two renames puts nothing beside a newer manifest.

    Raises PublishError where something is there that may not be replaced.
    """
    output, sha256 = drafts.output, joined.manifest.sha256
    write_durable(drafts.summary, summary)
    lease.confirm()
    if not replace and output.exists() and not _is_ours(output, sha256):
        raise PublishError(f"{output} appeared while the job ran; it was left as it is")
    drafts.sidecar.replace(target_of(sidecar_path(output)))
    drafts.summary.replace(target_of(summary_path(output)))
    if replace:
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
