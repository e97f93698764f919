"""Puts the files of an output, which are complete under temporary names, under their own."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from modeling.durable import link_once, rename_answered, sync, target_of, write_durable
from modeling.names import text_to_path
from orchestrator.contract.jobs.base import give_name
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
    two renames puts nothing beside a newer manifest. An error takes back what was put, and what was there is there
    again.

    Raises PublishError where something is there that may not be replaced.
    """
    output, sha256 = drafts.output, joined.manifest.sha256
    appeared = f"{output} appeared while the job ran; it was left as it is"
    write_durable(drafts.summary, summary)
    lease.confirm()
    if not replace and output.exists() and not _is_ours(output, sha256):
        raise PublishError(appeared)
    sidecar, about, manifest = (target_of(path) for path in (sidecar_path(output), summary_path(output), output))
    with _taken_back_on_error(lease) as names:
        names.put(drafts.sidecar, sidecar)
        names.put(drafts.summary, about)
        if replace:
            names.put(drafts.manifest, manifest)
        elif not names.link(drafts.manifest, manifest) and not _is_ours(output, sha256):
            raise PublishError(appeared)
        for folder in {path.parent for path in (manifest, about, sidecar)}:
            sync(folder)


@dataclass(frozen=True)
class _Name:
    """A name that a draft was given, or is about to be, and what had the name before.

    draft: open, so that no other file gets its inode meanwhile.
    """

    path: Path
    draft: IO[bytes]
    before: Path | None


class _Names:
    """The names that drafts were given, so that they can be taken back."""

    def __init__(self) -> None:
        self._given: list[_Name] = []

    def put(self, draft: Path, path: Path) -> None:
        """Give the draft its name, whatever has it."""
        self._given.append(_Name(path, draft.open("rb"), _keep(path, draft)))
        rename_answered(draft, path)

    def link(self, draft: Path, path: Path) -> bool:
        """Give the draft its name if nothing has it; returns whether it did."""
        self._given.append(_Name(path, draft.open("rb"), None))
        return link_once(draft, path)

    def take_back(self) -> None:
        """As far as the disk allows. A name that another finalizer has given to its own file since stays."""
        for name in reversed(self._given):
            with contextlib.suppress(OSError):
                if not os.path.samestat(name.path.stat(), os.fstat(name.draft.fileno())):
                    continue
                if name.before is not None:
                    name.before.replace(name.path)
                else:
                    name.path.unlink()

    def forget(self) -> None:
        """Remove what had the names before."""
        for name in self._given:
            name.draft.close()
            if name.before is not None:
                with contextlib.suppress(OSError):
                    name.before.unlink(missing_ok=True)


@contextlib.contextmanager
def _taken_back_on_error(lease: FinalizeLease) -> Iterator[_Names]:
    """Raises FinalizeLeaseLostError where another finalizer has gone on since: then the names are its own."""
    names = _Names()
    try:
        yield names
    except Exception:
        lease.confirm()
        names.take_back()
        raise
    finally:
        names.forget()


def _keep(path: Path, draft: Path) -> Path | None:
    """A second, hidden name for what is at a path; None where nothing is, or the file system allows none."""
    if not os.path.lexists(path):
        return None
    kept = draft.with_name(f"{draft.stem}.before.tmp")
    try:
        give_name(path, kept, temporary=kept.with_suffix(".copy.tmp"))
    except OSError:
        return None
    return kept


def _is_ours(output: Path, sha256: str) -> bool:
    """Whether `output` is what an earlier finalizer published just before it died."""
    with contextlib.suppress(OSError), output.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    return False
