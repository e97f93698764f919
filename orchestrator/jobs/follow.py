"""Following a job: its record from the ledger, or from the disk once it has ended, and a line that describes it.

A training or evaluation process emits events: a `note` matters while it is the latest, a `warning` is shown at the end,
too.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.contract.errors import ExitCode, PigeonholeError
from orchestrator.contract.jobs.job_folder import JobFolder, Outcome, active_jobs
from orchestrator.contract.jobs.listing import count_shards, read_facts
from orchestrator.contract.jobs.requests import AnyJobRequest, ClassifyRequest, TrainJobRequest
from orchestrator.contract.ledger.ledger import Ledger
from orchestrator.contract.ledger.record import JobRecord
from orchestrator.contract.ledger.stages import STAGES
from orchestrator.contract.queues import CLASSIFY, QUEUE_OF_KIND
from orchestrator.contract.settings import Settings
from orchestrator.jobs.delivery import delivery_facts
from orchestrator.jobs.versions import describe_missing_version

Event = Mapping[str, Any]

# Events that count images: the words before "123/1000 images".
_STEPS = {"scan": "scanning", "decode": "reading", "features": "computing features of", "evaluate": "evaluating"}


_SHARES = {"epoch": ("epoch", "epochs"), "download": ("bytes_done", "num_bytes")}


def describe_event(progress: str) -> str:
    """The last event of a job, as the ledger keeps it, on one line; empty where there is nothing to show."""
    event = parse_event(progress)
    describe_kind = _DESCRIPTIONS.get(str(event.get("event")))
    try:
        words = " ".join(describe_kind(event).split()) if describe_kind else ""
        return f"{words}, attempt {event['attempt']}" if words and event.get("attempt", 1) > 1 else words
    except (KeyError, TypeError, ValueError):
        return ""  # an event of another release


def share_done(progress: str) -> tuple[float, float] | None:
    """How much is done, and of how much, by the last event; None where that is unknown."""
    event = parse_event(progress)
    names = _SHARES.get(str(event.get("event")), ("num_done", "num_images"))
    done, total = (event.get(name) for name in names)
    if event.get("event") in ("steps", "validate") and isinstance(event.get("epoch"), int):
        done, total = event["epoch"] - 1, event.get("epochs")  # as the `epoch` event before it
    if isinstance(done, int | float) and isinstance(total, int | float) and 0 <= done <= total and total > 0:
        return done, total
    return None


def warnings(events: Path) -> list[str]:
    """The warnings in a job's `events.jsonl`, each once, in their order."""
    try:
        lines = events.read_text(encoding="utf-8", errors="backslashreplace").splitlines()
    except FileNotFoundError:
        return []
    found = (parse_event(line) for line in lines if '"warning"' in line)
    return list(dict.fromkeys(str(event.get("text")) for event in found if event.get("event") == "warning"))


def parse_event(progress: str) -> Event:
    """The event; empty where there is none yet, or an incomplete one.

    Not read by pydantic: each kind of event has other keys, and one of another release is passed over.
    """
    try:
        event = json.loads(progress)
    except (ValueError, RecursionError):
        return {}
    return event if isinstance(event, dict) else {}


def _download(event: Event) -> str:
    of_all = f" of {event['num_bytes'] / 1e6:,.1f}" if event.get("num_bytes") else ""
    return f"downloading weights, {event['bytes_done'] / 1e6:,.1f}{of_all} MB"


def _epoch(event: Event) -> str:
    """A finished epoch, and the time that the others will take at its speed."""
    words = [f"epoch {event['epoch']}/{event['epochs']}", f"loss {event['loss']:.4f}"]
    if event.get("accuracy") is not None:
        words.append(f"validation accuracy {event['accuracy']:.4f}")
    if event.get("images_per_sec"):
        words.append(f"{event['images_per_sec']:,.0f} images/s")
    if event.get("seconds") and event["epoch"] < event["epochs"]:
        words.append(f"{(event['epochs'] - event['epoch']) * event['seconds']:,.0f} s left")
    return ", ".join(words)


def _probe(event: Event) -> str:
    accuracy = event.get("accuracy")
    return "linear probe fitted" + ("" if accuracy is None else f": validation accuracy {accuracy:.4f}")


_DESCRIPTIONS: dict[str, Callable[[Event], str]] = {
    **dict.fromkeys(_STEPS, lambda e: f"{_STEPS[e['event']]} {e['num_done']:,}/{e['num_images']:,} images"),
    "download": _download,
    "epoch": _epoch,
    "steps": lambda e: f"epoch {e['epoch']}/{e['epochs']}, {e['num_done']:,}/{e['num_images']:,} images",
    "validate": lambda e: f"epoch {e['epoch']}/{e['epochs']}, validating {e['num_done']:,}/{e['num_images']:,} images",
    "phase": lambda event: str(event["text"]),
    "data": lambda e: f"{e['num_train']:,} images to learn from, {e['num_validation'] + e['num_test']:,} held out",
    "probe": _probe,
    "model": lambda event: "the model is made",
    "resumed": lambda event: f"resumed after epoch {event['epoch']}",
    "note": lambda event: str(event["text"]),
    "warning": lambda event: str(event["text"]),
    **dict.fromkeys(("interrupted", "storage"), lambda event: f"interrupted, and tried again: {event['text']}"),
}


