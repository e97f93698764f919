"""Submitting prepared jobs: make the checks that need the server, write the job to the disk, then notify the workers.

All checks come first, so that an invalid job fails immediately and leaves nothing behind.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from orchestrator.contract.errors import ExitCode, PigeonholeError, UnavailableError, UsageError
from orchestrator.contract.jobs.end import conclude, make_outcome, stopped_outcome
from orchestrator.contract.jobs.job_folder import JobFolder, Outcome, new_job_id
from orchestrator.contract.jobs.listing import ListingFacts
from orchestrator.contract.jobs.recovering_ledger import RecoveringLedger
from orchestrator.contract.jobs.requests import (
    AnyJobRequest,
    ClassifyRequest,
    EvaluateJobRequest,
    TrainJobRequest,
    fingerprint,
)
from orchestrator.contract.jobs.restore import output_of
from orchestrator.contract.ledger.ledger import FINALIZE_LEASE_S, Ledger
from orchestrator.contract.queues import FINALIZE, QUEUE_OF_KIND
from orchestrator.contract.server import SERVER_ERRORS, connect, require_answer
from orchestrator.contract.settings import Settings
from orchestrator.jobs.listing import Lister
from orchestrator.jobs.prepare import Prepared, PreparedClassify
from orchestrator.jobs.sources import Source

if TYPE_CHECKING:
    from celery import Celery


OnListing = Callable[[str, int], None]
"""Receives the job and the number of images listed so far, at intervals."""


@dataclass(frozen=True)
class Submission:
    """A job that was submitted, now or before with the same idempotency key."""

    job: str
    existed: bool = False
    facts: ListingFacts | None = None


class ListingInterruptedError(PigeonholeError):
    """The operator interrupted a submission; a job needs a complete listing."""

    exit_code = ExitCode.INTERRUPTED


class JobClient:
    """Submits and cancels jobs; holds the settings and a connection to the server."""

    def __init__(self, settings: Settings) -> None:
        """Raises UnavailableError where no server answers."""
        url = settings.require_server_url()
        self.settings = settings
        self.ledger = Ledger(connect(url))
        require_answer(self.ledger.client, url)

    @cached_property
    def _app(self) -> "Celery":
        """The Celery app; commands that only read never import Celery."""
        from orchestrator.contract.app import create_app

        return create_app(self.settings.require_server_url())

    def ring(self, queue: str, job: str) -> None:
        from orchestrator.contract.app import ring

        ring(self._app, queue, job)

    def require_worker(self, queue: str) -> None:
        """Raises UnavailableError where no live worker listens to `queue`."""
        if not self.ledger.live_workers.num_listeners(queue):
            raise UnavailableError(
                f"no worker listens to the queue {queue!r}; start one with `pigeonhole worker`, "
                "or let the job wait for one with --detach"
            )

    def submit(self, prepared: Prepared, *, on_listing: OnListing = lambda job, num_images: None) -> Submission:
        """Submit a job. For a classify job, returns when its listing is complete; workers begin long before.

        Raises PigeonholeError where the job cannot be submitted; nothing was written.
        """
        if prepared.spec.idempotency_key:
            earlier = self._earlier(prepared.spec.idempotency_key, prepared)
            if earlier is not None:
                return Submission(earlier, existed=True)
            prepared.check_new()
        self._check_output_is_free(prepared.claimed_output)
        if prepared.spec.need_worker:
            self.require_worker(QUEUE_OF_KIND[prepared.kind])
        job = new_job_id(prepared.kind)
        if isinstance(prepared, PreparedClassify):
            return self._submit_and_list(prepared.request(job), prepared.source, on_listing)
        return self._submit_whole(prepared.request(job), prepared.num_images)

    def _submit_and_list(self, request: ClassifyRequest, source: Source, on_listing: OnListing) -> Submission:
        """Submit a classify job, then list its images."""
        folder = JobFolder.create(self.settings, request)
        lister = Lister(folder, request, self.ledger, self.ring)
        try:
            entered = self._enter(folder, request, {"kind": request.kind, "listed": 0})
            return entered if entered.existed else Submission(folder.job, facts=lister.run(source, on_listing))
        except BaseException as err:
            lister.fail(err)
            if isinstance(err, KeyboardInterrupt):
                message = f"interrupted before all images were listed: job {folder.job} ends; submit it again"
                raise ListingInterruptedError(message) from err
            raise

    def _submit_whole(self, request: TrainJobRequest | EvaluateJobRequest, num_images: int) -> Submission:
        """Submit a job that a worker's child process does as a whole: one shard, listed from the start."""
        folder = JobFolder.create(self.settings, request)
        fields: dict[str, str | int] = {"kind": request.kind, "listed": 1, "num_shards": 1, "num_images": num_images}
        entered = self._enter(folder, request, fields)
        if not entered.existed:
            self.ring(QUEUE_OF_KIND[request.kind], folder.job)
        return entered

    def cancel(self, job: str) -> str:
        """Cancel a job; returns its state after that."""
        folder = JobFolder.open(self.settings, job)
        outcome = folder.outcome()
        if outcome is not None:
            return outcome.state
        folder.request_cancel()  # first, so that a sweep cancels it again if the server forgets
        ledger = RecoveringLedger(self.ledger, self.settings)
        state = ledger.cancel(job)
        if state != "cancelling":
            folder.withdraw_cancel()  # too late: the job must not end as cancelled if the server forgets it
            return state
        self.ring(FINALIZE, job)
        outcome = self._end_without_worker(folder, ledger)
        return outcome.state if outcome else state

    def _end_without_worker(self, folder: JobFolder, ledger: RecoveringLedger) -> Outcome | None:
        """End a cancelled job here if no worker is alive; None if one is, or if a worker's lease still counts."""
        if any(worker.alive for worker in self.ledger.live_workers.workers()):
            return None
        state, fence = ledger.take_finalize_lease(folder.job, "the operator", FINALIZE_LEASE_S)
        if state != "cancelling" or fence is None:
            return None
        return conclude(folder, stopped_outcome(folder, folder.request(), ledger.record(folder.job)), ledger)

    def _earlier(self, key: str, prepared: Prepared) -> str | None:
        """The job that the idempotency key already stands for."""
        job = self.ledger.job_of_submission(key)
        if job is not None and not prepared.repeats(JobFolder.open(self.settings, job).request()):
            raise UsageError(f"idempotency key {key!r} stands for another request, job {job}; use a new key")
        return job

    def _check_output_is_free(self, output: str) -> None:
        owner = self.ledger.owner_of_output(output) if output else None
        if owner is not None:
            raise UsageError(f"job {owner} will write {output}; wait for it, cancel it, or name another output")

    def _enter(self, folder: JobFolder, request: AnyJobRequest, fields: dict[str, str | int]) -> Submission:
        """Enter the job into the ledger; remove its folder if another job has its key or output already."""
        try:
            verdict, job = self.ledger.create(
                folder.job,
                fields,
                output=output_of(request),
                key=request.idempotency_key or "",
                fingerprint=fingerprint(request),
            )
        except SERVER_ERRORS:  # the ledger may have the job or not: an outcome on the disk is right in both cases
            error = "the server went away while the job was submitted; submit it again"
            folder.write_outcome(make_outcome("failed", None, error=error))
            raise
        if verdict == "created":
            folder.activate()
            return Submission(job)
        folder.discard()
        if verdict == "exists":
            return Submission(job, existed=True)
        if verdict == "conflict":
            raise UsageError(f"idempotency key {request.idempotency_key!r} stands for another request, job {job}")
        raise UsageError(f"job {job} will write {output_of(request)}; wait for it, or name another output")
