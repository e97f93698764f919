"""Prepares an incremental run: only what is new since an earlier manifest, or has changed, is classified."""

from orchestrator.contract.errors import UsageError
from orchestrator.contract.settings import Settings
from orchestrator.jobs.merging.base import NewManifest, check_same, open_base
from orchestrator.jobs.merging.compare import SourceComparison
from orchestrator.jobs.merging.merge import Merge
from orchestrator.jobs.results import find_published
from orchestrator.jobs.sources import Source


def merge_since(settings: Settings, name: str, source: Source, wanted: NewManifest) -> Merge:
    """The merge of a source with the manifest that `name` stands for, a job's id or a path.

    Raises NotFoundError where the manifest, its summary or its sidecar is not there, UsageError where its rows would
    not be those of the new manifest, IntegrityError where it was changed.
    """
    base = open_base(find_published(settings, name))
    check_same(base, wanted)
    if wanted.checksum and not base.has_checksums:
        raise UsageError(
            f"--since {name!r} has no digests to compare with: it was made without --checksum; leave --checksum out"
        )
    comparison = SourceComparison(base, source.root, walked=source.is_walked, checksum=wanted.checksum)
    return Merge("since", base, replaced=base.is_at(wanted.output), selection=comparison)
