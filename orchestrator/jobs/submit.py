"""Submitting jobs: check everything that can be checked, write the job down, then let the workers know.

All checks come first, so that a mistake is told at once and leaves nothing behind.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING

from modeling.names import path_to_text
from orchestrator.contract.errors import ExitCode, PigeonholeError, UnavailableError, UsageError
from orchestrator.contract.jobs.end import conclude, stopped_outcome
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
from orchestrator.contract.queues import CLASSIFY, FINALIZE, QUEUE_OF_KIND
from orchestrator.contract.server import SERVER_ERRORS, connect, require_answer
from orchestrator.contract.settings import Settings
from orchestrator.jobs.listing import Lister
from orchestrator.jobs.sources import open_source
from orchestrator.jobs.specs import (
    ClassifySpec,
    EvaluateSpec,
    TrainSpec,
    check_folder,
    check_output,
    check_precision,
    choose_data,
    choose_folder,
    choose_output,
    count_images,
    count_labelled,
    first_paths,
    pin_model,
    require_images,
    shard_size_of,
    train_request,
)

if TYPE_CHECKING:
    from celery import Celery


@dataclass(frozen=True)
class Submission:
    """A job that was submitted, now or before with the same idempotency key."""

    job: str
    existed: bool = False
    facts: ListingFacts | None = None


class ListingInterruptedError(PigeonholeError):
    """The operator stopped a submission; half a listing is no job."""

    exit_code = ExitCode.INTERRUPTED


class JobClient:
    """The counter where jobs are handed in: settings and an open line to the server."""

    def __init__(self, settings: Settings) -> None:
        """Raises UnavailableError where no server answers."""
        url = settings.require_server_url()
        self.settings = settings
        self.ledger = Ledger(connect(url))
        require_answer(self.ledger.client, url)

    @cached_property
    def _app(self) -> "Celery":
        """Celery, for commands that ring; those that only read never import it."""
        from orchestrator.contract.app import create_app

        return create_app(self.settings.require_server_url())

    def ring(self, queue: str, job: str) -> None:
        """Hang a doorbell."""
        from orchestrator.contract.app import ring

        ring(self._app, queue, job)

    def require_worker(self, queue: str) -> None:
        """Raises UnavailableError where no living worker listens to `queue`."""
        if not self.ledger.live_workers.num_listeners(queue):
            raise UnavailableError(
                f"no worker listens to the queue {queue!r}; start one with `pigeonhole worker`, "
                "or leave the job waiting for one with --detach"
            )

    def submit_classify(
        self, spec: ClassifySpec, *, on_listing: Callable[[str, int], None] = lambda job, num_images: None
    ) -> Submission:
        """Submit a classify job; returns when its listing is whole. Workers begin long before.

        Raises:
            PigeonholeError: (or modeling's ModelingError) what is wrong, before anything was written.
        """
        source = open_source(spec.source, spec.reading)
        pin, card = pin_model(self.settings, spec.model)
        check_precision(self.settings, spec)
        job = new_job_id("classify")
        output, output_format = choose_output(self.settings, spec, job)
        request = ClassifyRequest(
            job=job,
            created=datetime.now(UTC),
            source=path_to_text(source.text),
            root=path_to_text(source.root),
            follow_symlinks=spec.reading.follow_symlinks,
            model=pin,
            output=path_to_text(str(output)),
            output_format=output_format,  # type: ignore[arg-type]  # one of FORMATS, checked by _output
            overwrite=spec.overwrite,
            top_k=min(spec.top_k, len(card.labels)),
            shard_size=spec.shard_size or 1,  # measured when all else is known to be right
            precision=spec.precision,
            max_failures=spec.max_failures,
            idempotency_key=spec.idempotency_key,
        )
        if earlier := self._earlier(request, own_folder=spec.output is None):
            return Submission(earlier, existed=True)
        check_output(output, overwrite=spec.overwrite, in_job_folder=spec.output is None)
        self._check_output_is_free(request)
        if spec.need_worker:
            self.require_worker(CLASSIFY)
        require_images(source)
        shard_size = shard_size_of(self.settings, spec, source, first_paths(spec, source), pin)
        request = request.model_copy(update={"shard_size": shard_size})
        folder = JobFolder.create(self.settings, request)
        lister = Lister(folder, request, self.ledger, self.ring)
        try:
            entered = self._enter(folder, request, {"kind": "classify", "listed": 0})
            return entered if entered.existed else Submission(job, facts=lister.run(source, on_listing))
        except BaseException as err:
            lister.fail(err)
            if isinstance(err, KeyboardInterrupt):
                message = f"interrupted before all was listed: job {job} ends; submit it again"
                raise ListingInterruptedError(message) from err
            raise

    def submit_train(self, spec: TrainSpec) -> Submission:
        """Submit a training job.

        Raises:
            PigeonholeError: (or modeling's ModelingError) what is wrong, before anything was written.
        """
        train = train_request(self.settings, spec)
        request = TrainJobRequest(
            job=new_job_id("train"),
            created=datetime.now(UTC),
            source=path_to_text(str(spec.data)),
            name=spec.name,
            train=train.to_json(),
            idempotency_key=spec.idempotency_key,
        )
        if earlier := self._earlier(request):
            return Submission(earlier, existed=True)
        return self._submit_process_job(request, count_images(train.data), need_worker=spec.need_worker)

    def submit_evaluate(self, spec: EvaluateSpec) -> Submission:
        """Submit an evaluation.

        Raises:
            PigeonholeError: (or modeling's ModelingError) what is wrong, before anything was written.
        """
        pin, card = pin_model(self.settings, spec.model)
        data, output = choose_data(spec.data), choose_folder(spec.output)
        request = EvaluateJobRequest(
            job=new_job_id("evaluate"),
            created=datetime.now(UTC),
            source=path_to_text(str(spec.data)),
            model=pin,
            data=str(data),
            part=spec.part,
            output=path_to_text(str(output)) if output else None,
            idempotency_key=spec.idempotency_key,
        )
        if earlier := self._earlier(request):
            return Submission(earlier, existed=True)
        check_folder(output)
        self._check_output_is_free(request)
        return self._submit_process_job(request, count_labelled(data, spec.part, card), need_worker=spec.need_worker)

    def _submit_process_job(
        self, request: TrainJobRequest | EvaluateJobRequest, num_images: int, *, need_worker: bool
    ) -> Submission:
        """Submit a job that a child process of a worker does as a whole: one shard, listed from the first."""
        queue = QUEUE_OF_KIND[request.kind]
        if need_worker:
            self.require_worker(queue)
        folder = JobFolder.create(self.settings, request)
        fields: dict[str, str | int] = {"kind": request.kind, "listed": 1, "num_shards": 1, "num_images": num_images}
        entered = self._enter(folder, request, fields)
        if not entered.existed:
            self.ring(queue, request.job)
        return entered

    def cancel(self, job: str) -> str:
        """Cancel a job; returns the state it is in then."""
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
        outcome = self._end_unworked(folder, ledger)
        return outcome.state if outcome else state

    def _end_unworked(self, folder: JobFolder, ledger: RecoveringLedger) -> Outcome | None:
        """End a cancelled job here where no worker is alive to end it; None where one is, or a worker's lease holds."""
        if any(worker.alive for worker in self.ledger.live_workers.workers()):
            return None
        state, fence = ledger.take_finalize_lease(folder.job, "the operator", FINALIZE_LEASE_S)
        if state != "cancelling" or fence is None:
            return None
        return conclude(folder, stopped_outcome(folder, folder.request(), ledger.record(folder.job)), ledger)

    def _earlier(self, request: AnyJobRequest, *, own_folder: bool = False) -> str | None:
        """The job that the same idempotency key already stands for."""
        key = request.idempotency_key
        job = self.ledger.job_of_submission(key) if key else None
        if job is None:
            return None
        earlier = JobFolder.open(self.settings, job).request()
        if own_folder and isinstance(earlier, ClassifyRequest) and isinstance(request, ClassifyRequest):
            request = request.model_copy(update={"output": earlier.output})
        if fingerprint(earlier) != fingerprint(request):
            raise UsageError(f"idempotency key {key!r} stands for another request, job {job}; use a new key")
        return job

    def _check_output_is_free(self, request: AnyJobRequest) -> None:
        output = output_of(request)
        owner = self.ledger.owner_of_output(output) if output else None
        if owner is not None:
            raise UsageError(f"job {owner} will write {output}; wait for it, cancel it, or name another output")

    def _enter(self, folder: JobFolder, request: AnyJobRequest, fields: dict[str, str | int]) -> Submission:
        """Enter the job into the ledger; where another was faster with its key or its output, take ours back."""
        try:
            verdict, job = self.ledger.create(
                folder.job,
                fields,
                output=output_of(request),
                key=request.idempotency_key or "",
                fingerprint=fingerprint(request),
            )
        except SERVER_ERRORS:  # it may know the job or not: an end on the disk is right in both cases
            error = "the server went away while the job was submitted; submit it again"
            folder.write_outcome(Outcome(state="failed", ended=datetime.now(UTC), error=error))
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