FIRST_POLL_S, SLOWEST_POLL_S = 0.03, 0.25
POLL_GROWTH = 1.05  # a short job is seen to end a twentieth of its time late
RATE_WINDOW_S = 15.0
SUBMISSION_S = 5.0  # longer than any submission takes from making the folder to entering the job into the ledger


def read_record(settings: Settings, ledger: Ledger | None, job: str) -> JobRecord:
    """The record of a job: with its outcome from the disk, else from the ledger, else from its request and listing.

    Raises NotFoundError if there is no such job.
    """
    folder = JobFolder.open(settings, job)
    request, outcome = folder.request(), folder.outcome()
    record = ledger.record(job) if ledger is not None else None
    if record is None or record.run < folder.run:  # a resume enters it a moment later
        record = _record_from_disk(folder, request)
    if outcome is None and record.ended:
        outcome = folder.outcome_of(record.run)  # it ended between the two
    return _with_outcome(record, outcome) if outcome else record


def _record_from_disk(folder: JobFolder, request: AnyJobRequest) -> JobRecord:
    """The record of a job from its folder, without reading every part."""
    created_ms = round(request.created.timestamp() * 1000)
    num_shards, num_images = count_shards(folder.work)
    return JobRecord(
        folder.job,
        request.kind,
        "unknown",
        num_images=num_images,
        num_shards=num_shards,
        listed=read_facts(folder.work) is not None,
        created_ms=created_ms,
        run=folder.run,
    )


def _with_outcome(record: JobRecord, outcome: Outcome) -> JobRecord:
    """The record with the outcome from the disk, which is final."""
    return replace(
        record,
        state=outcome.state,
        num_images=outcome.num_images or record.num_images,
        num_done=outcome.num_done,
        num_failed=outcome.num_failed,
        too_many_failures=outcome.too_many_failures,
        ended_ms=round(outcome.ended.timestamp() * 1000),
        error=outcome.error or "",
        result=outcome.result or "",
        listed=True,
    )


def to_json(settings: Settings, record: JobRecord, ledger: Ledger | None = None) -> dict[str, Any]:
    """A job's record and request, for `--json`. With the ledger, also why its webhook is not delivered yet."""
    folder = JobFolder.open(settings, record.job)
    request = folder.request()
    facts = asdict(record) | {"progress": dict(parse_event(record.progress)) or None}
    stage_seconds = facts.pop("stage_seconds")
    facts |= {"source": request.source, "priority": request.priority, "notify": delivery_facts(folder, request, ledger)}
    if isinstance(request, ClassifyRequest):
        timed = {"stage_seconds": stage_seconds, "bound": record.bound}
        return facts | timed | {"model": request.model.ref, "output": request.output}
    if isinstance(request, TrainJobRequest):
        return facts | {"model": request.name, "architecture": request.train["architecture"]}
    return facts | {"model": request.model.ref, "part": request.part, "output": request.output}


def show_job(settings: Settings, ledger: Ledger | None, job: str) -> tuple[JobRecord, dict[str, Any]]:
    """A job's record, and the facts of `status --json`: with why it waits although workers are alive.

    Raises NotFoundError if there is no such job.
    """
    record = read_record(settings, ledger, job)
    facts = to_json(settings, record, ledger)
    if ledger is not None and (missing := describe_missing_version(record, ledger.live_workers.workers())):
        facts["trouble"] = missing
    return record, facts


def exit_code(settings: Settings, record: JobRecord) -> ExitCode:
    """The exit code of a command that waited for this job."""
    if record.too_many_failures or all_failed(settings, record):
        return ExitCode.TOO_MANY_FAILURES
    if record.state in ("succeeded", "partial"):
        return ExitCode.OK
    return ExitCode.FAILED


def all_failed(settings: Settings, record: JobRecord) -> bool:
    """Whether a classify job has answered no image at all, and `--max-failures` did not allow that."""
    if record.state != "partial" or record.num_failed < record.num_images:
        return False
    folder = JobFolder.open(settings, record.job)
    request = folder.request()
    return isinstance(request, ClassifyRequest) and folder.max_failures(request) is None


@dataclass(frozen=True)
class JobSnapshot:
    """A job at one moment of being followed."""

    record: JobRecord
    images_per_sec: float  # over the last seconds
    num_workers: int  # live workers that listen to the job's queue, busy or not
    server_away: bool = False
    missing_version: str = ""  # why none of them can do it

    @property
    def eta_s(self) -> float | None:
        """Seconds left at this rate; None while the listing grows or the rate is 0."""
        if not self.record.listed or self.images_per_sec <= 0 or self.record.state == "paused":
            return None
        return (self.record.num_images - self.record.num_done) / self.images_per_sec


