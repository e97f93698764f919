"""The lease to finalize a job: a lease with a fencing number, held by one worker at a time."""

import logging
import threading
from types import TracebackType
from typing import Self

import redis

from workers.context import WorkerContext

logger = logging.getLogger(__name__)

FINALIZE_LEASE_S = 30.0
KEEP_EVERY_S = 2.0


class FinalizeLeaseLostError(Exception):
    """Another worker is ending the job, or the server forgot that this one does."""


class FinalizeLease:
    """The lease to finalize a job, kept by a thread: an fsync of a large manifest may outlast a lease.

    Whatever goes wrong inside the block counts only if the lease still holds: a worker that was frozen finds
    that another has cleaned up after it, which is no failure of the job.
    """

    def __init__(self, context: WorkerContext, job: str, fence: int) -> None:
        self._context = context
        self._job = job
        self._fence = fence
        self._stop = threading.Event()
        self._lost = False
        self._thread = threading.Thread(target=self._run, name=f"finalize-lease-{job}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if err is not None and not isinstance(err, FinalizeLeaseLostError):
            self.confirm()

    def check(self) -> None:
        """Cheap, to be called often: raises FinalizeLeaseLostError if the thread has found the lease lost."""
        if self._lost:
            raise FinalizeLeaseLostError

    def confirm(self) -> None:
        """Ask the ledger now; raises FinalizeLeaseLostError if the lease is lost."""
        if not self._context.patiently(
            self._context.ledger.renew_finalize_lease, self._job, self._fence, FINALIZE_LEASE_S
        ):
            raise FinalizeLeaseLostError

    def _run(self) -> None:
        while not self._stop.wait(KEEP_EVERY_S):
            try:
                self._lost = not self._context.ledger.renew_finalize_lease(self._job, self._fence, FINALIZE_LEASE_S)
            except redis.RedisError as err:
                logger.warning("cannot renew the lease to finalize %s: %s", self._job, err)
