"""The base of a merge job: an earlier manifest with its summary and its sidecar, kept in the job folder as `base/`.

They are kept by hard links where the file system knows them, so that they cost nothing and outlive their own names.
"""

import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from modeling.durable import decode_json, link_once, sync, sync_file
from orchestrator.contract.errors import IntegrityError
from orchestrator.contract.jobs.requests import MergeBase
from orchestrator.contract.jobs.rows import summary_path
from orchestrator.contract.jobs.sidecar import SUFFIX, sidecar_path


@dataclass(frozen=True)
class BaseFiles:
    """The three files of a manifest."""

    manifest: Path
    summary: Path
    sidecar: Path

    @classmethod
    def beside(cls, manifest: Path) -> Self:
        """Where they are for a published manifest."""
        return cls(manifest, summary_path(manifest), sidecar_path(manifest))

    @classmethod
    def in_folder(cls, folder: Path) -> Self:
        """Where a job folder keeps them."""
        return cls.beside(folder / "base" / "manifest")

    def all(self) -> tuple[Path, Path, Path]:
        """In the order in which they are published: the manifest last."""
        return self.sidecar, self.summary, self.manifest

    def keep_in(self, folder: Path) -> None:
        """Link or copy them into a job folder; durable when this returns."""
        kept = self.in_folder(folder)
        kept.manifest.parent.mkdir()
        for path, target in zip(self.all(), kept.all(), strict=True):
            give_name(path, target, temporary=target.with_name(f".{target.name}.tmp"))
        sync(kept.manifest.parent)

    def read_summary(self) -> dict[str, Any]:
        """Raises IntegrityError where it is damaged."""
        summary: dict[str, Any] = decode_json(self.summary.read_bytes(), str(self.summary), error=IntegrityError)
        check_summary(summary, str(self.manifest))
        return summary

    def check(self, base: MergeBase) -> None:
        """Raises IntegrityError where manifest or sidecar are not those that the job began with."""
        for path, sha256, suffix in (
            (self.manifest, base.manifest_sha256, ""),
            (self.sidecar, base.sidecar_sha256, SUFFIX),
        ):
            if sha256_of(path) != sha256:
                raise IntegrityError(
                    f"{base.manifest}{suffix} was changed since the job began: the copy in the job folder, {path}, has "
                    "another sha256 (a file that is edited in place is the same file); put it back as it was, or "
                    "repeat the command with another manifest"
                )


# What a summary says of its manifest's rows, and a merge counts on.
_MERGED = {
    "counts": ("num_images", "num_failed", "labels", "error_codes", "decisions", "remarks"),
    "repeats": ("too_slow_by_clock",),
}
_MERGED_LISTS = ("workers", "engines", "made_with")


def check_summary(summary: Mapping[str, Any], name: str) -> None:
    """Raises IntegrityError where a base's summary lacks what a merge needs; `name` is for the message."""
    for section, facts in _MERGED.items():
        values = summary.get(section)
        if not isinstance(values, dict) or (missing := [fact for fact in facts if fact not in values]):
            lacking = f"{section}.{missing[0]}" if isinstance(values, dict) else section
            raise IntegrityError(f"the summary of {name} is damaged: it has no {lacking}")
    for fact in _MERGED_LISTS:
        if not isinstance(summary.get(fact), list):
            raise IntegrityError(f"the summary of {name} is damaged: it has no list {fact}")


def give_name(path: Path, target: Path, *, temporary: Path) -> None:
    """Give a file a second name, or make a copy where it cannot have one, by way of `temporary`; durable.

    A name that is taken stays as it is.
    """
    source = os.path.realpath(path)
    try:
        os.link(source, target)
    except FileExistsError:
        return
    except OSError:  # another file system, or one without hard links; if it is anything else, copying fails as well
        try:
            with open(source, "rb") as file, temporary.open("wb") as copy:
                shutil.copyfileobj(file, copy, 1 << 20)
                sync_file(copy)
            link_once(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """The sha256 of a file's content, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
