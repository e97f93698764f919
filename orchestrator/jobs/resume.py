"""Resuming jobs: one that was cancelled or failed goes on in another run, one that its server forgot is entered again.

Finished parts, the listing and checkpoints stay in the job folder, so only what is missing is done. The order of steps
makes every crash harmless; `docs/job_lifecycle.md` explains it: check, list again if that is needed, begin the run on
the disk, add the job to the active ones, enter it into the ledger, ring.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from orchestrator.contract.errors import PigeonholeError, UnavailableError
from orchestrator.contract.jobs.history import note, operator
from orchestrator.contract.jobs.job_folder import JobFolder, Resume, active_jobs
from orchestrator.contract.jobs.job_version import begun_with
from orchestrator.contract.jobs.listing import listing_is_whole
from orchestrator.contract.jobs.requests import (
    AnyJobRequest,
    ClassifyRequest,
    MaxFailures,
)
from orchestrator.contract.jobs.restore import Restored, enter_restored, output_of, read_folder
from orchestrator.contract.ledger.record import JobRecord
from orchestrator.contract.ledger.words import PAUSED_BY
from orchestrator.contract.queues import FINALIZE, QUEUE_OF_KIND
from orchestrator.contract.server import SERVER_ERRORS
from orchestrator.contract.settings import Settings
from orchestrator.jobs.lister import OnListing
from orchestrator.jobs.relisting import listed_again
from orchestrator.jobs.submit import JobClient
from orchestrator.jobs.versions import can_change, change_version, check_version

MOMENT_S = 15.0  # a resume enters its job into the ledger within this time, or its command has died


@dataclass(frozen=True)
class ResumeOptions:
    """How a job is resumed.

    max_failures: the limit from now on; None: as before. need_worker: refuse where no worker listens.
    just_started: the server was started for this, so that its workers may have found the job already.
    new_version: let the job go on with the version of the workers, although another began it.
    """

    max_failures: MaxFailures | None = None
    need_worker: bool = True
    just_started: bool = False
    new_version: bool = False


@dataclass(frozen=True)
class Resumed:
    """What is done of a resumed job, and what is missing.

    entered: the job had not ended; the server had forgotten it. relisted: its images were listed again.
    goes_on: where a training or an evaluation goes on. ends_again: why the job ends without doing anything.
    """

    job: str
    kind: str
    run: int
    entered: bool
    relisted: bool
    num_images: int
    num_done: int
    num_failed: int
    num_shards: int
    shards_done: int
    goes_on: str | None
    ends_again: str | None

    @property
    def num_missing(self) -> int:
        """The images without a row."""
        return self.num_images - self.num_done


def resume(client: JobClient, folder: JobFolder, options: ResumeOptions, on_listing: OnListing) -> Resumed:
    """Let a job that `check_resumable` has checked go on, and do only what is missing; returns what that is.

    Raises PigeonholeError where it still runs or somebody else resumed it, TakenError where another job will write its
    output, UnavailableError where no worker listens.
    """
    request, ended = folder.request(), folder.outcome() is not None
    record = None if ended else client.ledger.record(folder.job)
    if record is not None and record.run == folder.run and not record.ended:
        return _already_running(client, folder, record, options)
    if not ended:
        _check_forgotten(client.settings, folder, request)
    client.check_output_is_free(output_of(request), folder.job)
    if options.need_worker:
        client.require_worker(QUEUE_OF_KIND[request.kind])
    _settle_version(client, folder, begun_with(folder), options)
    is_whole = not isinstance(request, ClassifyRequest) or listing_is_whole(folder.work)
    again = ended or folder.cancel_requested() or options.max_failures is not None or not is_whole
    if ended:
        _end_pauses(folder)
    if again:
        folder = _begin_run(client, folder, request, options, None if is_whole else on_listing)
    folder.parts.mkdir(exist_ok=True)  # it may be what was lost
    folder.activate()
    restored = read_folder(folder)
    with _saying_that_it_goes_on(folder):
        enter_restored(folder, restored, client.ledger, replace=not again and record is not None)
        resumed = _describe(folder, request, restored, entered=not again, relisted=not is_whole)
        note(folder, "resumed" if again else "entered again", run=folder.run, **_counts(resumed))
        _wake(client, folder, request, resumed)
    return resumed


@contextlib.contextmanager
def _saying_that_it_goes_on(folder: JobFolder) -> Iterator[None]:
    """Of an active job: a server that is away now finds it later, with or without this command."""
    try:
        yield
    except SERVER_ERRORS as err:
        raise UnavailableError(
            f"the server does not answer ({err}); job {folder.job} is resumed and goes on when it does: "
            f"`pigeonhole watch {folder.job}` follows it"
        ) from err


def _settle_version(client: JobClient, folder: JobFolder, version: str, options: ResumeOptions) -> None:
    """Change the version that does the job, if that is wanted; else see that a worker of it is alive."""
    if version and options.new_version:
        change_version(folder, client.ledger, version)
    elif version and options.need_worker:
        check_version(folder, client.ledger, version)


def _end_pauses(folder: JobFolder) -> None:
    """Remove pauses of the run that has ended; the process that ended it may have died before that."""
    for by in PAUSED_BY:
        folder.withdraw_pause(by)


def _already_running(client: JobClient, folder: JobFolder, record: JobRecord, options: ResumeOptions) -> Resumed:
    """What is left of a job that workers have found already, or that goes on with another version.

    Raises PigeonholeError where it was never away.
    """
    wanted = options.new_version and can_change(record)
    changes = wanted and change_version(folder, client.ledger, record.version) is not None
    if changes:
        _ring(client, folder, record.kind, record.num_shards - record.shards_done)
    if not (options.just_started or changes):
        unpause = f" (`pigeonhole jobs unpause {folder.job}` lets it go on)" if "operator" in record.paused_by else ""
        follow = f"`pigeonhole watch {folder.job}` follows it"
        raise PigeonholeError(f"job {folder.job} has not ended: it is {record.state}{unpause}; {follow}")
    return _describe(folder, folder.request(), read_folder(folder), entered=True, relisted=False)


def _check_forgotten(settings: Settings, folder: JobFolder, request: AnyJobRequest) -> None:
    """Raises PigeonholeError where a job that the server does not know is being resumed, or never began."""
    resumes = folder.resumes()
    if resumes:
        age_s = (datetime.now(UTC) - resumes[-1].at).total_seconds()
        if 0 <= age_s < MOMENT_S and folder.job not in active_jobs(settings):
            raise _resumed_by(folder, resumes[-1])
    is_begun = folder.job in active_jobs(settings) or resumes or not isinstance(request, ClassifyRequest)
    if not is_begun and not listing_is_whole(folder.work) and not any(folder.parts.glob("*.part")):
        raise PigeonholeError(f"job {folder.job} never began: its submission was interrupted; submit it again")


def _resumed_by(folder: JobFolder, resume: Resume | None) -> PigeonholeError:
    by = f" by {resume.by} at {resume.at:%H:%M:%S} UTC" if resume else ""
    return PigeonholeError(f"job {folder.job} was resumed{by}; `pigeonhole watch {folder.job}` follows it")


def _begin_run(
    client: JobClient, folder: JobFolder, request: AnyJobRequest, options: ResumeOptions, relist: OnListing | None
) -> JobFolder:
    """Begin another run on the disk, with a new listing where one is needed; of two who try, one does."""
    run = folder.run + 1
    with _new_listing(folder, request, run, relist) as work:
        limit = options.max_failures
        resume = Resume(run=run, at=datetime.now(UTC), by=operator(), work=work, max_failures=limit)
        if not folder.begin_run(resume):
            last = JobFolder.open(client.settings, folder.job).resumes()
            raise _resumed_by(folder, last[-1] if last else None)
    return JobFolder.open(client.settings, folder.job)


@contextlib.contextmanager
def _new_listing(folder: JobFolder, request: AnyJobRequest, run: int, relist: OnListing | None) -> Iterator[str | None]:
    if relist is None or not isinstance(request, ClassifyRequest):
        yield None
        return
    with listed_again(folder, request, run, relist) as work:
        yield work


def _describe(
    folder: JobFolder, request: AnyJobRequest, restored: Restored, *, entered: bool, relisted: bool
) -> Resumed:
    too_many = restored["too_many_failures"]
    limit = restored["failure_limit"]
    ends = f"{restored['num_failed']} images have failed already, more than the {limit} allowed by --max-failures"
    return Resumed(
        job=folder.job,
        kind=request.kind,
        run=folder.run,
        entered=entered,
        relisted=relisted,
        num_images=restored["num_images"],
        num_done=restored["num_done"],
        num_failed=restored["num_failed"],
        num_shards=restored["num_shards"],
        shards_done=restored["shards_done"],
        goes_on=_where(folder, request),
        ends_again=ends if too_many else None,
    )


def _where(folder: JobFolder, request: AnyJobRequest) -> str | None:
    """Where a training or an evaluation goes on."""
    if isinstance(request, ClassifyRequest):
        return None
    if folder.model.exists() or folder.evaluation.exists():
        return "its result is there: it is published"
    if any((folder.path / "training").glob("*.checkpoint")):
        return "it goes on from its last checkpoint"
    return "it has no checkpoint: it begins again"


def _counts(resumed: Resumed) -> dict[str, Any]:
    if resumed.kind != "classify":
        return {"goes_on": resumed.goes_on}
    return {"num_done": resumed.num_done, "num_missing": resumed.num_missing, "relisted": resumed.relisted or None}


def _wake(client: JobClient, folder: JobFolder, request: AnyJobRequest, resumed: Resumed) -> None:
    """Ring for a resumed job, or end it where another job took its output in this moment."""
    output, job = output_of(request), folder.job
    owner = client.ledger.owner_of_output(output) if output else job
    if owner != job:
        client.ledger.cancel(job, run=folder.run, reason=f"job {owner} will write {output}; resume it after that")
    record = client.ledger.record(job)
    if record is not None and record.state in ("finalizing", "cancelling"):
        client.ring(FINALIZE, job)
        return
    _ring(client, folder, request.kind, resumed.num_shards - resumed.shards_done)


def _ring(client: JobClient, folder: JobFolder, kind: str, num_missing: int) -> None:
    """Ring for so many shards, as far as there are workers."""
    queue = QUEUE_OF_KIND[kind]
    for _ in range(max(1, min(client.ledger.live_workers.num_listeners(queue), num_missing))):
        client.ring(queue, folder.job)
