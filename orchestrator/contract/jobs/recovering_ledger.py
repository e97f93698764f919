"""The ledger for callers that continue after the server was away, or came back without a job that it knew.

The caller decides how long to retry: a command fails immediately, a worker waits. It also decides what a lost lease
means.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from orchestrator.contract.jobs.history import note, note_trouble
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.restore import restore_job, withdraw_job
from orchestrator.contract.ledger.ledger import Claim, CommitResult, Ledger, Need
from orchestrator.contract.ledger.record import JobRecord, State
from orchestrator.contract.ledger.turns import Barred, Turn
from orchestrator.contract.ledger.words import PausedBy
from orchestrator.contract.server import SERVER_ERRORS
from orchestrator.contract.settings import Settings

logger = logging.getLogger(__name__)
T = TypeVar("T")

RESTORES = 3  # for one call; if the server is emptied again and again, a later sweep restores the job
RESTORE_PAUSE_S = 0.05  # between two of them
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0


@dataclass(frozen=True)
class Patience:
    """How long calls are repeated while the server is away: for `seconds`, or until `give_up` returns True."""

    seconds: float = 0.0
    give_up: Callable[[], bool] = lambda: False

    def call(self, call: Callable[[], T]) -> T:
        """Repeat `call` while the server is away; raise the last error when the time is over."""
        deadline = time.monotonic() + self.seconds
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                return call()
            except SERVER_ERRORS as err:
                if self.give_up() or time.monotonic() >= deadline:
                    raise
                logger.warning("the server is away, trying again: %s", err)
                time.sleep(pause_s)
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


NO_PATIENCE = Patience()


class RecoveringLedger:
    """The ledger's calls, repeated while the server is away, and after restoring a job that the server forgot.

    `Ledger` and `LiveWorkers` say what a call without a docstring does. The answer `unknown` means that restoring the
    job did not help. All methods raise one of SERVER_ERRORS when the time is over, and NotFoundError for a job that is
    neither in the ledger nor on the disk.
    """

    def __init__(self, ledger: Ledger, settings: Settings, patience: Patience = NO_PATIENCE) -> None:
        self._ledger = ledger
        self._settings = settings
        self._patience = patience

    def claim(self, job: str, worker: str, lease_s: float) -> Claim | str:
        return self._known(job, lambda: self._ledger.claim(job, worker, lease_s))

    def renew(self, job: str, claims: Sequence[Claim], lease_s: float) -> tuple[State, set[int]]:
        """As `Ledger.renew`; a server that forgot the job has lost the claims."""
        return self._patience.call(lambda: self._ledger.renew(job, claims, lease_s))

    def commit(
        self,
        claim: Claim,
        *,
        num_rows: int,
        num_failed: int,
        given_up: bool = False,
        seconds: Mapping[str, float] | None = None,
        counts: Mapping[str, int] | None = None,
    ) -> tuple[CommitResult, State]:
        """As `Ledger.commit`.

        A job that was restored has the part already: its commit is answered with `already`, or `stale` where only a
        claim can tell (a training, an evaluation).
        """
        return self._known(
            claim.job,
            lambda: self._ledger.commit(
                claim, num_rows=num_rows, num_failed=num_failed, given_up=given_up, seconds=seconds, counts=counts
            ),
        )

    def cancel(self, job: str, *, run: int, reason: str = "") -> State:
        return self._known(job, lambda: self._ledger.cancel(job, run=run, reason=reason))

    def pause(self, job: str, reason: str, *, by: PausedBy, worker: str = "", workers: Sequence[str] = ()) -> State:
        """As `Ledger.pause`.

        The job folder keeps the pause for a server that forgets it; an operator's pause is there before.
        """
        state = self._known(job, lambda: self._ledger.pause(job, reason, by=by, worker=worker, workers=workers))
        if by == "storage" and (record := self.record(job)) is not None and by in record.paused_by:
            folder = JobFolder(self._settings, job)
            if folder.pause(by) is None:
                note(folder, "paused", by=worker or None, reason=reason)
            folder.write_pause(by, reason)
        return state

    def unpause(self, job: str, *, by: PausedBy, worker: str = "") -> State:
        """As `Ledger.unpause`; removes the record of the pause first. worker: lets it go on; empty: the operator."""
        folder = JobFolder(self._settings, job)
        if folder.withdraw_pause(by):
            note(folder, "unpaused", by=worker or None)
        return self.unpause_in_ledger(job, by=by)

    def unpause_in_ledger(self, job: str, *, by: PausedBy) -> State:
        """As `Ledger.unpause`, for a pause whose record is gone; one that is written in this moment stays."""
        return self._known(job, lambda: self._ledger.unpause(job, by=by))

    def extend(
        self, job: str, num_shards: int, num_images: int, *, listed: bool, run: int, failure_limit: int | None = None
    ) -> State:
        return self._known(
            job,
            lambda: self._ledger.extend(
                job, num_shards, num_images, listed=listed, run=run, failure_limit=failure_limit
            ),
        )

    def need(self, job: str, starving_s: float, *, run: int) -> Need:
        return self._known(job, lambda: self._ledger.need(job, starving_s, run=run))

    def take_finalize_lease(self, job: str, worker: str, lease_s: float) -> tuple[State, int | None]:
        return self._known(job, lambda: self._ledger.take_finalize_lease(job, worker, lease_s))

    def renew_finalize_lease(self, job: str, fence: int, lease_s: float) -> bool:
        """Keep the job's finalize lease, False where it is lost; a server that forgot the job has lost it."""
        return self._patience.call(lambda: self._ledger.renew_finalize_lease(job, fence, lease_s))

    def leave_end(self, job: str, fence: int, worker: str, workers: Sequence[str]) -> bool:
        return self._patience.call(lambda: self._ledger.leave_end(job, fence, worker, workers))

    def finish(self, job: str, state: State, *, run: int, output: str = "", error: str = "", result: str = "") -> bool:
        """As `Ledger.finish`; a job that the server forgot needs no entry."""
        return self._patience.call(
            lambda: self._ledger.finish(job, state, run=run, output=output, error=error, result=result)
        )

    def deliver(self, job: str) -> None:
        """Let a worker send the job's webhook."""
        self._patience.call(lambda: self._ledger.deliveries.add(job))

    def record(self, job: str) -> JobRecord | None:
        return self._patience.call(lambda: self._ledger.record(job))

    def take_turn(self, named: str, worker: str, longest_s: float) -> Turn | Barred | None:
        """As `Turns.take`."""
        return self._patience.call(lambda: self._ledger.turns.take(named, worker, longest_s))

    def next_training(self, named: str, worker: str) -> str | Barred | None:
        """As `Turns.next_training`."""
        return self._patience.call(lambda: self._ledger.turns.next_training(named, worker))

    def report_trouble(self, job: str, trouble: str, *, worker: str) -> None:
        note_trouble(JobFolder(self._settings, job), trouble, by=worker)
        self._patience.call(lambda: self._ledger.report_trouble(job, trouble))

    def count_images(self, worker: str, num_images: int) -> None:
        self._patience.call(lambda: self._ledger.live_workers.count_images(worker, num_images))

    def restore(self, job: str, *, replace: bool = False) -> None:
        """Enter an active job as its folder has it; where the ledger knows it, only if `replace` is set.

        One that is not active any more is not entered: a submission that was withdrawn has a folder for a moment still.
        """
        folder = JobFolder.open(self._settings, job)
        request = folder.request()
        if not folder.is_active():
            return
        if self._patience.call(lambda: restore_job(folder, self._ledger, replace=replace)) and not replace:
            logger.warning("the server had forgotten job %s; entered it again from %s", job, folder.path)
        if not folder.is_active() and folder.outcome() is None:
            self._patience.call(lambda: withdraw_job(request, self._ledger))

    def _known(self, job: str, call: Callable[[], T]) -> T:
        """The answer to `call`, which is repeated after the job was restored if the server does not know it."""
        answer = self._patience.call(call)
        for restores in range(RESTORES):
            if (answer[0] if isinstance(answer, tuple) else answer) not in ("unknown", "rebuild"):
                break
            if restores:
                time.sleep(RESTORE_PAUSE_S)
            self.restore(job)
            answer = self._patience.call(call)
        return answer
