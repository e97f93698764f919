"""The folder of one job: its request, its listing, its parts, and how it ended.

jobs/<job>/
    job.json          the request, immutable
    listing           paths of the images            (classify)
    listing.index     offset, length, count a shard  (classify)
    listing.json      facts, once the listing is complete
    base/             the manifest whose rows are merged with those of the job, its summary and its sidecar
    merge.plan        which rows of the new manifest are the base's        (merge)
    merge.json        facts, once the plan is complete
    parts/            one file a finished shard      (classify)
    journals/         progress inside shards that have killed a worker
    training/         history, curves; checkpoints and the weights it starts from, until the job has ended (train)
    attempts/         who worked on it, and how each attempt ended (train, evaluate; attempts.py)
    events.jsonl      events of the training process (train, evaluate)
    training.log      the output of libraries in it  (train; evaluation.log)
    model/            the trained model, before it is published (train)
    evaluation/       figures, predictions, report; copied to the requested output (evaluate)
    source.json       how the source was seen while it was listed (classify)
    version.json      the version of Pigeonhole that does it: which began a training, or as an operator has changed it
    cancel            empty; exists if the operator cancelled the job
    paused.operator.json   why the operator paused the job; exists while he does (paused.storage.json: no worker sees
                      its source)
    summary.json      facts of the published manifest
    outcome.json      how the job ended; exists exactly if it has ended
    receipt.json      whether its webhook was delivered, or given up
    history.jsonl     who did what, and when         (history.py)

A job that is resumed begins another run, with the number 1, then 2: `resume.1.json` says who resumed it. Its `cancel`,
outcome and receipt are then `cancel.1`, `outcome.1.json` and `receipt.1.json`; if its images were listed again,
listing, parts, journals and `source.json` are in `run.1.<random>/`. What a worker or a command that was slow still
writes for an earlier run changes nothing.
"""

import contextlib
import hashlib
import secrets
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self

from pydantic import Field

from modeling.durable import link_once, replace_durably, sync, sync_file, temporary_beside, write_durable
from orchestrator.contract.errors import IntegrityError, NotFoundError
from orchestrator.contract.home import make_home
from orchestrator.contract.jobs.base import BaseFiles
from orchestrator.contract.jobs.requests import (
    AnyJobRequest,
    ClassifyRequest,
    Kind,
    MaxFailures,
    TrainJobRequest,
    parse_request,
)
from orchestrator.contract.ledger.words import PausedBy
from orchestrator.contract.messages import JOB_ID, Versioned
from orchestrator.contract.settings import Settings

FinalState = Literal["succeeded", "partial", "failed", "cancelled"]


class Outcome(Versioned):
    """How a run of a job ended."""

    state: FinalState
    ended: datetime
    run: int = 0
    num_images: int = 0
    num_done: int = 0
    num_failed: int = 0
    too_many_failures: bool = False
    result: str | None = None  # path of the manifest or of the evaluation's folder, or the model's reference
    error: str | None = None
    incomplete: str | None = None  # path of the rows of a job that ended because too many images failed


class Receipt(Versioned):
    """What became of the webhook of a job that has ended."""

    state: Literal["delivered", "given_up"]
    at: datetime
    attempts: int
    error: str | None = None  # of the last attempt


class Resume(Versioned):
    """What began a run after the first one, which began with the submission.

    work: the folder of a new listing and of its parts, inside the job's; None: the listing is valid.
    max_failures: the limit from now on; None: as before.
    """

    run: int
    at: datetime
    by: str
    work: str | None = Field(default=None, pattern=r"run\.[0-9a-f.]+")
    max_failures: MaxFailures | None = None


class Pause(Versioned):
    """Why a job is paused, by one of the two sides that pause jobs."""

    by: PausedBy
    reason: str
    since: datetime


def new_job_id(kind: Kind) -> str:
    """An id that sorts by time and begins with the kind: `c261123-143355-7f3a2b`."""
    return f"{kind[0]}{datetime.now(UTC):%y%m%d-%H%M%S}-{secrets.token_hex(3)}"