class Follower:
    """Looks at one job again and again; each look is a snapshot with the rate since the looks of the last seconds."""

    def __init__(self, settings: Settings, ledger: Ledger, job: str) -> None:
        """Raises NotFoundError if there is no such job."""
        self._settings = settings
        self._ledger = ledger
        self._started = time.monotonic()
        self._seen: list[tuple[float, int]] = []
        self._record = read_record(settings, None, job)

    def look(self) -> JobSnapshot:
        """The job now; while the server is away, as it was.

        Raises PigeonholeError where the job was never entered: its submission was interrupted.
        """
        from orchestrator.contract.server import SERVER_ERRORS  # takes redis, which no help text needs

        job, away, num_workers, missing = self._record.job, False, 0, ""
        try:
            self._record = read_record(self._settings, self._ledger, job)
            queue = QUEUE_OF_KIND.get(self._record.kind, CLASSIFY)
            workers = self._ledger.live_workers.workers()
            num_workers = sum(worker.takes(queue) for worker in workers)
            missing = describe_missing_version(self._record, workers)
        except SERVER_ERRORS:
            away = True
            if not self._record.ended:
                self._record = read_record(self._settings, None, job)
        now = time.monotonic()
        if not away and self._record.state == "unknown" and now - self._started > SUBMISSION_S:
            self._check_entered(job)
        recent = [(at, done) for at, done in self._seen if now - at < RATE_WINDOW_S]
        self._seen = [*recent, (now, self._record.num_done)]
        return JobSnapshot(self._record, _rate(self._seen), num_workers, away, missing)

    def _check_entered(self, job: str) -> None:
        if job not in active_jobs(self._settings):
            folder = JobFolder.open(self._settings, job)
            if folder.run:
                raise PigeonholeError(f"job {job}: its resume was interrupted; `pigeonhole jobs resume {job}` again")
            if read_facts(folder.work) is not None or not isinstance(folder.request(), ClassifyRequest):
                raise PigeonholeError(f"no worker knows job {job}; `pigeonhole jobs resume {job}` lets it go on")
            raise PigeonholeError(f"job {job} never began: its submission was interrupted; submit it again")


def follow(
    settings: Settings, ledger: Ledger, job: str, *, timeout_s: float | None = None, fresh: bool = True
) -> Iterator[JobSnapshot]:
    """Poll a job until it has ended, often at first, then four times a second; the last snapshot shows its end.

    Waits while the server is away. With `timeout_s` the iteration may stop before the end.
    """
    started = time.monotonic()
    poll_s = FIRST_POLL_S if fresh else SLOWEST_POLL_S
    follower = Follower(settings, ledger, job)
    while True:
        snapshot = follower.look()
        yield snapshot
        if snapshot.record.ended or (timeout_s is not None and time.monotonic() - started > timeout_s):
            return
        time.sleep(poll_s)
        poll_s = min(poll_s * POLL_GROWTH, SLOWEST_POLL_S)


def _rate(seen: list[tuple[float, int]]) -> float:
    (first_at, first), (last_at, last) = seen[0], seen[-1]
    return (last - first) / (last_at - first_at) if last_at > first_at else 0.0


def describe(snapshot: JobSnapshot) -> str:
    """One line of plain text on a job."""
    record = snapshot.record
    if snapshot.server_away:
        return f"{record.job}: the server is away, waiting for it"
    if record.kind != CLASSIFY:
        why = snapshot.missing_version or record.paused_reason or record.trouble
        words = (record.state, describe_event(record.progress), why)
        return f"{record.job}: {', '.join(filter(None, words))}"
    total = f"{record.num_images}" if record.listed else f"{record.num_images}+"
    parts = [f"{record.job}: {record.state}", f"{record.num_done}/{total} images"]
    if record.num_failed:
        parts.append(f"{record.num_failed} failed")
    if snapshot.images_per_sec > 0:
        parts.append(f"{snapshot.images_per_sec:,.0f} images/s")
    if snapshot.eta_s is not None:
        parts.append(f"{snapshot.eta_s:,.0f} s left")
    if record.bound and not record.ended:
        parts.append(f"limited by {record.bound}")
    if why := snapshot.missing_version or record.paused_reason or record.trouble or describe_event(record.progress):
        parts.append(why)
    return ", ".join(parts)


def describe_bound(record: JobRecord) -> str:
    """What bounds a job and how long its stages took, in words."""
    seconds = record.stage_seconds
    stages = ", ".join(f"{stage} {seconds[stage]:,.1f} s" for stage in STAGES if stage in seconds)
    return f"{record.bound} ({stages})"
