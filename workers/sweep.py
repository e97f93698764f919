"""The sweep: a worker checks every active job, and rings for those that have work and no worker.

So a lost doorbell does no harm, and an emptied server is filled again: the active jobs, and those whose webhook is not
delivered, are listed on the disk.
"""

import logging
from collections.abc import Callable

from orchestrator.contract.jobs.end import enter_outcome
from orchestrator.contract.jobs.job_folder import JobFolder, active_jobs, undelivered_jobs
from orchestrator.contract.jobs.listing import read_facts
from orchestrator.contract.jobs.recovering_ledger import RecoveringLedger
from orchestrator.contract.jobs.requests import AnyJobRequest, ClassifyRequest
from orchestrator.contract.ledger.ledger import Ledger
from orchestrator.contract.queues import ALL_QUEUES, FINALIZE, QUEUE_OF_KIND
from orchestrator.contract.server import SERVER_ERRORS
from orchestrator.contract.settings import Settings

logger = logging.getLogger(__name__)

_JOBS_BETWEEN_SIGNS = 100  # that the sweep goes on
_LISTER_DIED = "the process that submitted it ended before it had listed all images; {}"


def sweep(settings: Settings, ledger: Ledger, ring: Callable[[str, str], None]) -> None:
    """Check every active job once.

    A job with shards to claim gets a doorbell for every idle worker if no doorbell waits in the queue; a job that must
    be ended gets one also if no worker is idle. A paused job gets one at intervals; the worker that takes it checks
    whether the source is back. A starving job gets one even if doorbells wait, as long as no more wait than there are
    active jobs: so their number stays bounded.
    """
    for job in undelivered_jobs(settings):
        ledger.deliveries.add(job)
    jobs = set(active_jobs(settings)) | {job for job in ledger.active() if (settings.jobs / job).exists()}
    recovering = RecoveringLedger(ledger, settings)
    waiting = {queue: ledger.queue_length(queue) for queue in ALL_QUEUES}
    idle = {queue: ledger.live_workers.num_idle(queue) for queue in ALL_QUEUES} if jobs else {}
    for number, job in enumerate(sorted(jobs), start=1):
        if number % _JOBS_BETWEEN_SIGNS == 0:
            ledger.live_workers.keep_sweep()
        try:
            queue, need = _check_job(JobFolder.open(settings, job), recovering, starving_s=2 * settings.slice_s)
        except SERVER_ERRORS:
            raise
        except Exception:  # one damaged folder must not prevent the check of the others
            logger.exception("cannot check job %s", job)
            continue
        for _ in range(_num_doorbells(need, waiting[queue], idle[queue], num_jobs=len(jobs))):
            ring(queue, job)
            waiting[queue] += 1


def _num_doorbells(need: str, waiting: int, idle: int, *, num_jobs: int) -> int:
    """How many doorbells a job needs, in a queue where `waiting` doorbells wait and `idle` workers listen."""
    if need in ("nothing", "held"):
        return 0
    if need == "starving" and waiting <= num_jobs:
        return 1
    if waiting:
        return 0
    return {"end": 1, "look": max(idle, 1)}.get(need, idle)


def _finish_listing(folder: JobFolder, request: AnyJobRequest, ledger: RecoveringLedger) -> None:
    """The lister's lease has run out: enter the listing if it is whole, else end the job."""
    facts = read_facts(folder.work)
    if facts is None or not isinstance(request, ClassifyRequest):
        again = isinstance(request, ClassifyRequest) and request.can_be_listed_again
        advice = f"`pigeonhole jobs resume {folder.job}` lists them again" if again else "submit it again"
        ledger.cancel(folder.job, run=folder.run, reason=_LISTER_DIED.format(advice))
        return
    limit = folder.failure_limit(request, facts.num_images)
    ledger.extend(folder.job, facts.num_shards, facts.num_images, listed=True, run=folder.run, failure_limit=limit)


def _check_job(folder: JobFolder, ledger: RecoveringLedger, *, starving_s: float) -> tuple[str, str]:
    """The queue of the job's next doorbell, and what the job needs; enters into the ledger what it does not know."""
    run = folder.run
    outcome = folder.outcome()
    if outcome is not None:
        enter_outcome(folder, outcome, ledger)
        return FINALIZE, "nothing"
    request = folder.request()
    queue = QUEUE_OF_KIND[request.kind]
    if run and not folder.is_active():
        folder.activate()  # a slow worker may have removed it, when it entered the end of the run before
    if folder.cancel_requested():
        ledger.cancel(folder.job, run=run)  # again: the server may have lost the cancel with its last second
    if (pause := folder.pause("operator")) is not None:
        ledger.pause(folder.job, pause.reason, by="operator")  # again, likewise
    need = ledger.need(folder.job, starving_s, run=run)
    if need == "held" and folder.pause("operator") is None:
        ledger.unpause_in_ledger(folder.job, by="operator")
        need = ledger.need(folder.job, starving_s, run=run)
    if need == "lister":
        _finish_listing(folder, request, ledger)
        need = ledger.need(folder.job, starving_s, run=run)
    return (FINALIZE if need == "end" else queue), need
