"""What the ledger has of a job: its record, read from the hash on the server."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal, Self, cast

from orchestrator.contract.errors import MessageError
from orchestrator.contract.ledger.stages import STAGES, Bound, name_bound
from orchestrator.contract.ledger.words import PAUSED_BY

State = Literal[
    "queued", "running", "paused", "finalizing", "succeeded", "partial", "failed", "cancelling", "cancelled", "unknown"
]
FINAL_STATES = frozenset({"succeeded", "partial", "failed", "cancelled"})


@dataclass(frozen=True, slots=True)
class JobRecord:
    """What the ledger has of a job."""

    job: str
    kind: str
    state: State
    num_images: int = 0
    num_done: int = 0
    num_failed: int = 0
    num_shards: int = 0
    shards_done: int = 0
    shards_given_up: int = 0
    listed: bool = False
    too_many_failures: bool = False
    created_ms: int = 0
    started_ms: int = 0
    ended_ms: int = 0
    progress: str = ""  # training: the last event as JSON
    error: str = ""
    result: str = ""
    trouble: str = ""  # what keeps it from making progress now
    paused_by: str = ""  # while it is paused: operator, storage, or both, with a comma
    paused_reason: str = ""  # of one or both
    paused_ms: int = 0
    version: str = ""  # of Pigeonhole, that began it; workers of another leave it alone
    model_format: int = 0  # of its model; 0: it needs none
    run: int = 0  # how often it was resumed
    worker_ms: int = 0  # that workers spent on a classify job, in turns that are over
    stage_seconds: Mapping[str, float] = field(default_factory=dict)  # of the shards that are done

    @classmethod
    def of(cls, job: str, values: Mapping[str, str]) -> Self:
        """The record that a hash on the server holds.

        Raises MessageError where it is none of ours.
        """
        try:
            numbers = {name: int(values.get(name, 0)) for name in _NUMBERS}
            stage_seconds = {stage: int(values[f"{stage}_us"]) / 1e6 for stage in STAGES if f"{stage}_us" in values}
        except ValueError as err:
            raise MessageError(f"the server's record of job {job} cannot be read: {err}") from err
        pauses = {by: values[f"paused_by_{by}"] for by in PAUSED_BY if f"paused_by_{by}" in values}
        return cls(
            job=job,
            kind=values.get("kind", ""),
            state=cast(State, values.get("state", "unknown")),
            listed=values.get("listed") == "1",
            too_many_failures=values.get("too_many_failures") == "1",
            progress=values.get("progress", ""),
            error=values.get("error", ""),
            result=values.get("result", ""),
            trouble=values.get("trouble", ""),
            version=values.get("version", ""),
            paused_by=", ".join(pauses),
            paused_reason="; ".join(pauses.values()),
            stage_seconds=stage_seconds,
            **numbers,
        )

    @property
    def ended(self) -> bool:
        return self.state in FINAL_STATES

    @property
    def bound(self) -> Bound | None:
        return name_bound(self.stage_seconds)


_NUMBERS = [each.name for each in fields(JobRecord) if each.type is int]


def time_fields(seconds: Mapping[str, float]) -> dict[str, int]:
    """Seconds by stage as fields of a job's hash: whole numbers, which add up exactly."""
    return {f"{stage}_us": round(seconds[stage] * 1e6) for stage in STAGES if stage in seconds}
