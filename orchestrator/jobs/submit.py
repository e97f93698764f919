"""Submitting prepared jobs: make the checks that need the server, write the job to the disk, then notify the workers.

All checks come first, so that an invalid job fails immediately and leaves nothing behind. The images of a classify job
are listed while workers already classify those that are listed.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.contract.access import explain_refused_write
from orchestrator.contract.errors import ExitCode, PigeonholeError, TakenError, UnavailableError
from orchestrator.contract.home import check_server, join_server
from orchestrator.contract.jobs.end import conclude, make_outcome, stopped_outcome, too_many_failures
from orchestrator.contract.jobs.history import note
from orchestrator.contract.jobs.job_folder import JobFolder, Outcome, new_job_id
from orchestrator.contract.jobs.listing import ListingFacts, ListingWriter, SourceFacts
from orchestrator.contract.jobs.recovering_ledger import RecoveringLedger
from orchestrator.contract.jobs.requests import (
    AnyJobRequest,
    ClassifyRequest,
    EvaluateJobRequest,
    TrainJobRequest,
    fingerprint,
)
from orchestrator.contract.jobs.restore import output_of
from orchestrator.contract.ledger.ledger import FINAL_STATES, FINALIZE_LEASE_S, LISTER_LEASE_S, Ledger
from orchestrator.contract.ledger.periodic_call import PeriodicCall
from orchestrator.contract.queues import CLASSIFY, FINALIZE, QUEUE_OF_KIND
from orchestrator.contract.server import SERVER_ERRORS, connect, require_answer
from orchestrator.contract.settings import Settings
from orchestrator.jobs.prepare import Prepared, PreparedClassify, PreparedTrain
from orchestrator.jobs.sources import Source

if TYPE_CHECKING:
    from celery import Celery

logger = logging.getLogger(__name__)

EXTEND_EVERY_S = 0.3  # how often new shards are entered into the ledger
RENEW_S = LISTER_LEASE_S / 5

OnListing = Callable[[str, int], None]
"""Receives the job and the number of images listed so far, at intervals."""

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
            return self._submit_and_list(prepared.request(job), prepared.source, on_listing, on_entered)
        weights = prepared.resolved.weights if isinstance(prepared, PreparedTrain) else None
        return self._submit_whole(prepared.request(job), prepared.num_images, weights.path if weights else None)

    def _submit_and_list(
        self, request: ClassifyRequest, source: Source, on_listing: OnListing, on_entered: OnEntered | None
    ) -> Submission:
        """Submit a classify job, then list its images."""
        folder = self._make_folder(request)
        lister = Lister(folder, request, self.ledger, self.ring)
        told = False
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
        except BaseException as err:
            lister.fail(err)
            if isinstance(err, KeyboardInterrupt):
                message = f"interrupted before all images were listed: job {folder.job} ends; submit it again"
                raise ListingInterruptedError(message) from err
            raise

    def _submit_whole(
        self, request: TrainJobRequest | EvaluateJobRequest, num_images: int, weights: Path | None
    ) -> Submission:
        """Submit a job that a worker's child process does as a whole: one shard, listed from the start."""
        folder = self._make_folder(request, weights)
        fields: dict[str, str | int] = {"listed": 1, "num_shards": 1, "num_images": num_images}
        try:
            entered = self._enter(folder, request, fields)
        except OSError as err:
            raise self._refuse(folder, request, err) from err
        if not entered.existed:
            self.ring(QUEUE_OF_KIND[request.kind], folder.job)
        return entered

    def _make_folder(self, request: AnyJobRequest, weights: Path | None = None) -> JobFolder:
        """The folder of a new job, in a home that the server works for; with a copy of the weights it starts from."""
        try:
            join_server(self.settings, self.ledger.client)
            return JobFolder.create(self.settings, request, weights)
        except OSError as err:
            raise PigeonholeError(f"nothing was submitted: {explain_refused_write(err, self.settings.home)}") from err

    def _refuse(
        self, folder: JobFolder, request: AnyJobRequest, err: OSError, lister: "Lister | None" = None
    ) -> PigeonholeError:
        """The error of a submission that the disk or the source ended; nothing of the job is left.

        Where a worker has begun already, the job ends with that error instead.
        """
        reason = explain_refused_write(err, folder.path)
        try:
            if self.ledger.withdraw(folder.job, output=output_of(request), key=request.idempotency_key or ""):
                folder.discard()
                return PigeonholeError(f"nothing was submitted: {reason}")
        except SERVER_ERRORS as away:
            logger.warning("cannot withdraw job %s from the server, a worker will end it: %s", folder.job, away)
        if lister is not None:
            lister.fail(PigeonholeError(reason))
        return PigeonholeError(f"job {folder.job} ends: {reason}")

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
        """The job that the idempotency key already stands for."""
        job = self.ledger.job_of_submission(key)
        if job is not None and not prepared.repeats(JobFolder.open(self.settings, job).request()):
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
                {"kind": request.kind, "priority": request.priority} | fields,
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
            return Submission(job)
        folder.discard()
        if verdict == "exists":
            return Submission(job, existed=True)
        if verdict == "conflict":
            raise TakenError(f"idempotency key {request.idempotency_key!r} stands for another request, job {job}")
        raise TakenError(f"job {job} will write {output_of(request)}; wait for it, or name another output")


