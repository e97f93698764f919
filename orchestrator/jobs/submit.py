"""Submitting prepared jobs: make the checks that need the server, write the job to the disk, then notify the workers.

All checks come first, so that an invalid job fails immediately and leaves nothing behind. The images of a classify job
are listed while workers already classify those that are listed.
"""

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.contract.access import explain_refused_write
from orchestrator.contract.errors import ExitCode, NotFoundError, PigeonholeError, TakenError, UnavailableError
from orchestrator.contract.home import check_server, join_server, read_home_id
from orchestrator.contract.jobs.base import BaseFiles
from orchestrator.contract.jobs.end import (
    conclude,
    enter_outcome,
    make_outcome,
    stopped_outcome,
    too_many_failures,
)
from orchestrator.contract.jobs.history import note
from orchestrator.contract.jobs.job_folder import JobFolder, Outcome, new_job_id
from orchestrator.contract.jobs.listing import ListingFacts, read_facts
from orchestrator.contract.jobs.recovering_ledger import RecoveringLedger
from orchestrator.contract.jobs.requests import (
    AnyJobRequest,
    ClassifyRequest,
    EvaluateJobRequest,
    TrainJobRequest,
    fingerprint,
    ledger_fields,
)
from orchestrator.contract.jobs.restore import output_of, withdraw_job
from orchestrator.contract.ledger.ledger import FINALIZE_LEASE_S, Ledger
from orchestrator.contract.ledger.live_workers import HEARTBEAT_S
from orchestrator.contract.queues import FINALIZE, QUEUE_OF_KIND
from orchestrator.contract.server import SERVER_ERRORS, connect, require_answer
from orchestrator.contract.settings import Settings
from orchestrator.jobs.lister import Lister, OnListing
from orchestrator.jobs.prepare import Prepared, PreparedClassify, PreparedTrain

if TYPE_CHECKING:
    from celery import Celery

logger = logging.getLogger(__name__)

RETURN_S = 1.5 * HEARTBEAT_S  # for silent workers to be heard of again
_LOOK_S = 0.1

