"""The right to end a job: a lease with a fencing number, held by one worker at a time."""

import logging
import threading
from types import TracebackType
from typing import Self

import redis

from workers.context import Station

logger = logging.getLogger(__name__)

END_LEASE_S = 30.0
KEEP_EVERY_S = 2.0


class RightLostError(Exception):
    """Another worker is ending the job, or the server forgot that this one does."""


class Right:
    """The right to end a job, kept by a thread: an fsync of a large manifest may outlast a lease.

    Whatever goes wrong inside the block counts only if the right still holds: a worker that was frozen finds
    that another has cleaned up after it, which is no failure of the job.
    """

    def __init__(self, station: Station, job: str, fence: int) -> None:
        self._station = station
        self._job = job
        self._fence = fence
        self._stop = threading.Event()
        self._lost = False
        self._thread = threading.Thread(target=self._run, name=f"right-{job}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if err is not None and not isinstance(err, RightLostError):
            self.confirm()

    def check(self) -> None:
        """Cheap, to be called often: raises RightLostError if the thread has found the right lost."""
        if self._lost:
            raise RightLostError

    def confirm(self) -> None:
        """Ask the ledger now; raises RightLostError if the right is lost."""
        if not self._station.patiently(self._station.ledger.renew_end, self._job, self._fence, END_LEASE_S):
            raise RightLostError

    def _run(self) -> None:
        while not self._stop.wait(KEEP_EVERY_S):
            try:
                self._lost = not self._station.ledger.renew_end(self._job, self._fence, END_LEASE_S)
            except redis.RedisError as err:
                logger.warning("cannot renew the right to end %s: %s", self._job, err)
