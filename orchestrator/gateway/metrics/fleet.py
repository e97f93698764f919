"""What a scrape reads from the server: one look at everything, with bounds on how much that may be.

What cannot be read is counted and left out: what one worker or a stranger wrote there must not hide the rest.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import redis

from orchestrator.contract.ledger.ledger import Ledger
from orchestrator.contract.ledger.live_workers import PREFIX, LiveWorkersSurvey, WorkerRecord
from orchestrator.contract.ledger.stages import STAGES
from orchestrator.contract.queues import ALL_QUEUES, queue_key

T = TypeVar("T")

MOST_JOBS = 2_000  # the oldest active jobs; of any further ones only their number is reported
_FIELDS = ("kind", "state", "created_ms", "started_ms", "num_images", "num_done", "num_failed")
_STAGE_FIELDS = tuple(f"{stage}_us" for stage in STAGES)


@dataclass(frozen=True, slots=True)
class ActiveJob:
    """A job that has not ended. Times in ms of the server's clock; 0: not yet."""

    kind: str
    state: str
    created_ms: int
    started_ms: int
    num_images: int
    num_done: int
    num_failed: int
    stage_seconds: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Fleet:
    """One look at the server. num_active: of all jobs, also of those that `jobs` lacks. num_unreadable: records."""

    now_ms: int
    counts: dict[str, int]
    jobs: list[ActiveJob]
    num_active: int
    doorbells: dict[str, int]
    workers: list[WorkerRecord]
    num_webhooks: int
    num_unreadable: int


def read_fleet(ledger: Ledger) -> Fleet:
    """Look once. Raises what redis-py raises where the server does not answer."""
    with ledger.client.pipeline(transaction=False) as pipeline:
        pipeline.time()
        pipeline.scard(f"{PREFIX}:active")
        for queue in ALL_QUEUES:
            pipeline.llen(queue_key(queue))
        (seconds, microseconds), num_active, *lengths = pipeline.execute(raise_on_error=False)
    survey, bad_survey = readable(ledger.live_workers.survey, LiveWorkersSurvey([], []))
    (jobs, bad_jobs), bad_active = readable(lambda: _read_jobs(ledger), (list[ActiveJob](), 0))
    counts, bad_counts = readable(ledger.counts.read, dict[str, int]())
    num_webhooks, bad_webhooks = readable(ledger.deliveries.num_waiting, 0)
    return Fleet(
        now_ms=seconds * 1000 + microseconds // 1000,
        counts=counts,
        jobs=jobs,
        num_active=_number(num_active),
        doorbells={queue: _number(length) for queue, length in zip(ALL_QUEUES, lengths, strict=True)},
        workers=survey.records,
        num_webhooks=num_webhooks,
        num_unreadable=len(survey.malformed) + bad_jobs + bad_survey + bad_active + bad_counts + bad_webhooks,
    )


def readable(read: Callable[[], T], default: T) -> tuple[T, int]:
    """What `read` finds and 0, or the default and 1 where its key is none of ours."""
    try:
        return read(), 0
    except redis.ResponseError:
        return default, 1


def _read_jobs(ledger: Ledger) -> tuple[list[ActiveJob], int]:
    """The oldest active jobs, and how many records cannot be read."""
    names = sorted(ledger.active(), key=lambda job: job[1:])[:MOST_JOBS]
    if not names:
        return [], 0
    with ledger.client.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.hmget(f"{PREFIX}:job:{name}", *_FIELDS, *_STAGE_FIELDS)
        found = [_job(values) for values in pipeline.execute(raise_on_error=False)]
    jobs = [job for job in found if isinstance(job, ActiveJob)]
    return jobs, sum(job is ValueError for job in found)


def _job(values: Any) -> ActiveJob | type[ValueError] | None:
    """None: the server does not know the job (any more)."""
    if isinstance(values, Exception):
        return ValueError
    kind, state, *numbers = cast("list[str | None]", values)
    if kind is None and state is None:
        return None
    try:
        created, started, images, done, failed, *stages = (max(0, int(number or 0)) for number in numbers)
    except ValueError:
        return ValueError
    seconds = {stage: us / 1e6 for stage, us in zip(STAGES, stages, strict=True) if us}
    return ActiveJob(kind or "", state or "", created, started, images, done, failed, seconds)


def _number(value: Any) -> int:
    """0 for a key that is none of ours."""
    if isinstance(value, redis.ResponseError):
        return 0
    if isinstance(value, Exception):
        raise value
    return int(value)
