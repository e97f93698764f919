"""Submitting jobs: check everything that can be checked, write the job down, then let the workers know.

All checks come first, so that a mistake is told at once and leaves nothing behind.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from celery import Celery

from modeling.store import ModelStore, check_model_name
from modeling.train_request import TrainRequest
from orchestrator.contract.app import create_app
from orchestrator.contract.errors import UnavailableError, UsageError
from orchestrator.contract.job_folder import JobFolder, Outcome, new_job_id
from orchestrator.contract.ledger import Ledger
from orchestrator.contract.listing import ListingFacts
from orchestrator.contract.messages import ring
from orchestrator.contract.paths import path_to_text
from orchestrator.contract.queues import CLASSIFY, FINALIZE, TRAIN
from orchestrator.contract.requests import ClassifyRequest, MaxFailures, ModelPin, TrainJobRequest, fingerprint
from orchestrator.contract.restore import output_of, restore_job
from orchestrator.contract.rows import format_of
from orchestrator.contract.server import connect, require_answer
from orchestrator.contract.settings import Settings
from orchestrator.contract.summary import summary_path
from orchestrator.lister import Lister
from orchestrator.sources import Source, SourceOptions, open_source

AnyRequest = TypeVar("AnyRequest", ClassifyRequest, TrainJobRequest)


@dataclass(frozen=True)
class ClassifyWish:
    """What an operator asks for, as the command line takes it."""

    source: str
    model: str
    output: Path | None = None  # None: in the job's folder
    output_format: str | None = None  # None: by the output's name
    overwrite: bool = False
    top_k: int = 5
    shard_size: int = 512
    max_failures: MaxFailures | None = None
    idempotency_key: str | None = None
    need_worker: bool = True  # refuse to submit where nobody would do the work
    reading: SourceOptions = field(default_factory=SourceOptions)


@dataclass(frozen=True)
class TrainWish:
    """What an operator asks for, as the command line takes it."""

    data: Path
    name: str
    options: dict[str, object]  # of modeling's TrainRequest
    idempotency_key: str | None = None
    need_worker: bool = True


@dataclass(frozen=True)
class Submission:
    """A job that was submitted, now or before with the same idempotency key."""

    job: str
    existed: bool = False
    facts: ListingFacts | None = None


class Office:
    """The counter where jobs are handed in: settings and an open line to the server."""

    def __init__(self, settings: Settings) -> None:
        """Raises UnavailableError where no server answers."""
        url = settings.require_server_url()
        self.settings = settings
        self.ledger = Ledger(connect(url))
        require_answer(self.ledger.client, url)
        self._app: Celery = create_app(url)

    def ring(self, queue: str, job: str) -> None:
        """Hang a doorbell."""
        ring(self._app, queue, job)

    def require_worker(self, queue: str) -> None:
        """Raises UnavailableError where no living worker listens to `queue`."""
        if not self.ledger.num_listeners(queue):
            raise UnavailableError(
                f"no worker listens to the queue {queue!r}; start one with `pigeonhole worker`, "
                "or leave the job waiting for one with --detach"
            )

    def submit_classify(
        self, wish: ClassifyWish, *, on_listing: Callable[[str, int], None] = lambda job, num_images: None
    ) -> Submission:
        """Submit a classify job; returns when its listing is whole. Workers begin long before.

        Raises:
            PigeonholeError: (or modeling's ModelingError) what is wrong, before anything was written.
        """
        source = open_source(wish.source, wish.reading)
        version = ModelStore(self.settings.models).resolve(wish.model)
        card = ModelStore(self.settings.models).card(version.ref)
        pin = ModelPin(
            name=version.name,
            number=version.version,
            digest=version.digest,
            preprocessing_digest=card.preprocessing.digest,
        )
        job = new_job_id("classify")
        output, output_format = self._output(wish, job)
        request = ClassifyRequest(
            job=job,
            created=datetime.now(UTC),
            source=path_to_text(source.text),
            root=path_to_text(source.root),
            follow_symlinks=wish.reading.follow_symlinks,
            model=pin,
            output=path_to_text(str(output)),
            output_format=output_format,  # type: ignore[arg-type]  # one of FORMATS, checked by _output
            overwrite=wish.overwrite,
            top_k=min(wish.top_k, len(card.labels)),
            shard_size=wish.shard_size,
            max_failures=wish.max_failures,
            idempotency_key=wish.idempotency_key,
        )
        if earlier := self._earlier(request, own_folder=wish.output is None):
            return Submission(earlier, existed=True)
        _check_output(output, overwrite=wish.overwrite, in_job_folder=wish.output is None)
        self._check_output_is_free(request)
        if wish.need_worker:
            self.require_worker(CLASSIFY)
        if not source.peek():
            raise UsageError(f"{wish.source!r} holds no images{_describe_skipped(source)}")
        folder = JobFolder.create(self.settings, request)
        entered = self._enter(folder, request, {"kind": "classify", "listed": 0})
        if entered.existed:
            return entered
        return Submission(job, facts=Lister(folder, request, self.ledger, self.ring).run(source, on_listing))

    def submit_train(self, wish: TrainWish) -> Submission:
        """Submit a training job.

        Raises:
            PigeonholeError: (or modeling's ModelingError) what is wrong, before anything was written.
        """
        check_model_name(wish.name)
        data = Path(os.path.abspath(wish.data))  # noqa: PTH100 links are kept: the operator's own name
        _check_is_text(data)
        job = new_job_id("train")
        train = TrainRequest.from_json(wish.options | {"data": str(data), "output": "model"})
        request = TrainJobRequest(
            job=job,
            created=datetime.now(UTC),
            source=path_to_text(str(wish.data)),
            name=wish.name,
            train=train.to_json(),
            idempotency_key=wish.idempotency_key,
        )
        if earlier := self._earlier(request):
            return Submission(earlier, existed=True)
        from modeling.datasets import open_dataset  # numpy: only where training data is looked at

        num_images = open_dataset(data).num_images
        if wish.need_worker:
            self.require_worker(TRAIN)
        folder = JobFolder.create(self.settings, request)
        fields: dict[str, str | int] = {"kind": "train", "listed": 1, "num_shards": 1, "num_images": num_images}
        entered = self._enter(folder, request, fields)
        if not entered.existed:
            self.ring(TRAIN, job)
        return entered

    def cancel(self, job: str) -> str:
        """Ask for a job's end; returns the state it is in then."""
        folder = JobFolder.open(self.settings, job)
        outcome = folder.outcome()
        if outcome is not None:
            return outcome.state
        folder.request_cancel()  # first, so that a server that forgets is told again
        state = self.ledger.cancel(job)
        if state == "unknown":
            restore_job(folder, self.ledger)
            state = self.ledger.cancel(job)
        if state == "cancelling":
            self.ring(FINALIZE, job)
            self._end_unworked(folder)
        else:
            folder.withdraw_cancel()  # too late: the job must not end as cancelled after a server's loss of memory
        return state

    def _end_unworked(self, folder: JobFolder) -> None:
        """Where no worker lives to conclude a cancellation, conclude it here."""
        if any(worker.alive for worker in self.ledger.workers()):
            return
        state, fence = self.ledger.begin_end(folder.job, "the operator", lease_s=30)
        if state == "cancelling" and fence is not None:
            outcome = folder.write_outcome(Outcome(state="cancelled", ended=datetime.now(UTC)))
            self.ledger.finish(folder.job, outcome.state, output=output_of(folder.request()))
            folder.retire()

    def _output(self, wish: ClassifyWish, job: str) -> tuple[Path, str]:
        """Where the manifest goes, and in which format."""
        if wish.output is None:
            output_format = wish.output_format or "csv"
            return self.settings.jobs / job / f"manifest.{output_format}", output_format
        output = Path(os.path.abspath(wish.output))  # noqa: PTH100 links are kept: the operator's own name
        return output, wish.output_format or format_of(output)

    def _earlier(self, request: ClassifyRequest | TrainJobRequest, *, own_folder: bool = False) -> str | None:
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

    def _check_output_is_free(self, request: ClassifyRequest) -> None:
        owner = self.ledger.owner_of_output(request.output)
        if owner is not None:
            raise UsageError(f"job {owner} will write {request.output}; wait for it, cancel it, or name another output")

    def _enter(self, folder: JobFolder, request: AnyRequest, fields: dict[str, str | int]) -> Submission:
        """Enter the job into the ledger; where another was faster with its key or its output, take ours back."""
        verdict, job = self.ledger.create(
            folder.job,
            fields,
            output=output_of(request),
            key=request.idempotency_key or "",
            fingerprint=fingerprint(request),
        )
        if verdict == "created":
            folder.activate()
            return Submission(job)
        folder.discard()
        if verdict == "exists":
            return Submission(job, existed=True)
        if verdict == "conflict":
            raise UsageError(f"idempotency key {request.idempotency_key!r} stands for another request, job {job}")
        raise UsageError(f"job {job} will write {output_of(request)}; wait for it, or name another output")


def _check_output(output: Path, *, overwrite: bool, in_job_folder: bool) -> None:
    """Raises UsageError where the manifest could not be written there in the end."""
    if in_job_folder:
        return
    folder = output.parent
    if not folder.is_dir():
        raise UsageError(f"there is no folder {str(folder)!r} for the output; make it first")
    if output.is_dir():
        raise UsageError(f"output {str(output)!r} is a folder; name a file in it")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write to the folder {str(folder)!r} of the output")
    for path in (output, summary_path(output)):
        if path.exists() and not overwrite:
            raise UsageError(f"{str(path)!r} exists; name another output, or replace it with --overwrite")


def _check_is_text(path: Path) -> None:
    """Raises UsageError for a name that is not UTF-8: a training request is JSON."""
    if path_to_text(str(path)) != str(path):
        raise UsageError(f"the name of {path_to_text(str(path))!r} is not UTF-8; rename the folder, or link to it")


def _describe_skipped(source: Source) -> str:
    """What was seen instead of images."""
    if not source.skipped:
        return ""
    counts = ", ".join(f"{count} {reason}" for reason, count in sorted(source.skipped.items()))
    return f"; left out: {counts}"
