"""The manifest that a merge job begins with: found, and checked before anything of it is used."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modeling.inference.engines.precision import WantedPrecision
from modeling.names import path_to_text, text_to_path
from orchestrator.contract.errors import IntegrityError, NotFoundError, UsageError
from orchestrator.contract.jobs.base import BaseFiles, check_summary, sha256_of
from orchestrator.contract.jobs.formats import Format
from orchestrator.contract.jobs.requests import MergeBase, ModelPin
from orchestrator.jobs.results import Published

_ALL = "classify all images without --since"


@dataclass(frozen=True)
class Base:
    """A published manifest whose files are those that its summary names."""

    published: Published

    @property
    def files(self) -> BaseFiles:
        return BaseFiles.beside(self.published.manifest)

    @property
    def summary(self) -> Mapping[str, Any]:
        return self.published.summary

    @property
    def has_checksums(self) -> bool:
        return bool(self.summary["sidecar"]["checksum"])

    @property
    def was_walked(self) -> bool:
        """Whether its order depends on names alone."""
        return bool(self.summary["listing"].get("walked"))

    def is_at(self, output: Path | None) -> bool:
        return output is not None and output.exists() and output.samefile(self.published.manifest)

    def to_request(self, kind: Any, *, replaced: bool) -> MergeBase:
        """As a request holds it."""
        return MergeBase(
            kind=kind,
            job=self.summary["job"],
            manifest=path_to_text(os.path.abspath(self.published.manifest)),  # noqa: PTH100 links are kept
            manifest_sha256=self.summary["manifest"]["sha256"],
            sidecar_sha256=self.summary["sidecar"]["sha256"],
            replaced=replaced,
        )


@dataclass(frozen=True)
class NewManifest:
    """What an incremental run writes: where, and all that decides its rows for the same files."""

    model: ModelPin
    root: str  # modeling.names.path_to_text
    output: Path | None  # None: in the folder of the job
    output_format: Format
    top_k: int
    precision: WantedPrecision
    follow_symlinks: bool
    checksum: bool


def open_base(published: Published) -> Base:
    """Check the files of a manifest.

    Raises NotFoundError where the sidecar is missing, IntegrityError where it or the manifest was changed, or the
    summary lacks something.
    """
    base = Base(published)
    check_summary(published.summary, str(published.manifest))
    if not base.files.sidecar.is_file():
        raise NotFoundError(
            f"the sidecar {str(base.files.sidecar)!r} is missing; without it nobody knows which images have changed"
        )
    for path, name in ((base.files.manifest, "manifest"), (base.files.sidecar, "sidecar")):
        if sha256_of(path) != published.summary[name]["sha256"]:
            raise IntegrityError(
                f"{path} was changed after its job had written it: its sha256 is not that of its summary; "
                "`pigeonhole results verify` says what differs"
            )
    return base


def check_same(base: Base, wanted: NewManifest) -> None:
    """Raises UsageError where the base's rows would not be those of the new manifest for the same files."""
    summary, name = base.summary, str(base.published.manifest)
    model = summary["model"]
    if model["digest"] != wanted.model.digest:
        raise UsageError(f"--since {name!r} has rows of {model['ref']}, which is not {wanted.model.ref}; {_ALL}")
    if model["preprocessing_digest"] != wanted.model.preprocessing_digest:
        raise UsageError(f"--since {name!r} has rows of another preprocessing; {_ALL}")
    if os.path.realpath(text_to_path(summary["root"])) != os.path.realpath(text_to_path(wanted.root)):
        raise UsageError(f"--since {name!r} has images below {summary['root']!r}, not below {wanted.root!r}; {_ALL}")
    options = {
        "--format": (summary["manifest"]["format"], wanted.output_format),
        "--top-k": (summary["top_k"], wanted.top_k),
        "--precision": (summary["precision"], wanted.precision),
        "--follow-symlinks": (summary["follow_symlinks"], wanted.follow_symlinks),
    }
    for option, (was, now) in options.items():
        if was != now:
            raise UsageError(f"--since {name!r} was made with {option} {was}, not {now}; repeat it, or {_ALL}")
