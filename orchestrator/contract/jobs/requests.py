"""The operator's request, as `job.json` keeps it: immutable, and all that a worker needs to know."""

import hashlib
import math
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from modeling.data.layout import DataPart, Layout
from modeling.durable import decode_json
from modeling.inference.engines.precision import WantedPrecision
from modeling.registry.card import FORMAT_VERSION
from orchestrator.contract.errors import MessageError
from orchestrator.contract.jobs.formats import Format
from orchestrator.contract.ledger.words import Priority
from orchestrator.contract.messages import MESSAGE_VERSION, Versioned

Kind = Literal["classify", "train", "evaluate"]


class MaxFailures(Versioned):
    """How many images may fail before the job stops: a count, or a share of all once these are known."""

    count: int | None = Field(default=None, ge=0)
    share: float | None = Field(default=None, ge=0, le=1)

    def limit(self, num_images: int | None) -> int | None:
        """The number of failed images still accepted; None for a share of a number not yet known."""
        if self.count is not None or num_images is None:
            return self.count
        return math.floor((self.share or 0.0) * num_images + 1e-6)  # as floats, 29 % of 100 is 28.999999999999996


class ModelPin(Versioned):
    """The model version a job was submitted with: its digest keeps every worker to the same weights."""

    name: str
    number: int
    digest: str
    preprocessing_digest: str
    model_format: int = FORMAT_VERSION  # of its card: workers that do not read it leave the job to others

    @property
    def ref(self) -> str:
        """As the command line spells it: `name@number`."""
        return f"{self.name}@{self.number}"


class SourceReading(Versioned):
    """How the images of a source are listed again, where a job is resumed that ended before they all were."""

    source: str  # absolute path or glob (modeling.names.path_to_text)
    recursive: bool
    all_files: bool
    root: str | None  # of a list


class MergeBase(Versioned):
    """The manifest whose rows a job merges with its own.

    replaced: whether the new manifest takes its place; it stays then, as `OUT.1`.
    """

    kind: Literal["retry", "since"]
    job: str  # that published it
    manifest: str  # its absolute path when the job began
    manifest_sha256: str
    sidecar_sha256: str
    replaced: bool


class ClassifyRequest(Versioned):
    """Classify the images of a source."""

    kind: Literal["classify"] = "classify"
    job: str
    created: datetime
    source: str  # as the operator wrote it, for display
    root: str  # absolute; every path of the listing is below it (modeling.names.path_to_text)
    follow_symlinks: bool
    reading: SourceReading | None = None  # None: the images cannot be listed again, as those of standard input
    model: ModelPin
    output: str  # absolute path of the manifest
    output_format: Format
    overwrite: bool
    top_k: int = Field(ge=1)
    shard_size: int = Field(ge=1)
    precision: WantedPrecision = "auto"
    checksum: bool = False  # whether the sidecar gets a digest of each image
    max_failures: MaxFailures | None = None
    rerun_of: str | None = None  # the job that this one repeats, to be compared with it
    priority: Priority = "normal"
    since: str | None = None  # the base of an incremental run as the operator named it, for display
    base: MergeBase | None = None
    idempotency_key: str | None = None
    notify: str | None = None  # URL that is notified when the job has ended

    @property
    def can_be_listed_again(self) -> bool:
        """Whether a resume can list the images: not those of standard input, nor those that a merge compares."""
        return self.reading is not None and self.base is None


class TrainJobRequest(Versioned):
    """Train a model; `train` holds modeling's own request, checked when it was submitted."""

    kind: Literal["train"] = "train"
    job: str
    created: datetime
    source: str
    name: str  # of the model to publish
    train: dict[str, Any]
    priority: Priority = "normal"
    idempotency_key: str | None = None
    notify: str | None = None  # URL that is notified when the job has ended


class EvaluateJobRequest(Versioned):
    """Evaluate a model on labelled images."""

    kind: Literal["evaluate"] = "evaluate"
    job: str
    created: datetime
    source: str  # the data as the operator wrote it, for display
    model: ModelPin
    data: str  # absolute path
    part: DataPart
    precision: WantedPrecision = "auto"
    layout: Layout | None = None  # of the data's folders; None: detected
    output: str | None = None  # absolute path of the folder to publish; None: inside the job's folder
    priority: Priority = "normal"
    idempotency_key: str | None = None
    notify: str | None = None  # URL that is notified when the job has ended


AnyJobRequest = ClassifyRequest | TrainJobRequest | EvaluateJobRequest
_KINDS: dict[str, type[AnyJobRequest]] = {
    "classify": ClassifyRequest,
    "train": TrainJobRequest,
    "evaluate": EvaluateJobRequest,
}

# What may differ between two submissions of the same spec; the size of shards is measured, a setting may have said who
# is notified, the priority changes no answer, and the first one may have replaced its base.
_VOLATILE = {"job", "created", "shard_size", "notify", "priority", "base"}


def parse_request(data: bytes, *, path: Path) -> AnyJobRequest:
    """The request in a `job.json`.

    Raises MessageError if it is of another version, of an unknown kind, or malformed.
    """
    record = decode_json(data, str(path), error=MessageError)
    kind = record.get("kind") if isinstance(record, dict) else None
    if not isinstance(kind, str) or kind not in _KINDS:
        known = ", ".join(_KINDS)
        raise MessageError(f"{path} describes a job of kind {kind!r}; version {MESSAGE_VERSION} knows {known}")
    return _KINDS[kind].parse_json(data, what=str(path))


def ledger_fields(request: AnyJobRequest) -> dict[str, str | int]:
    """What the ledger keeps of a request."""
    fields: dict[str, str | int] = {"kind": request.kind, "priority": request.priority}
    if not isinstance(request, TrainJobRequest):
        fields["model_format"] = request.model.model_format
    return fields


def fingerprint(request: AnyJobRequest) -> str:
    """A digest that is equal for two submissions of the same spec: an idempotency key stands for one spec only."""
    spec = request.model_dump_json(exclude=_VOLATILE)
    return hashlib.sha256(spec.encode()).hexdigest()