class JobFolder:
    """The paths and records in the folder of one job, of the run that is the last one when the object is made.

    work: the folder of the listing of this run, and of its parts and journals. So what a worker or a lister that was
    slow still writes never gets among those of a later run.
    """

    def __init__(self, settings: Settings, job: str) -> None:
        if not JOB_ID.fullmatch(job):
            raise NotFoundError(f"{job!r} is not a job id; `pigeonhole jobs` lists them")
        self.job = job
        self.path = settings.jobs / job
        self.request_file = self.path / "job.json"
        self.history = self.path / "history.jsonl"
        self.events = self.path / "events.jsonl"
        self.model = self.path / "model"
        self.training = self.path / "training"
        self.weights = self.training / "weights"
        self.attempts = self.path / "attempts"
        self.evaluation = self.path / "evaluation"
        self.summary = self.path / "summary.json"
        self.version_file = self.path / "version.json"  # job_version.py
        self._active = settings.active / job
        self._undelivered = settings.webhooks / job
        self.run = self._last_run()
        self.work = self._work()
        self.parts = self.work / "parts"
        self.journals = self.work / "journals"

    @classmethod
    def create(
        cls, settings: Settings, request: AnyJobRequest, weights: Path | None = None, base: BaseFiles | None = None
    ) -> Self:
        """Make the folder and write the request; the job exists once it is in the ledger. An error leaves nothing.

        weights: the file that a training starts from; it is copied, so that workers on other machines find it, and
        later attempts. Raises IntegrityError where it is not the one that the request names.
        base: what a merge starts from; it is kept in the folder.
        """
        folder = cls(settings, request.job)
        make_home(settings)
        settings.jobs.mkdir(exist_ok=True)
        try:
            folder.path.mkdir()
            folder.parts.mkdir()
            if weights is not None:
                folder._take(weights, request)
            if base is not None:
                base.keep_in(folder.path)
            replace_durably(folder.request_file, request.model_dump_json(indent=2).encode(), mode=None)
            sync(settings.jobs)
        except BaseException:  # also an interrupt while large weights are copied
            folder.discard()
            raise
        return folder

    @classmethod
    def open(cls, settings: Settings, job: str) -> Self:
        """The folder of a job that exists. Raises NotFoundError if it does not."""
        folder = cls(settings, job)
        if not folder.request_file.exists():
            raise NotFoundError(f"there is no job {job} in {settings.jobs}; `pigeonhole jobs` lists them")
        return folder

    def _take(self, weights: Path, request: AnyJobRequest) -> None:
        assert isinstance(request, TrainJobRequest)
        self.weights.parent.mkdir()
        digest = hashlib.sha256()
        with weights.open("rb") as file, self.weights.open("wb") as copy:
            while block := file.read(1 << 20):
                digest.update(block)
                copy.write(block)
            sync_file(copy)
        sync(self.weights.parent)
        if digest.hexdigest() != request.train["weights_pin"]["sha256"]:
            raise IntegrityError(f"{weights} was changed since it was imported or first read; import it again")

    def request(self) -> AnyJobRequest:
        return parse_request(self.request_file.read_bytes(), path=self.request_file)

    def _last_run(self) -> int:
        run = 0
        while self._resume_file(run + 1).exists():
            run += 1
        return run

    def is_last_run(self) -> bool:
        """Whether the job was not resumed since the object was made."""
        return not self._resume_file(self.run + 1).exists()

    def begin_run(self, resume: Resume) -> bool:
        """Begin another run; False where somebody else began it."""
        path = self._resume_file(resume.run)
        with temporary_beside(path) as temporary:
            write_durable(temporary, resume.model_dump_json(indent=2).encode())
            return link_once(temporary, path)

    def resumes(self) -> list[Resume]:
        """Every resume of the job up to this run, in their order."""
        found = (Resume.read(self._resume_file(run)) for run in range(1, self.run + 1))
        return [resume for resume in found if resume is not None]

    def max_failures(self, request: ClassifyRequest) -> MaxFailures | None:
        """How many images may fail: as the last resume that names a limit has it, else the request."""
        named = [resume.max_failures for resume in self.resumes() if resume.max_failures is not None]
        return named[-1] if named else request.max_failures

    def failure_limit(self, request: ClassifyRequest, num_images: int | None) -> int | None:
        """The number of failed images still accepted; None where there is no limit, or not yet one."""
        limit = self.max_failures(request)
        return limit.limit(num_images) if limit else None

    def _work(self) -> Path:
        """The folder of the listing that is valid now, and of its parts."""
        listed_in = [resume.work for resume in self.resumes() if resume.work is not None]
        return self.path / listed_in[-1] if listed_in else self.path

    def _resume_file(self, run: int) -> Path:
        return self._of_run("resume.json", run)

    def _of_run(self, name: str, run: int) -> Path:
        """The file of this name of a run."""
        stem, dot, suffix = name.partition(".")
        return self.path / (f"{stem}.{run}{dot}{suffix}" if run else name)

    def outcome(self) -> Outcome | None:
        """How the job ended; None while it has not."""
        return self.outcome_of(self.run)

    def outcome_of(self, run: int) -> Outcome | None:
        """How a run ended; None while it has not."""
        return Outcome.read(self._of_run("outcome.json", run))

    def activate(self) -> None:
        """Add the job to the active jobs on the disk: from now on it survives a server that forgets it."""
        self._active.parent.mkdir(parents=True, exist_ok=True)
        self._active.touch()
        sync(self._active.parent)

    def request_cancel(self) -> None:
        """Record that the operator cancelled the job; a sweep cancels it again if the server forgets."""
        self._of_run("cancel", self.run).touch()

    def withdraw_cancel(self) -> None:
        """Remove the record of the operator's cancel: it came too late."""
        self._of_run("cancel", self.run).unlink(missing_ok=True)

    def cancel_requested(self) -> bool:
        return self._of_run("cancel", self.run).exists()

    def pause(self, by: PausedBy) -> Pause | None:
        """Why one of the two sides has paused the job; None while it has not."""
        return Pause.read(self._pause(by))

    def write_pause(self, by: PausedBy, reason: str) -> None:
        """Record that the job is paused, for a server that forgets it."""
        pause = Pause(by=by, reason=reason, since=datetime.now(UTC))
        replace_durably(self._pause(by), pause.model_dump_json(indent=2).encode(), mode=None)

    def withdraw_pause(self, by: PausedBy) -> bool:
        """Remove the record of a pause; whether there was one."""
        there = self._pause(by).exists()
        self._pause(by).unlink(missing_ok=True)
        return there

    def _pause(self, by: PausedBy) -> Path:
        return self.path / f"paused.{by}.json"

    def write_outcome(self, outcome: Outcome) -> Outcome:
        """Write how the run of the outcome ended; the first outcome stays, and is returned."""
        path = self._of_run("outcome.json", outcome.run)
        with temporary_beside(path) as temporary:
            write_durable(temporary, outcome.model_dump_json(indent=2).encode())
            link_once(temporary, path)
        return self.outcome_of(outcome.run) or outcome

    def is_active(self) -> bool:
        return self._active.exists()

    def retire(self) -> None:
        """Remove the job from the active ones: its end is on the disk and in the ledger."""
        self._active.unlink(missing_ok=True)

    def note_undelivered(self) -> None:
        """Record that the job's webhook is to be delivered, for a server that forgets it; not if it has a receipt."""
        if not self._of_run("receipt.json", self.run).exists():
            self._undelivered.parent.mkdir(parents=True, exist_ok=True)
            self._undelivered.touch()
            sync(self._undelivered.parent)

    def is_undelivered(self) -> bool:
        return self._undelivered.exists()

    def receipt(self) -> Receipt | None:
        """What became of the job's webhook; None as long as it is to be delivered, or where the job has none."""
        return Receipt.read(self._of_run("receipt.json", self.run))

    def end_delivery(self, receipt: Receipt | None = None) -> None:
        """Record what became of the job's webhook; None: nothing is to be delivered. That of a later run stays."""
        if receipt is not None:
            path = self._of_run("receipt.json", self.run)
            replace_durably(path, receipt.model_dump_json(indent=2).encode(), mode=None)
        if self.is_last_run():
            self._undelivered.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove what there is of a job whose submission failed, as far as the disk allows."""
        with contextlib.suppress(OSError):
            self.retire()
        shutil.rmtree(self.path, ignore_errors=True)


def active_jobs(settings: Settings) -> list[str]:
    """Ids of the jobs that are active on the disk, oldest first."""
    return _job_ids(settings.active)


def undelivered_jobs(settings: Settings) -> list[str]:
    """Ids of the jobs whose webhook is to be delivered, oldest first."""
    return _job_ids(settings.webhooks)


def all_jobs(settings: Settings) -> list[str]:
    """Ids of all jobs, newest first."""
    return _job_ids(settings.jobs)[::-1]


def _job_ids(folder: Path) -> list[str]:
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted((name for name in names if JOB_ID.fullmatch(name)), key=lambda name: name[1:])
