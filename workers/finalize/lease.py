"""The finalize lease: the right to end a job, with a fencing number, held by one worker at a time."""

from typing import Self

from orchestrator.contract.ledger.ledger import FINALIZE_LEASE_S
from orchestrator.contract.ledger.periodic_call import PeriodicCall
from workers.context import WorkerContext

RENEW_S = 2.0


class FinalizeLeaseLostError(Exception):
    """Another worker is ending the job, or the server forgot that this one does."""


class FinalizeLease:
    """The finalize lease of a job, renewed by a thread: syncing a large manifest may take longer than a lease.

    An error inside the block counts only while the lease is held: another worker may have removed the temporary files
    of one that was frozen, and that is no failure of the job.
    """

    def __init__(self, context: WorkerContext, job: str, fence: int) -> None:
        self.fence = fence
        self._context = context
        self._job = job
        self._lost = False
        self._renewal = PeriodicCall(self._renew, RENEW_S, f"finalize-lease-{job}")

    def __enter__(self) -> Self:
        self._renewal.start()
        return self

    def __exit__(self, kind: object, err: BaseException | None, trace: object) -> None:
        self._renewal.stop()
        if err is not None and not isinstance(err, FinalizeLeaseLostError):
            self.confirm()

    def check(self) -> None:
        """Cheap, to be called often: raises FinalizeLeaseLostError if the thread has found the lease lost."""
        if self._lost:
            raise FinalizeLeaseLostError

    def confirm(self) -> None:
        """Ask the ledger now; raises FinalizeLeaseLostError if the lease is lost."""
        if not self._context.recovering_ledger.renew_finalize_lease(self._job, self.fence, FINALIZE_LEASE_S):
            raise FinalizeLeaseLostError

    def _renew(self) -> None:
        self._lost = not self._context.ledger.renew_finalize_lease(self._job, self.fence, FINALIZE_LEASE_S)
