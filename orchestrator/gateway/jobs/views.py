"""What clients get to see of jobs, rows and models; the same facts as the commands' `--json`."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from modeling.durable import complaint
from modeling.metrics.decisions import Decision
from modeling.names import path_to_text
from orchestrator.contract.errors import MessageError
from orchestrator.contract.jobs.requests import Kind
from orchestrator.contract.jobs.rows import Row
from orchestrator.contract.ledger.record import State
from orchestrator.contract.ledger.words import Priority


class _View(BaseModel):
    model_config = ConfigDict(extra="ignore", ser_json_inf_nan="null")


class JobView(_View):
    """A job. Times are milliseconds since 1970, 0 where there is none yet."""

    job: str
    kind: Kind
    state: State
    source: str
    model: str = Field(
        description="The version that classifies or is evaluated, or the name that a training publishes."
    )
    num_images: int
    num_done: int
    num_failed: int
    num_shards: int
    shards_done: int
    shards_given_up: int
    listed: bool = Field(description="Whether the number of images is final.")
    too_many_failures: bool
    created_ms: int
    started_ms: int
    ended_ms: int
    progress: dict[str, Any] | None = Field(description="The last event of a training or an evaluation.")
    error: str
    result: str = Field(description="The manifest, the evaluation's folder or the published version, at the end.")
    trouble: str = Field(description="What keeps the job from making progress now.")
    paused_by: str
    paused_reason: str
    paused_ms: int
    priority: Priority
    version: str = Field(description="The release that began it; workers of another leave it alone.")
    model_format: int = Field(description="The format of its model; 0: it needs none.")
    run: int = Field(description="How often it was resumed.")
    worker_ms: int = Field(description="What workers spent on a classification, in turns that are over.")
    output: str | None = Field(None, description="Where a classification or an evaluation writes.")
    stage_seconds: dict[str, float] | None = None
    bound: str | None = Field(None, description="The stage that limits a classification.")
    architecture: str | None = None
    part: str | None = None
    notify: dict[str, Any] | None = Field(None, description="Who is notified of the end, and how that went.")

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> "JobView":
        """Raises MessageError where the server holds what no release of ours has written."""
        try:
            return cls.model_validate(facts)
        except ValidationError as err:
            raise MessageError(f"the record of job {facts.get('job')} cannot be read: {complaint(err)}") from err


class JobProgress(JobView):
    """A job, as an event of its progress."""

    images_per_sec: float = Field(description="Over the last seconds.")
    eta_s: float | None
    num_workers: int = Field(description="Live workers that listen to the job's queue.")
    server_away: bool
    text: str = Field(description="One line for people.")


class Submitted(_View):
    """A job that was submitted, now or before with the same key."""

    job: str
    existed: bool = Field(description="Whether an earlier request with this key has submitted it.")


class CancelView(_View):
    """The state after a cancel; `finalizing` and ended states say that it came too late."""

    job: str
    state: State


class Unreadable(_View):
    """Something in a list that cannot be read, and why."""

    name: str
    error: str


class JobsView(_View):
    """A page of jobs, newest first. A job that is being submitted may be missing, so a page may hold fewer."""

    jobs: list[JobView]
    unreadable: list[Unreadable]
    next: str | None = Field(description="`cursor` of the next page; null: there is none.")
    server_away: bool = Field(description="Whether the jobs are only as the disk has them.")


class LabelScore(_View):
    """A label and its score."""

    label: str
    score: float


class RowView(_View):
    """A row of a manifest; `row` is its number, from 1."""

    row: int
    path: str
    status: str = Field(description="`ok` or `error`.")
    decision: Decision | None
    top_k: list[LabelScore]
    error_code: str | None
    error: str | None

    @classmethod
    def of(cls, number: int, row: Row) -> "RowView":
        prediction = row.prediction
        pairs = zip(prediction.labels, prediction.scores, strict=True)
        return cls(
            row=number,
            path=path_to_text(row.path),
            status=row.status,
            decision=prediction.decision,
            top_k=[LabelScore(label=path_to_text(label), score=score) for label, score in pairs],
            error_code=prediction.error_code,
            error=prediction.error,
        )


class RowsView(_View):
    """A page of rows in the order of the manifest; a filter may leave few or none on it though more follow."""

    rows: list[RowView]
    next: str | None = Field(description="`cursor` of the next page; null: there is none.")


class ErrorsView(RowsView):
    """The rows that failed, and the number of them by error code."""

    error_codes: dict[str, int]


class ModelView(_View):
    """A published version in a list."""

    model: str
    aliases: list[str]
    digest: str
    architecture: str
    num_labels: int
    metrics: dict[str, float]
    max_error: float | None
    review_rate: float | None
    reject_rate: float | None
    size_bytes: int
    created: str


class ModelsView(_View):
    """A page of published versions, by name and number."""

    models: list[ModelView]
    unreadable: list[Unreadable]
    next: str | None = Field(description="`cursor` of the next page; null: there is none.")


class ModelDetails(_View):
    """A published version with its card."""

    model: str
    aliases: list[str]
    digest: str
    created: str
    size_bytes: int
    path: str
    report: str | None
    files: list[str]
    format_version: int
    architecture: str
    labels: list[str]
    preprocessing: dict[str, Any]
    weights_sha256: str
    metrics: dict[str, float]
    training: dict[str, Any]
    calibration: dict[str, Any] | None = None


class AliasesView(_View):
    """The versions that a model's aliases stand for."""

    aliases: dict[str, str]


class AliasBody(BaseModel):
    """The version that an alias shall stand for."""

    model_config = ConfigDict(extra="forbid", strict=True)

    version: int = Field(ge=1, lt=2**31)


class AliasView(_View):
    """An alias after a change: the version it stands for (null: removed), and the one before (null: none)."""

    alias: str
    model: str | None
    before: str | None
