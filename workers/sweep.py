"""The sweep: a worker checks every active job, and rings for those that have work and no worker.

So a lost doorbell does no harm, and an emptied server is filled again: the active jobs, and those whose webhook is not
delivered, are listed on the disk.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from orchestrator.contract.jobs.end import enter_outcome
from orchestrator.contract.jobs.job_folder import JobFolder, active_jobs, undelivered_jobs
from orchestrator.contract.jobs.listing import read_facts
from orchestrator.contract.jobs.recovering_ledger import RecoveringLedger
from orchestrator.contract.jobs.requests import AnyJobRequest, ClassifyRequest
from orchestrator.contract.ledger.ledger import Ledger, Need
from orchestrator.contract.ledger.live_workers import WorkerRecord
from orchestrator.contract.queues import ALL_QUEUES, FINALIZE, QUEUE_OF_KIND
from orchestrator.contract.server import SERVER_ERRORS
from orchestrator.contract.settings import Settings

logger = logging.getLogger(__name__)

_AT_ONCE = 100  # jobs whose needs are asked for in one request: on a busy machine each request costs a wait
_LISTER_DIED = "the process that submitted it ended before it had listed all images; {}"


def sweep(settings: Settings, ledger: Ledger, ring: Callable[[str, str], None]) -> None:
    """Check every active job once.

    A job with shards to claim gets a doorbell for every idle worker if no doorbell waits in the queue. A starving job
    and one that must be ended get one also if no worker is idle, as long as fewer doorbells wait than workers listen:
    so their number stays bounded. A paused job gets one at intervals, whatever waits: only a worker that takes a
    doorbell of this job checks whether the source is back.
    """
    for job in undelivered_jobs(settings):
        ledger.deliveries.add(job)
    jobs = sorted(set(active_jobs(settings)) | {job for job in ledger.active() if _has_folder(job, settings)})
    workers = ledger.live_workers.workers() if jobs else []
    queues = {queue: _Queue(ledger.queue_length(queue), _listeners(workers, queue)) for queue in ALL_QUEUES}
    for start in range(0, len(jobs), _AT_ONCE):
        ledger.live_workers.keep_sweep()
        for job, name, need in _check_jobs(jobs[start : start + _AT_ONCE], settings, ledger):
            for _ in range(queues[name].num_doorbells(need)):
                ring(name, job)
                queues[name].waiting += 1


def _has_folder(job: str, settings: Settings) -> bool:
    """Whether a job has a folder here; also one that cannot be read: its check says so, and others are checked."""
    try:
        return (settings.jobs / job).exists()
    except OSError:
        return True


@dataclass
class _Queue:
    """How many doorbells wait in a queue, and the live workers that listen to it."""

    waiting: int
    listeners: list[WorkerRecord]

    def num_doorbells(self, need: Need) -> int:
        """How many doorbells a job needs."""
        idle = sum(not worker.busy for worker in self.listeners)
        if need == "look":
            return 1 if self.waiting else max(idle, 1)
        if need in ("starving", "end"):
            return int(self.waiting < max(len(self.listeners), 1))
        return idle if need == "claim" and not self.waiting else 0


def _listeners(workers: list[WorkerRecord], queue: str) -> list[WorkerRecord]:
    return [worker for worker in workers if worker.takes(queue)]


def _check_jobs(jobs: list[str], settings: Settings, ledger: Ledger) -> list[tuple[str, str, Need]]:
    """Each of the jobs that has not ended, the queue of its next doorbell, and what it needs."""
    recovering, starving_s = RecoveringLedger(ledger, settings), 2 * settings.slice_s
    going_on: list[tuple[JobFolder, AnyJobRequest]] = []
    checked: list[tuple[str, str, Need]] = []
    for job in jobs:
        with _logging_damage(job):
            folder = JobFolder.open(settings, job)
            if (request := _enter_records(folder, recovering)) is not None:
                going_on.append((folder, request))
    needs = ledger.needs({folder.job: folder.run for folder, _ in going_on}, starving_s)
    for folder, request in going_on:
        with _logging_damage(folder.job):
            need = _follow(folder, request, needs[folder.job], recovering, starving_s)
            checked.append((folder.job, FINALIZE if need == "end" else QUEUE_OF_KIND[request.kind], need))
    return checked


@contextlib.contextmanager
def _logging_damage(job: str) -> Iterator[None]:
    """One damaged folder must not prevent the check of the others."""
    try:
        yield
    except SERVER_ERRORS:
        raise
    except Exception:
        logger.exception("cannot check job %s", job)


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


def _enter_records(folder: JobFolder, ledger: RecoveringLedger) -> AnyJobRequest | None:
    """Enter into the ledger what the folder says and the server may have lost; None where the job has ended."""
    run = folder.run
    if (outcome := folder.outcome()) is not None:
        enter_outcome(folder, outcome, ledger)
        return None
    request = folder.request()
    if run and not folder.is_active():
        folder.activate()  # a slow worker may have removed it, when it entered the end of the run before
    if folder.cancel_requested():
        ledger.cancel(folder.job, run=run)  # again: the server may have lost the cancel with its last second
    if (pause := folder.pause("operator")) is not None:
        ledger.pause(folder.job, pause.reason, by="operator")  # again, likewise
    return request


def _follow(
    folder: JobFolder, request: AnyJobRequest, need: Need | Exception, ledger: RecoveringLedger, starving_s: float
) -> Need:
    """What the job needs from a worker, after the sweep has done what it can do itself."""
    if isinstance(need, Exception):
        raise need
    if need == "rebuild":
        need = ledger.need(folder.job, starving_s, run=folder.run)
    if need == "held" and folder.pause("operator") is None:
        ledger.unpause_in_ledger(folder.job, by="operator")
        need = ledger.need(folder.job, starving_s, run=folder.run)
    if need == "lister":
        _finish_listing(folder, request, ledger)
        need = ledger.need(folder.job, starving_s, run=folder.run)
    return need
