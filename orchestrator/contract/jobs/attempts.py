"""The attempts at a training or an evaluation: who worked on it, and how each attempt ended.

Kept in the job folder, so that a server that lost everything does not forget them: `attempts/3.json` says who began the
third, `attempts/3.end.json` how it ended. Both are linked into place: the first one stays. The file of a later attempt
ends an earlier one (`modeling.training.attempt`).
"""

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from modeling.durable import link_once, temporary_beside, write_durable
from modeling.training.attempt import has_progressed
from orchestrator.contract.errors import MessageError
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.messages import Versioned

WORKER_DIED = "its worker died, or was cut off"


class AttemptBegin(Versioned):
    """Who began an attempt, in which run of the job, and when."""

    run: int
    worker: str
    device: str
    at: datetime


class AttemptEnd(Versioned):
    """How an attempt ended.

    died: not by intent. progressed: it has left a new checkpoint.
    """

    how: str
    at: datetime
    died: bool = False
    progressed: bool = False


@dataclass(frozen=True)
class Attempt:
    """One attempt; `end` is None as long as it runs, or until another worker finds that it died."""

    number: int
    begin: AttemptBegin
    end: AttemptEnd | None = None

    def to_json(self) -> dict[str, Any]:
        """What `jobs show --json` has of it."""
        record = {"attempt": self.number, **self.begin.model_dump(mode="json", exclude={"version", "at"})}
        record["began"] = self.begin.at.isoformat()
        if self.end is not None:
            record |= self.end.model_dump(mode="json", exclude={"version", "at"}) | {"ended": self.end.at.isoformat()}
        return record


def read_attempts(folder: JobFolder) -> list[Attempt]:
    """All attempts, in their order; one whose record cannot be read is left out.

    Raises:
        OSError: the storage is away.
    """
    found = []
    for number in sorted(_numbers(folder)):
        with contextlib.suppress(MessageError):
            begin = AttemptBegin.read(_begin_file(folder, number))
            if begin is not None:
                found.append(Attempt(number, begin, AttemptEnd.read(_end_file(folder, number))))
    return found


def close_attempts(folder: JobFolder) -> list[str]:
    """Record the end of those that have not ended, as their workers died; returns how, for people."""
    died = [attempt for attempt in read_attempts(folder) if attempt.end is None]
    for attempt in died:
        end_attempt(folder, attempt.number, WORKER_DIED, died=True)
    return [f"attempt {attempt.number}, on worker {attempt.begin.worker}: {WORKER_DIED}" for attempt in died]


def begin_attempt(folder: JobFolder, *, worker: str, device: str) -> Path:
    """Begin the next attempt; returns its file."""
    folder.attempts.mkdir(exist_ok=True)
    begin = AttemptBegin(run=folder.run, worker=worker, device=device, at=datetime.now(UTC))
    number = max(_numbers(folder), default=0) + 1
    while not _put(_begin_file(folder, number), begin):
        number += 1  # another worker, whose claim was lost or is the newer one
    return _begin_file(folder, number)


def end_attempt(folder: JobFolder, number: int, how: str, *, died: bool = False) -> None:
    """Record how an attempt ended; the first record stays."""
    progressed = has_progressed(folder.training, number)
    _put(_end_file(folder, number), AttemptEnd(how=how, at=datetime.now(UTC), died=died, progressed=progressed))


def count_deaths(attempts: Iterable[Attempt], run: int) -> int:
    """How often the job has died in this run since its last new checkpoint; a running attempt counts as dead."""
    deaths = 0
    for attempt in sorted(attempts, key=lambda attempt: -attempt.number):
        if attempt.begin.run != run:
            break
        deaths += attempt.end is None or attempt.end.died
        if attempt.end is not None and attempt.end.progressed:
            break  # what died before it died without a new checkpoint since
    return deaths


def _put(path: Path, record: Versioned) -> bool:
    with temporary_beside(path) as temporary:
        write_durable(temporary, record.model_dump_json(indent=2).encode())
        return link_once(temporary, path)


def _numbers(folder: JobFolder) -> list[int]:
    try:
        return [int(path.stem) for path in folder.attempts.iterdir() if path.stem.isdecimal()]
    except FileNotFoundError:
        return []


def _begin_file(folder: JobFolder, number: int) -> Path:
    return folder.attempts / f"{number}.json"


def _end_file(folder: JobFolder, number: int) -> Path:
    return folder.attempts / f"{number}.end.json"
