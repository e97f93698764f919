"""Finds manifests, and reads them and their summaries."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from modeling.durable import decode_json, validated
from modeling.inference.prediction import Prediction
from modeling.names import path_to_text, text_to_path
from orchestrator.contract.errors import IntegrityError, NotFoundError
from orchestrator.contract.jobs.base import sha256_of
from orchestrator.contract.jobs.formats import Format
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.requests import ClassifyRequest
from orchestrator.contract.jobs.rows import FORMATS, SUMMARY_VERSION, Row, summary_path
from orchestrator.contract.messages import JOB_ID
from orchestrator.contract.settings import Settings


class _Read:
    __pydantic_config__ = ConfigDict(extra="ignore", strict=True)  # a summary says more, which nothing here depends on


@dataclass(frozen=True)
class _Manifest(_Read):
    format: Format
    bytes: int
    sha256: str


@dataclass(frozen=True)
class _Sidecar(_Read):
    bytes: int
    sha256: str
    checksum: bool


@dataclass(frozen=True)
class _Listing(_Read):
    sha256: str
    num_images: int


@dataclass(frozen=True)
class _Counts(_Read):
    num_images: int
    num_failed: int
    status: dict[str, int]
    labels: dict[str, int]
    error_codes: dict[str, int]
    decisions: dict[str, int] = field(default_factory=dict)  # a summary of an earlier release has none


@dataclass(frozen=True)
class _Model(_Read):
    ref: str
    digest: str


@dataclass(frozen=True)
class _Incomplete(_Read):
    reason: str
    listed: bool
    num_missing: int


@dataclass(frozen=True)
class _Summary(_Read):
    """What every summary says."""

    job: str
    manifest: _Manifest
    sidecar: _Sidecar
    listing: _Listing
    counts: _Counts
    model: _Model
    incomplete: _Incomplete | None = None  # what is missing


@dataclass(frozen=True)
class Published:
    """A manifest and its summary."""

    manifest: Path
    summary: dict[str, Any]

    def is_unchanged(self) -> bool:
        """Whether the manifest has the bytes that its job wrote; reads all of it where its size does not say."""
        facts = self.summary["manifest"]
        digest: str = facts["sha256"]
        return self.manifest.stat().st_size == facts["bytes"] and sha256_of(self.manifest) == digest

    def rows(self) -> Iterator[Row]:
        """The manifest's rows, one after another.

        Raises IntegrityError where no job has written such a row: a manifest may have passed through other hands.
        """
        rows = FORMATS[self.summary["manifest"]["format"]].read(self.manifest)
        try:
            for number, row in enumerate(rows, start=1):
                check_sound(row, self.manifest, number)
                yield row
        except RecursionError as err:
            raise IntegrityError(f"{self.manifest} is damaged: a row holds too many levels of JSON") from err


def check_sound(row: Row, manifest: Path, number: int) -> None:
    """Raises IntegrityError where no job has written such a row."""
    if not _is_sound(row.prediction):
        raise IntegrityError(f"{manifest}, row {number} ({path_to_text(row.path)}): no job writes such a row")


def _is_sound(prediction: Prediction) -> bool:
    """Whether labels, scores and errors have the types and the numbers that a job gives them."""
    if prediction.error_code is not None:
        return isinstance(prediction.error_code, str) and isinstance(prediction.error, str | None)
    labels, scores = prediction.labels, prediction.scores
    if not labels or len(labels) != len(scores):
        return False
    if set(map(type, labels)) != {str} or not set(map(type, scores)) <= {float, int}:
        return False
    return all(0 <= score <= 1 for score in scores)  # not-a-number fails, too


def find_published(settings: Settings, name: str) -> Published:
    """The manifest that a job id or a path names.

    Raises NotFoundError if there is no such job or file, the job has published nothing, or the summary is missing,
    IntegrityError if the summary cannot be read.
    """
    manifest = _manifest_of_job(settings, name) if JOB_ID.fullmatch(name) else Path(name)
    if not manifest.is_file():
        raise NotFoundError(f"there is no manifest {str(manifest)!r}; give its path, or a job's id")
    path = summary_path(manifest)
    summary = read_summary(path)
    if JOB_ID.fullmatch(name) and summary["job"] != name:
        return _find_kept(manifest, name, summary["job"])
    return Published(manifest, summary)


def find_latest(settings: Settings, job: str) -> Published:
    """The manifest at the output of a job: its own, or that of a later job that merged its rows with others.

    Raises as `find_published` does.
    """
    published = find_published(settings, str(_manifest_of_job(settings, job)))
    if job not in (published.summary["job"], *_attempts(published.summary)):
        return find_published(settings, job)
    return published


def _find_kept(manifest: Path, job: str, owner: str) -> Published:
    """The manifest of a job whose place another has taken; a merge keeps it as `OUT.1`, `OUT.2` and so on.

    Some of these may have been moved away, or be files of others.
    """
    for kept in _numbered(manifest):
        if summary_path(kept).is_file() and (summary := read_summary(summary_path(kept)))["job"] == job:
            return Published(kept, summary)
    raise NotFoundError(f"the manifest of job {job} was replaced by that of job {owner}, {manifest}")


def _numbered(manifest: Path) -> list[Path]:
    """The files `OUT.1`, `OUT.2` and so on that are there, in the order of their numbers."""
    name = re.compile(re.escape(f"{manifest.name}.") + "([1-9][0-9]*)")
    numbers = sorted(int(match[1]) for each in os.listdir(manifest.parent) if (match := name.fullmatch(each)))
    files = (manifest.with_name(f"{manifest.name}.{number}") for number in numbers)
    return [file for file in files if file.is_file()]


def _attempts(summary: Mapping[str, Any]) -> list[str]:
    """The jobs that rows of a merged manifest come from, or came from."""
    return [str(each.get("job")) for each in summary.get("attempts", ()) if isinstance(each, dict)]


def read_summary(path: Path) -> dict[str, Any]:
    """The summary in a file.

    Raises NotFoundError if there is no such file, IntegrityError if it is of another version or damaged.
    """
    try:
        summary = decode_json(path.read_bytes(), str(path), error=IntegrityError)
    except FileNotFoundError as err:
        raise NotFoundError(
            f"the summary {str(path)!r} is missing; without it the manifest cannot be verified"
        ) from err
    if not isinstance(summary, dict) or summary.get("version") != SUMMARY_VERSION:
        raise IntegrityError(f"{path} is not a summary of version {SUMMARY_VERSION}")
    validated(_Summary, summary, f"{path} is damaged", error=IntegrityError, whole=False)
    return summary


def _manifest_of_job(settings: Settings, job: str) -> Path:
    folder = JobFolder.open(settings, job)
    request = folder.request()
    if not isinstance(request, ClassifyRequest):
        raise NotFoundError(f"job {job} has no manifest: its kind is {request.kind}, not classify")
    outcome = folder.outcome()
    if outcome is None or outcome.result is None:
        state = outcome.state if outcome else "not at its end"
        kept = f"; what it found is in {outcome.incomplete}" if outcome and outcome.incomplete else ""
        raise NotFoundError(f"job {job} has published no manifest: it is {state}{kept}")
    return Path(text_to_path(request.output))
