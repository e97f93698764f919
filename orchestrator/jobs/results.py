"""Reads and verifies manifests."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from modeling.durable import decode_json, validated
from modeling.errors import ModelingError
from modeling.inference.prediction import Prediction
from modeling.names import path_to_text, text_to_path
from modeling.registry.card import WEIGHTS_FILE
from modeling.registry.store import ModelStore
from orchestrator.contract.errors import IntegrityError, MessageError, NotFoundError
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.listing import read_facts
from orchestrator.contract.jobs.requests import ClassifyRequest, Format
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
class _Summary(_Read):
    """What every summary says."""

    job: str
    manifest: _Manifest
    listing: _Listing
    counts: _Counts
    model: _Model


@dataclass(frozen=True)
class Published:
    """A manifest and its summary."""

    manifest: Path
    summary: dict[str, Any]

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
    are_texts = all(isinstance(label, str) for label in labels)
    are_numbers = all(isinstance(score, int | float) and math.isfinite(score) for score in scores)
    return bool(labels) and len(labels) == len(scores) and are_texts and are_numbers


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
        raise NotFoundError(f"the manifest of job {name} was replaced by that of job {summary['job']}, {manifest}")
    return Published(manifest, summary)


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
        raise NotFoundError(f"job {job} has published no manifest: it is {state}")
    return Path(text_to_path(request.output))


@dataclass(frozen=True)
class Verification:
    """The result of a verification: what was compared, and every difference."""

    num_rows: int
    differences: list[str]
    checked: list[str]
    unchecked: list[str]  # not available any more, and so not compared


def verify(settings: Settings, published: Published) -> Verification:
    """Compare a manifest with its summary, its job's listing and its model, as far as these are available."""
    return _Verifier(settings, published).run()


class _Verifier:
    """Collects differences; one method for each thing that is compared."""

    def __init__(self, settings: Settings, published: Published) -> None:
        self._settings = settings
        self._published = published
        self._summary = published.summary
        self._differences: list[str] = []
        self._checked: list[str] = []
        self._unchecked: list[str] = []
        self._num_rows = 0

    def run(self) -> Verification:
        self._file()
        self._rows()
        self._listing()
        self._model()
        return Verification(self._num_rows, self._differences, self._checked, self._unchecked)

    def _compare(self, what: str, found: object, expected: object) -> None:
        self._checked.append(what)
        if found != expected:
            self._differences.append(f"{what}: the summary says {expected!r}, found {found!r}")

    def _file(self) -> None:
        manifest = self._published.manifest
        self._compare("manifest bytes", manifest.stat().st_size, self._summary["manifest"]["bytes"])
        self._compare("manifest sha256", _sha256(manifest), self._summary["manifest"]["sha256"])

    def _rows(self) -> None:
        """Counts by status, label and error code, and the order and number of the paths."""
        status: Counter[str] = Counter()
        labels: Counter[str] = Counter()
        codes: Counter[str] = Counter()
        decisions: Counter[str] = Counter()
        listing = hashlib.sha256()
        try:
            for row in self._published.rows():
                status[row.status] += 1
                if row.prediction.decision:
                    decisions[row.prediction.decision] += 1
                if row.prediction.ok:
                    labels[row.prediction.labels[0]] += 1
                else:
                    codes[row.prediction.error_code or ""] += 1
                listing.update((json.dumps(row.path) + "\n").encode())
        except (IntegrityError, UnicodeDecodeError, IndexError) as err:
            self._differences.append(f"rows: {err}")
        self._num_rows = sum(status.values())
        counts = self._summary["counts"]
        self._compare("rows", self._num_rows, counts["num_images"])
        self._compare("rows by status", {"ok": status["ok"], "error": status["error"]}, counts["status"])
        self._compare("rows that failed", status["error"], counts["num_failed"])
        self._compare("rows by label", dict(labels), counts["labels"])
        self._compare("rows by error code", dict(codes), counts["error_codes"])
        if "decisions" in counts:
            expected = {name: num for name, num in counts["decisions"].items() if num}
            self._compare("rows by decision", dict(decisions), expected)
        self._compare("paths in listed order", listing.hexdigest(), self._summary["listing"]["sha256"])

    def _listing(self) -> None:
        """The listing in the job's folder, if that still exists."""
        try:
            folder = JobFolder.open(self._settings, self._summary["job"])
        except NotFoundError:
            self._unchecked.append("the job's listing (its folder is not here)")
            return
        try:
            facts = read_facts(folder.path)
            digest = _sha256(folder.path / "listing")
        except (OSError, ValueError, MessageError) as err:
            self._differences.append(f"listing: {err}")
            return
        self._compare("listed images", facts and facts.num_images, self._summary["listing"]["num_images"])
        self._compare("listing sha256", digest, self._summary["listing"]["sha256"])

    def _model(self) -> None:
        """The model version in the store, its card, and the head of a JSON manifest."""
        pin = self._summary["model"]
        try:
            version = ModelStore(self._settings.models).find(pin["ref"])
        except ModelingError:
            self._unchecked.append(f"the model {pin['ref']} (it is not in this store)")
        else:
            self._compare("model digest", version.digest, pin["digest"])
            card = version.card()
            if _sha256(version.path / WEIGHTS_FILE) != card.weights_sha256:
                self._differences.append(f"model weights: those of {version.ref} are not the ones that its card names")
            self._checked.append("model weights")
        if self._summary["manifest"]["format"] == "json":
            self._compare("model digest in the manifest", self._head().get("model_digest"), pin["digest"])

    def _head(self) -> dict[str, Any]:
        """The facts before the predictions of a JSON manifest."""
        lines = []
        with self._published.manifest.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith('  "predictions"'):
                    break
                lines.append(line)
        try:
            head: dict[str, Any] = json.loads("".join(lines).rstrip().removesuffix(",") + "}")
        except (ValueError, RecursionError):
            return {}
        return head


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
