"""Following a job: its record from the ledger, or from the disk once it has ended, and a line that tells it."""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from orchestrator.contract.errors import ExitCode, PigeonholeError
from orchestrator.contract.jobs.job_folder import JobFolder, Outcome, active_jobs
from orchestrator.contract.jobs.listing import count_shards, read_facts
from orchestrator.contract.jobs.requests import AnyJobRequest, ClassifyRequest, TrainJobRequest
from orchestrator.contract.ledger.ledger import FINAL_STATES, JobRecord, Ledger
from orchestrator.contract.ledger.stages import STAGES
from orchestrator.contract.queues import CLASSIFY, QUEUE_OF_KIND
from orchestrator.contract.server import SERVER_ERRORS
from orchestrator.contract.settings import Settings
from orchestrator.jobs.events import describe_event

FIRST_POLL_S, SLOWEST_POLL_S = 0.03, 0.25
RATE_WINDOW_S = 15.0
NEVER_BEGAN_S = 5.0  # longer than any submission stands between its folder and the ledger


def read_record(settings: Settings, ledger: Ledger | None, job: str) -> JobRecord:
    """What is known of a job: its outcome from the disk, else what the ledger says, else what was asked.

    Raises:
        NotFoundError: if there is no such job.
    """
    folder = JobFolder.open(settings, job)
    request = folder.request()
    outcome = folder.outcome()
    record = ledger.record(job) if ledger is not None else None
    if record is None:
        record = _record_from_disk(folder, request)
    return _with_outcome(record, outcome) if outcome else record


def _record_from_disk(folder: JobFolder, request: AnyJobRequest) -> JobRecord:
    """What the disk knows of a job without looking at every part."""
    created_ms = round(request.created.timestamp() * 1000)
    num_shards, num_images = count_shards(folder.path)
    return JobRecord(
        folder.job,
        request.kind,
        "unknown",
        num_images=num_images,
        num_shards=num_shards,
        listed=read_facts(folder.path) is not None,
        created_ms=created_ms,
    )


def _with_outcome(record: JobRecord, outcome: Outcome) -> JobRecord:
    """The disk's word on how a job ended; it is final."""
    return replace(
        record,
        state=outcome.state,
        num_images=outcome.num_images or record.num_images,
        num_done=outcome.num_done,
        num_failed=outcome.num_failed,
        too_many_failures=outcome.too_many_failures,
        ended_ms=round(outcome.ended.timestamp() * 1000),
        error=outcome.error or "",
        result=outcome.result or "",
        listed=True,
    )


def to_json(settings: Settings, record: JobRecord) -> dict[str, Any]:
    """A job's record with what was asked for, for `--json`."""
    request = JobFolder.open(settings, record.job).request()
    facts = asdict(record) | {"progress": json.loads(record.progress) if record.progress else None}
    stage_seconds = facts.pop("stage_seconds")
    facts |= {"source": request.source}
    if isinstance(request, ClassifyRequest):
        timed = {"stage_seconds": stage_seconds, "bound": record.bound}
        return facts | timed | {"model": request.model.ref, "output": request.output}
    if isinstance(request, TrainJobRequest):
        return facts | {"model": request.name, "architecture": request.train["architecture"]}
    return facts | {"model": request.model.ref, "part": request.part, "output": request.output}


def exit_code(record: JobRecord) -> ExitCode:
    """What a command that waited for this job ends with."""
    if record.too_many_failures:
        return ExitCode.TOO_MANY_FAILURES
    if record.state in ("succeeded", "partial"):
        return ExitCode.OK
    return ExitCode.FAILED


@dataclass(frozen=True)
class Glimpse:
    """A job at one moment of being followed."""

    record: JobRecord
    images_per_sec: float  # over the last seconds
    num_workers: int  # alive and listening, whatever they do
    server_away: bool = False

    @property
    def eta_s(self) -> float | None:
        """Seconds left at this rate; None while the listing grows or nothing has come yet."""
        if not self.record.listed or self.images_per_sec <= 0:
            return None
        return (self.record.num_images - self.record.num_done) / self.images_per_sec


def follow(
    settings: Settings, ledger: Ledger, job: str, *, timeout_s: float | None = None, fresh: bool = True
) -> Iterator[Glimpse]:
    """Look at a job until it has ended, often at first, then four times a second; the last glimpse is its end.

    A server that is away is waited for. With `timeout_s` the iteration may stop before the end.
    """
    started = time.monotonic()
    poll_s = FIRST_POLL_S if fresh else SLOWEST_POLL_S
    seen: list[tuple[float, int]] = []
    record = read_record(settings, None, job)
    while True:
        away = False
        num_workers = 0
        try:
            record = read_record(settings, ledger, job)
            num_workers = ledger.num_listeners(QUEUE_OF_KIND.get(record.kind, CLASSIFY))
        except SERVER_ERRORS:
            away = True
            record = read_record(settings, None, job) if record.state not in FINAL_STATES else record
        now = time.monotonic()
        if (
            record.state == "unknown"
            and not away
            and now - started > NEVER_BEGAN_S
            and job not in active_jobs(settings)
        ):
            raise PigeonholeError(f"job {job} never began: its submission was cut short; submit it again")
        seen = [(at, done) for at, done in seen if now - at < RATE_WINDOW_S] + [(now, record.num_done)]
        yield Glimpse(record, _rate(seen), num_workers, away)
        if record.ended or (timeout_s is not None and now - started > timeout_s):
            return
        time.sleep(poll_s)
        poll_s = min(poll_s * 1.1, SLOWEST_POLL_S)


def _rate(seen: list[tuple[float, int]]) -> float:
    """Images per second over what was seen."""
    (first_at, first), (last_at, last) = seen[0], seen[-1]
    return (last - first) / (last_at - first_at) if last_at > first_at else 0.0


def describe(glimpse: Glimpse) -> str:
    """One plain line on a job."""
    record = glimpse.record
    if glimpse.server_away:
        return f"{record.job}: the server is away, waiting for it"
    if record.kind != CLASSIFY:
        told = describe_event(record.progress)
        return f"{record.job}: {record.state}, {told}" if told else f"{record.job}: {record.state}"
    total = f"{record.num_images}" if record.listed else f"{record.num_images}+"
    parts = [f"{record.job}: {record.state}", f"{record.num_done}/{total} images"]
    if record.num_failed:
        parts.append(f"{record.num_failed} failed")
    if glimpse.images_per_sec > 0:
        parts.append(f"{glimpse.images_per_sec:,.0f} images/s")
    if glimpse.eta_s is not None:
        parts.append(f"{glimpse.eta_s:,.0f} s left")
    if record.bound and not record.ended:
        parts.append(f"limited by {record.bound}")
    if record.trouble:
        parts.append(record.trouble)
    return ", ".join(parts)


def describe_bound(record: JobRecord) -> str:
    """What bounds a job and how long its stages took, in words."""
    seconds = record.stage_seconds
    stages = ", ".join(f"{stage} {seconds[stage]:,.1f} s" for stage in STAGES if stage in seconds)
    return f"{record.bound} ({stages})"