OnEntered = Callable[[str], None]
"""Receives a classify job's id once the ledger has it; its images are not listed yet."""


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
        check_server(settings, self.ledger.client)

    @cached_property
    def _app(self) -> "Celery":
        """The Celery app; commands that only read never import Celery."""
        from orchestrator.contract.app import client_app

        return client_app(self.settings.require_server_url())

    def ring(self, queue: str, job: str) -> None:
        from orchestrator.contract.app import ring

        ring(self._app, queue, job)

    def require_worker(self, queue: str) -> None:
        """Raises UnavailableError where no live worker listens to `queue`.

        Where workers are silent that did, or the server was emptied, it waits: they are known again by a heartbeat.
        """
        until, emptied = time.monotonic() + RETURN_S, False
        while True:
            workers = self.ledger.live_workers.workers()
            if any(worker.takes(queue) for worker in workers):
                return
            emptied = emptied or self._server_was_emptied()
            if time.monotonic() > until or not (emptied or any(worker.may_return(queue) for worker in workers)):
                raise UnavailableError(
                    f"no worker listens to the queue {queue!r}; start one with `pigeonhole worker`, "
                    "or let the job wait for one with --detach"
                )
            time.sleep(_LOOK_S)

    def _server_was_emptied(self) -> bool:
        """Whether the server knows nothing of a home that has been at work."""
        return read_home_id(self.settings) is not None and not check_server(self.settings, self.ledger.client)

    def submit(
        self,
        prepared: Prepared,
        *,
        on_listing: OnListing = lambda job, num_images: None,
        on_entered: OnEntered | None = None,
    ) -> Submission:
        """Submit a job. For a classify job, returns when its listing is complete; workers begin long before.

        Raises PigeonholeError where the job cannot be submitted; nothing was written. A job that `on_entered` was told
        of remains, and ends with the error.
        """
        if prepared.spec.idempotency_key:
            earlier = self._earlier(prepared.spec.idempotency_key, prepared)
            if earlier is not None:
                return Submission(earlier, existed=True)
            prepared.check_new()
        self.check_output_is_free(prepared.claimed_output)
        if prepared.spec.need_worker:
            self.require_worker(QUEUE_OF_KIND[prepared.kind])
        job = new_job_id(prepared.kind)
        if isinstance(prepared, PreparedClassify):
            return self._submit_and_list(prepared, prepared.request(job), on_listing, on_entered)
        weights = prepared.resolved.weights if isinstance(prepared, PreparedTrain) else None
        return self._submit_whole(prepared.request(job), prepared.num_images, weights.path if weights else None)

    def _submit_and_list(
        self,
        prepared: PreparedClassify,
        request: ClassifyRequest,
        on_listing: OnListing,
        on_entered: OnEntered | None,
    ) -> Submission:
        """Submit a classify job, then list its images: of a merge, those that are to be classified."""
        source, merge = prepared.source, prepared.merge
        folder = self._make_folder(request, base=merge.base.files if merge else None)
        if merge is not None:
            source.paths = merge.paths(folder.work, source.paths, partial(on_listing, folder.job))
        lister = Lister(folder, request, self.ledger, self.ring)
        entered, told = None, False
        try:
            entered = self._enter(folder, request, {"listed": 0})
            if entered.existed:
                return entered
            if on_entered is not None:
                told = True
                on_entered(folder.job)
            return Submission(folder.job, facts=lister.run(source, on_listing))
        except OSError as err:
            if told:
                reason = explain_refused_write(err, folder.path)
                lister.fail(PigeonholeError(reason))
                raise PigeonholeError(f"job {folder.job} ends: {reason}") from err
            raise self._refuse(folder, request, err, lister) from err
        except PigeonholeError as err:  # the source cannot be read to its end
            if entered is not None and (told or not self._withdraw(folder, request)):
                lister.fail(err)
            raise
        except BaseException as err:
            lister.fail(err)
            if isinstance(err, KeyboardInterrupt):
                message = f"interrupted before all images were listed: job {folder.job} ends; submit it again"
                raise ListingInterruptedError(message) from err
            raise

    def _submit_whole(
        self, request: TrainJobRequest | EvaluateJobRequest, num_images: int, weights: Path | None
    ) -> Submission:
        """Submit a job that a worker's training process does as a whole: one shard, listed from the start."""
        folder = self._make_folder(request, weights=weights)
        fields: dict[str, str | int] = {"listed": 1, "num_shards": 1, "num_images": num_images}
        try:
            entered = self._enter(folder, request, fields)
        except OSError as err:
            raise self._refuse(folder, request, err) from err
        if not entered.existed:
            self.ring(QUEUE_OF_KIND[request.kind], folder.job)
        return entered

    def _make_folder(
        self, request: AnyJobRequest, *, weights: Path | None = None, base: BaseFiles | None = None
    ) -> JobFolder:
        """The folder of a new job, in a home that the server works for; with the weights or the base it starts from."""
        try:
            join_server(self.settings, self.ledger.client)
            return JobFolder.create(self.settings, request, weights, base)
        except OSError as err:
            raise PigeonholeError(f"nothing was submitted: {explain_refused_write(err, self.settings.home)}") from err

    def _refuse(
        self, folder: JobFolder, request: AnyJobRequest, err: OSError, lister: "Lister | None" = None
    ) -> PigeonholeError:
        """The error of a submission that the disk or the source ended; nothing of the job is left.

        Where a worker has begun already, the job ends with that error instead.
        """
        reason = explain_refused_write(err, folder.path)
        if self._withdraw(folder, request):
            return PigeonholeError(f"nothing was submitted: {reason}")
        if lister is not None:
            lister.fail(PigeonholeError(reason))
        return PigeonholeError(f"job {folder.job} ends: {reason}")

    def _withdraw(self, folder: JobFolder, request: AnyJobRequest) -> bool:
        """Leave nothing of a job whose submission failed; False where a worker has begun, or may have."""
        with contextlib.suppress(OSError):
            folder.retire()  # first: a worker enters no job that is not active, once the ledger has forgotten it
        try:
            if withdraw_job(request, self.ledger):
                folder.discard()
                return True
        except SERVER_ERRORS as away:
            logger.warning("cannot withdraw job %s from the server, a worker will end it: %s", folder.job, away)
        with contextlib.suppress(OSError):
            folder.activate()
        return False

    def cancel(self, job: str) -> str:
        """Cancel a job; returns its state after that."""
        folder = JobFolder.open(self.settings, job)
        outcome = folder.outcome()
        if outcome is not None:
            return outcome.state
        folder.request_cancel()  # first, so that a sweep cancels it again if the server forgets
        ledger = RecoveringLedger(self.ledger, self.settings)
        state = ledger.cancel(job, run=folder.run)
        if state != "cancelling":
            folder.withdraw_cancel()  # too late: the job must not end as cancelled if the server forgets it
            return state
        note(folder, "cancelled")
        self.ring(FINALIZE, job)
        outcome = self._end_without_worker(folder, ledger)
        return outcome.state if outcome else state

    def _end_without_worker(self, folder: JobFolder, ledger: RecoveringLedger) -> Outcome | None:
        """End a cancelled job here if no worker is alive; None if one is, or if a worker's lease still counts."""
        if any(worker.alive for worker in self.ledger.live_workers.workers()):
            return None
        request = folder.request()
        if too_many_failures(folder, request, ledger.record(folder.job)) is not None:
            return None  # a worker publishes what was found so far
        state, fence = ledger.take_finalize_lease(folder.job, "the operator", FINALIZE_LEASE_S)
        if state != "cancelling" or fence is None:
            return None
        return conclude(folder, stopped_outcome(request, ledger.record(folder.job), folder.run, fence), ledger)

    def _earlier(self, key: str, prepared: Prepared) -> str | None:
        """The job that the idempotency key stands for already. One whose submission failed is none: repeat it."""
        job = self.ledger.job_of_submission(key)
        if job is None:
            return None
        try:
            folder = JobFolder.open(self.settings, job)
            earlier = folder.request()
        except NotFoundError as err:
            why = f"idempotency key {key!r} stands for job {job}, whose folder was removed; use a new key"
            raise NotFoundError(why) from err
        if (outcome := folder.outcome()) is not None and _has_never_begun(folder, earlier, outcome):
            enter_outcome(folder, outcome, RecoveringLedger(self.ledger, self.settings))
            self.ledger.free_submission(key, job)
            return None
        if not prepared.repeats(earlier):
            raise TakenError(f"idempotency key {key!r} stands for another request, job {job}; use a new key")
        return job

    def check_output_is_free(self, output: str, job: str | None = None) -> None:
        """Raises TakenError where another job than `job` will write the output."""
        owner = self.ledger.owner_of_output(output) if output else None
        if owner not in (None, job):
            raise TakenError(f"job {owner} will write {output}; wait for it, cancel it, or name another output")

    def _enter(self, folder: JobFolder, request: AnyJobRequest, fields: dict[str, str | int]) -> Submission:
        """Enter the job into the ledger; remove its folder if another job has its key or output already."""
        try:
            verdict, job = self.ledger.create(
                folder.job,
                ledger_fields(request) | fields,
                output=output_of(request),
                key=request.idempotency_key or "",
                fingerprint=fingerprint(request),
            )
        except SERVER_ERRORS:  # the ledger may have the job or not: an outcome on the disk is right in both cases
            error = "the server went away while the job was submitted; submit it again"
            folder.write_outcome(make_outcome("failed", None, folder.run, error=error))
            raise
        if verdict == "created":
            folder.activate()
            note(folder, "submitted")
            if isinstance(request, ClassifyRequest) and request.base is not None and request.base.kind == "retry":
                note(JobFolder(self.settings, request.base.job), "retried", job=folder.job)
            return Submission(job)
        folder.discard()
        if verdict == "exists":
            return Submission(job, existed=True)
        if verdict == "conflict":
            raise TakenError(f"idempotency key {request.idempotency_key!r} stands for another request, job {job}")
        raise TakenError(f"job {job} will write {output_of(request)}; wait for it, or name another output")


def _has_never_begun(folder: JobFolder, request: AnyJobRequest, outcome: Outcome) -> bool:
    """Whether a job that has ended is a submission that failed: listed only in part, or never begun by a worker."""
    if outcome.state != "failed" or outcome.too_many_failures:
        return False
    return read_facts(folder.work) is None if isinstance(request, ClassifyRequest) else not folder.attempts.exists()
