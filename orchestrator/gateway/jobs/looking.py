"""A look at a job as an event: what its viewers get when it has changed."""

import hashlib

from orchestrator.contract.settings import Settings
from orchestrator.gateway.context import GatewayContext
from orchestrator.gateway.jobs.events import JobEvent, Look
from orchestrator.gateway.jobs.views import JobProgress, JobView
from orchestrator.gateway.threads import Questions
from orchestrator.jobs.follow import Follower, JobSnapshot, describe, to_json


def look_at(context: GatewayContext, threads: Questions, job: str) -> Look:
    """What looks at a job again and again. The first look raises NotFoundError where there is no such job."""
    follower: Follower | None = None

    def look() -> JobEvent:
        nonlocal follower
        if follower is None:
            follower = Follower(context.settings, context.jobs().ledger, job)
        return to_event(context.settings, follower.look())

    async def look_in_thread() -> JobEvent:
        return await threads.run(look)

    return look_in_thread


def to_event(settings: Settings, snapshot: JobSnapshot) -> JobEvent:
    """The event of a snapshot. Its id depends on the job's state alone: rates change all the time."""
    facts = to_json(settings, snapshot.record)
    state = JobView.of(facts).model_dump_json()
    progress = JobProgress.model_validate(
        facts
        | {
            "images_per_sec": snapshot.images_per_sec,
            "eta_s": snapshot.eta_s,
            "num_workers": snapshot.num_workers,
            "server_away": snapshot.server_away,
            "text": describe(snapshot),
        }
    )
    digest = hashlib.sha256(f"{state} {snapshot.server_away}".encode()).hexdigest()[:16]
    return JobEvent(digest, progress.model_dump_json(), snapshot.record.ended)