class Lister:
    """Writes the listing of one job, and enters into the ledger how far it is.

    If the server is away, listing continues on the disk; later calls, or a worker's sweep, enter it into the ledger.
    """

    def __init__(
        self, folder: JobFolder, request: ClassifyRequest, ledger: Ledger, ring: Callable[[str, str], None]
    ) -> None:
        self._folder = folder
        self._request = request
        self._ledger = ledger
        self._ring = ring
        self._source_facts: SourceFacts | None = None  # as they are in the job folder
        self._durable = (0, 0)  # shards and images that may be entered: they are synced to the disk

    def run(self, source: Source, on_listing: OnListing) -> ListingFacts | None:
        """List every path of `source`; `on_listing` is called with the job and the number of images at intervals.

        Returns None if the job has ended meanwhile: cancelled, or with too many failed images.
        """
        self._note_source(source)
        with PeriodicCall(self._renew_lease, RENEW_S, "lister"):
            return self._write(source, on_listing)

    def _write(self, source: Source, on_listing: OnListing) -> ListingFacts | None:
        last = 0.0
        with ListingWriter(self._folder.work, self._request.shard_size) as writer:
            for path in source.paths:
                if writer.add(path) and time.monotonic() - last > EXTEND_EVERY_S:
                    writer.publish()
                    self._durable = (writer.num_shards, writer.num_images)
                    if not self._extend(listed=False):
                        return None
                    on_listing(self._request.job, writer.num_images)
                    last = time.monotonic()
            facts = writer.close(source.skipped)
        note(self._folder, "listed", num_images=facts.num_images, num_shards=facts.num_shards)
        self._note_source(source)  # again: reading a folder may mount what is below it
        self._durable = (facts.num_shards, facts.num_images)
        self._extend(listed=True)
        on_listing(self._request.job, facts.num_images)
        return facts

    def _note_source(self, source: Source) -> None:
        """Keep how the source looks now, for workers that will look at it again."""
        facts = SourceFacts.of(self._request.root, walked=source.is_walked)
        if facts != self._source_facts:
            facts.write(self._folder.work)
        self._source_facts = facts

    def _extend(self, *, listed: bool) -> bool:
        """Enter how far the listing is; ring where workers may be waiting. False if the job has ended."""
        job, (num_shards, num_images) = self._request.job, self._durable
        limit = self._folder.failure_limit(self._request, num_images if listed else None)
        try:
            state = self._ledger.extend(
                job, num_shards, num_images, listed=listed, run=self._folder.run, failure_limit=limit
            )
            if state == "finalizing":
                self._ring(FINALIZE, job)
            elif state != "paused" and self._ledger.queue_length(CLASSIFY) == 0:
                for _ in range(max(1, min(self._ledger.live_workers.num_listeners(CLASSIFY), num_shards))):
                    self._ring(CLASSIFY, job)
        except SERVER_ERRORS as err:
            logger.warning("the server is away, listing continues: %s", err)
            return True
        return state not in FINAL_STATES and state != "cancelling"

    def _renew_lease(self) -> None:
        """Renew the lister's lease, also while the source takes long for its next path."""
        self._ledger.extend(self._request.job, *self._durable, listed=False, run=self._folder.run)

    def fail(self, err: BaseException) -> None:
        """End the job, if the ledger has it: its listing will never be complete."""
        cause = "it was interrupted" if isinstance(err, KeyboardInterrupt) else str(err) or type(err).__name__
        reason = f"listing {self._request.source} ended early: {cause}"
        try:
            if self._ledger.cancel(self._request.job, run=self._folder.run, reason=reason) == "cancelling":
                self._ring(FINALIZE, self._request.job)
        except SERVER_ERRORS as away:
            logger.warning("cannot cancel the job on the server, a worker will do it: %s", away)
