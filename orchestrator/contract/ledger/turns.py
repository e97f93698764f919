"""Whose turn it is: a doorbell says that there is work on its queue, the ledger for which job a worker does it.

Classify jobs share the workers' time by priority (`lua/take_turn.lua`); trainings wait in order of priority.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from orchestrator.contract.ledger.live_workers import PREFIX, WORKERS_KEY
from orchestrator.contract.queues import CLASSIFY, queue_key
from orchestrator.contract.release import Release

AVOID_S = 5.0  # how long a worker leaves a job to others that it could do nothing for
LAST_S = 60.0  # how long it puts a job last for which it lacked something; longer than it waits meanwhile

_ACTIVE = f"{PREFIX}:active"
_JOBS = f"{PREFIX}:job:"
_CLASSIFY_TURNS = f"{PREFIX}:turns:classify"


@dataclass(frozen=True, slots=True)
class Turn:
    """A worker's time for one job."""

    job: str
    seconds: float | None = None  # after which no further shard is claimed; None: the setting `slice_s`
    max_shards: int | None = None  # None: any number
    charged_ms: int = 0  # in advance


@dataclass(frozen=True, slots=True)
class Barred:
    """A job that has work, but not for this worker. version: that began it; model_format: of its model; or empty."""

    job: str
    version: str
    model_format: str


class Turns:
    """The turns of one server; safe to share between threads."""

    def __init__(self, run: Callable[[str, list[str], list[Any]], Any], release: Release) -> None:
        """run: runs a script of the ledger. release: of the workers that take turns here."""
        self._run = run
        self._release = [release.version, release.formats_text]

    def take(self, named: str, worker: str, longest_s: float) -> Turn | Barred | None:
        """The turn that a doorbell for the classify job `named` gives to a worker; None where no job has work for it.

        The turn is that of `named` in any case if the ledger does not know it, or if the worker is to look for its
        source.
        """
        answer = self._run(
            "take_turn",
            [f"{_JOBS}{named}", _ACTIVE, _CLASSIFY_TURNS],
            [_JOBS, named, worker, round(longest_s * 1000), *self._release],
        )
        if answer is None:
            return None
        if not answer[0]:
            return Barred(*answer[1:])
        job, milliseconds, max_shards, charged_ms = answer
        return Turn(job, int(milliseconds) / 1000, int(max_shards) or None, int(charged_ms))

    def end(self, turn: Turn, worker: str, seconds: float, num_shards: int | None) -> str | None:
        """Enter what a turn took; returns a classify job that has work for this worker.

        None where none has, or where as many doorbells wait as there are workers. num_shards: that were claimed. None
        were: the worker leaves the job to others for a while. None: unknown.
        """
        shards = "" if num_shards is None else num_shards
        job: str | None = self._run(
            "end_turn",
            [f"{_JOBS}{turn.job}", _ACTIVE, _CLASSIFY_TURNS, queue_key(CLASSIFY), WORKERS_KEY],
            [_JOBS, turn.job, worker, turn.charged_ms, round(seconds * 1000), shards, *self._release],
        )
        return job

    def next_training(self, named: str, worker: str) -> str | Barred | None:
        """The training or evaluation that a doorbell for `named` stands for; None where none has work for a worker."""
        arguments = [_JOBS, named, worker, *self._release]
        answer: str | list[str] | None = self._run("next_training", [f"{_JOBS}{named}", _ACTIVE], arguments)
        return Barred(*answer) if isinstance(answer, list) else answer

    def avoid(self, job: str, worker: str) -> None:
        """Leave a job to other workers for a while: this one could do nothing for it."""
        self._run("avoid", [f"{_JOBS}{job}"], [worker, round(AVOID_S * 1000)])

    def put_last(self, job: str, worker: str) -> None:
        """For a while this worker takes any other job of the queue first: it lacked something for this one."""
        self._run("avoid", [f"{_JOBS}{job}"], [f"last {worker}", round(LAST_S * 1000)])
