"""The whole story of a job, from its folder and, where a server answers, from the ledger: for `jobs show`."""

import contextlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from modeling.names import path_to_text, text_to_path
from orchestrator.contract.errors import IntegrityError, NotFoundError
from orchestrator.contract.jobs.attempts import Attempt, read_attempts
from orchestrator.contract.jobs.history import Event, read_history
from orchestrator.contract.jobs.incomplete import incomplete_path, read_incomplete
from orchestrator.contract.jobs.job_folder import JobFolder, Outcome
from orchestrator.contract.jobs.listing import count_shards
from orchestrator.contract.jobs.parts import PartTrailer, read_trailer
from orchestrator.contract.jobs.requests import AnyJobRequest, ClassifyRequest, MaxFailures
from orchestrator.contract.jobs.restore import output_of
from orchestrator.contract.jobs.rows import summary_path
from orchestrator.contract.jobs.sidecar import sidecar_path
from orchestrator.contract.ledger.ledger import Ledger
from orchestrator.contract.settings import Settings
from orchestrator.jobs.follow import read_record, to_json
from orchestrator.jobs.results import find_published, read_summary


@dataclass
class WorkerShare:
    """What one worker did of a job, by the parts that are there."""

    worker: str
    num_shards: int = 0
    num_rows: int = 0
    num_failed: int = 0
    engines: list[str] = field(default_factory=list)
    seconds: float = 0.0  # of all stages

    def add(self, trailer: PartTrailer) -> None:
        self.num_shards += 1
        self.num_rows += trailer.num_rows
        self.num_failed += trailer.num_failed
        self.seconds = round(self.seconds + sum(trailer.seconds.values()), 3)
        if trailer.engine and trailer.engine not in self.engines:
            self.engines.append(trailer.engine)


@dataclass(frozen=True)
class Run:
    """The job from its submission, or from a resume, to its outcome."""

    run: int
    began: str
    by: str
    relisted: bool
    max_failures: MaxFailures | None
    outcome: Outcome | None

    def to_json(self) -> dict[str, Any]:
        ended = self.outcome.model_dump(mode="json", exclude={"version", "run"}) if self.outcome else None
        limit = self.max_failures.model_dump(exclude={"version"}, exclude_none=True) if self.max_failures else None
        facts = {"run": self.run, "began": self.began, "by": self.by, "relisted": self.relisted}
        return facts | {"max_failures": limit, "outcome": ended}


@dataclass(frozen=True)
class Story:
    """facts: as `status --json` has them. workers: by the parts that are there. summary: of what was published.

    attempts: at a training or an evaluation.
    """

    facts: dict[str, Any]
    runs: list[Run]
    workers: list[WorkerShare]
    history: list[Event]
    files: dict[str, str]
    summary: dict[str, Any] | None
    attempts: list[Attempt]

    def to_json(self) -> dict[str, Any]:
        return self.facts | {
            "runs": [run.to_json() for run in self.runs],
            "workers": [asdict(share) for share in self.workers],
            "history": [{"at": e.at, "by": e.by, "event": e.event} | dict(e.facts) for e in self.history],
            "files": self.files,
            "summary": self.summary,
            "attempts": [attempt.to_json() for attempt in self.attempts],
        }


def tell_story(settings: Settings, ledger: Ledger | None, job: str) -> Story:
    """All that is known of a job; without a ledger, what the disk has.

    Raises NotFoundError if there is no such job.
    """
    folder = JobFolder.open(settings, job)
    request, history = folder.request(), read_history(folder)
    return Story(
        to_json(settings, read_record(settings, ledger, job), ledger),
        _runs(folder, request, history),
        _shares(folder) if isinstance(request, ClassifyRequest) else [],
        history,
        _files(settings, folder, request),
        _summary(folder),
        read_attempts(folder),
    )


def _runs(folder: JobFolder, request: AnyJobRequest, history: list[Event]) -> list[Run]:
    submitted = next((event.by for event in history if event.event == "submitted"), "")
    limit = request.max_failures if isinstance(request, ClassifyRequest) else None
    first = Run(0, request.created.isoformat(), submitted, False, limit, folder.outcome_of(0))
    later = [
        Run(
            resume.run,
            resume.at.isoformat(),
            resume.by,
            resume.work is not None,
            resume.max_failures,
            folder.outcome_of(resume.run),
        )
        for resume in folder.resumes()
    ]
    return [first, *later]


def _shares(folder: JobFolder) -> list[WorkerShare]:
    """What each worker did, the busiest first. A part that is damaged is left out."""
    shares: dict[str, WorkerShare] = {}
    for shard in range(count_shards(folder.work)[0]):
        try:
            trailer = read_trailer(folder.parts, shard)
        except IntegrityError:
            continue
        if trailer is not None:
            shares.setdefault(trailer.worker, WorkerShare(trailer.worker)).add(trailer)
    return sorted(shares.values(), key=lambda share: (-share.num_rows, share.worker))


def _files(settings: Settings, folder: JobFolder, request: AnyJobRequest) -> dict[str, str]:
    """The folder of the job, and what it has published that is there."""
    output = Path(text_to_path(output_of(request))) if output_of(request) else None
    files = {"folder": folder.path}
    if isinstance(request, ClassifyRequest) and output is not None:
        files |= _manifest_files(settings, folder.job, incomplete_path(output))
    elif output is not None and output.exists():
        files["evaluation"] = output
    return {name: path_to_text(str(path)) for name, path in files.items()}


def _manifest_files(settings: Settings, job: str, incomplete: Path) -> dict[str, Path]:
    """The manifest of a job wherever it is kept, and what is beside it; another job's may lie in their places."""
    files = {}
    with contextlib.suppress(NotFoundError, IntegrityError):
        manifest = find_published(settings, job).manifest
        beside = {"manifest": manifest, "summary": summary_path(manifest), "sidecar": sidecar_path(manifest)}
        files = {name: path for name, path in beside.items() if path.exists()}
    if (kept := read_incomplete(incomplete)) is not None and kept.get("job") == job:
        files["incomplete"] = incomplete
    return files


def _summary(folder: JobFolder) -> dict[str, Any] | None:
    """The summary of the manifest that was published; None where there is none."""
    try:
        return read_summary(folder.summary)
    except (NotFoundError, IntegrityError):
        return None
