"""The sweep: any worker rings for a job that has work and nobody at it, and tells the server what it forgot.

It is why a doorbell may be lost, and why an emptied server needs nobody's help: the active jobs stand on the disk.
"""

import logging
from collections.abc import Callable

from orchestrator.contract.jobs.job_folder import JobFolder, active_jobs
from orchestrator.contract.jobs.listing import read_facts
from orchestrator.contract.jobs.requests import AnyJobRequest, ClassifyRequest
from orchestrator.contract.jobs.restore import restore_job
from orchestrator.contract.ledger.ledger import Ledger
from orchestrator.contract.queues import ALL_QUEUES, FINALIZE, QUEUE_OF_KIND
from orchestrator.contract.server import SERVER_ERRORS
from orchestrator.contract.settings import Settings
from workers.finalize.finalize import enter_outcome

logger = logging.getLogger(__name__)

_LISTER_DIED = "the process that submitted it ended before it had listed all images; submit it again"


def sweep(settings: Settings, ledger: Ledger, ring: Callable[[str, str], None]) -> None:
    """Look after every active job once.

    A job that wants work gets a bell for every idle worker, where no bell hangs yet; one that only wants to be
    ended gets a bell in any case. A job that nobody has touched for two slices gets one even if bells hang there,
    as long as there are no more of them than active jobs: so their number stays bounded.
    """
    jobs = set(active_jobs(settings)) | {job for job in ledger.active() if (settings.jobs / job).exists()}
    waiting = {queue: ledger.queue_length(queue) for queue in ALL_QUEUES}
    idle = {queue: ledger.live_workers.num_idle(queue) for queue in ALL_QUEUES} if jobs else {}
    for job in sorted(jobs):
        try:
            queue, need = _look_at(JobFolder.open(settings, job), ledger, starving_s=2 * settings.slice_s)
        except SERVER_ERRORS:
            raise
        except Exception:  # one damaged folder must not keep the others from being looked after
            logger.exception("cannot look after job %s", job)
            continue
        for _ in range(_num_bells(need, waiting[queue], idle[queue], num_jobs=len(jobs))):
            ring(queue, job)
            waiting[queue] += 1


def _num_bells(need: str, waiting: int, idle: int, *, num_jobs: int) -> int:
    """How many bells to ring for a job in need, on a queue where `waiting` hang and `idle` workers listen."""
    if need == "nothing":
        return 0
    if need == "starving" and waiting <= num_jobs:
        return 1
    if waiting:
        return 0
    return 1 if need == "end" else idle


def _finish_listing(folder: JobFolder, request: AnyJobRequest, ledger: Ledger) -> None:
    """The submitting process is silent: either the listing is whole and the server forgot, or it never will be."""
    facts = read_facts(folder.path)
    if facts is None or not isinstance(request, ClassifyRequest):
        ledger.cancel(folder.job, reason=_LISTER_DIED)
        return
    limit = request.failure_limit(facts.num_images)
    ledger.extend(folder.job, facts.num_shards, facts.num_images, listed=True, failure_limit=limit)


def _look_at(folder: JobFolder, ledger: Ledger, *, starving_s: float) -> tuple[str, str]:
    """The queue where the job's next bell belongs, and what it needs; tells the ledger what it does not know."""
    outcome = folder.outcome()
    if outcome is not None:
        enter_outcome(folder, outcome, ledger)
        return FINALIZE, "nothing"
    request = folder.request()
    queue = QUEUE_OF_KIND[request.kind]
    if folder.cancel_requested():
        ledger.cancel(folder.job)  # once more: the server may have lost it with its last second
    need = ledger.need(folder.job, starving_s)
    if need == "rebuild":
        if restore_job(folder, ledger):
            logger.warning("the server had forgotten job %s; entered it again from %s", folder.job, folder.path)
        need = ledger.need(folder.job, starving_s)
    if need == "lister":
        _finish_listing(folder, request, ledger)
        need = ledger.need(folder.job, starving_s)
    return (FINALIZE if need == "end" else queue), need
