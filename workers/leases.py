"""Keeps the claims of a slice: a thread renews the leases and learns whether the job continues."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Self

from orchestrator.contract.ledger.ledger import Claim
from orchestrator.contract.ledger.periodic_call import PeriodicCall
from orchestrator.contract.server import SERVER_ERRORS
from workers.context import WorkerContext
from workers.hang_guard import hang_guard

logger = logging.getLogger(__name__)

RENEW_S = 1.0  # at most; shorter than a third of a long lease, so that a cancel is prompt
STALLED_EXIT_CODE = 70  # EX_SOFTWARE of sysexits.h


class Leases:
    """The claims of one slice, renewed until they are dropped or the block ends.

    A process that finishes nothing for `stall_s` ends itself: its parent starts another, and another worker claims the
    shard. That also frees a worker that hangs inside a decoder or a driver.
    """

    def __init__(self, context: WorkerContext, job: str, *, on_tick: Callable[[], None] = lambda: None) -> None:
        """on_tick: called after every renewal, also after one that the server did not answer; may be set later."""
        self._context = context
        self._job = job
        self.on_tick = on_tick
        self._claims: dict[int, Claim] = {}
        self._lock = threading.Lock()
        self._renewal = PeriodicCall(self._tick, min(RENEW_S, context.settings.lease_s / 3), f"leases-{job}")
        self._last_progress = time.monotonic()
        self.state: str = "running"  # of the job
        self.num_claimed = 0  # of all claims that were added
        self.lost: set[int] = set()  # shards whose lease ran out, or that the server forgot

    def __enter__(self) -> Self:
        self._renewal.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._renewal.stop()
        self.hand_back()

    def hand_back(self) -> None:
        """Release all claims: others may take the shards at once, and no attempt counts."""
        for claim in self.held():
            try:
                self._context.ledger.release(claim)
            except SERVER_ERRORS as away:
                logger.warning(
                    "cannot hand back shard %d of %s, its lease will run out: %s", claim.shard, self._job, away
                )

    def add(self, claim: Claim) -> None:
        """Renew `claim` from now on."""
        with self._lock:
            self._claims[claim.shard] = claim
            self.num_claimed += 1

    def drop(self, claim: Claim) -> None:
        """Stop renewing `claim`: it is committed or lost."""
        with self._lock:
            if self._claims.get(claim.shard) == claim:  # it may have been lost, and claimed again
                del self._claims[claim.shard]

    def abandon(self) -> None:
        """Stop renewing, and hand nothing back: the leases run out, as they do when a worker dies."""
        with self._lock:
            self._claims.clear()

    def held(self) -> list[Claim]:
        """The claims that are neither committed nor lost."""
        with self._lock:
            return list(self._claims.values())

    def progressed(self) -> None:
        """Note that something was finished just now."""
        self._last_progress = time.monotonic()

    @property
    def idle_s(self) -> float:
        """Seconds since something was finished."""
        return time.monotonic() - self._last_progress

    @property
    def job_goes_on(self) -> bool:
        """Whether the job still needs work, as of the last renewal."""
        return self.state in ("queued", "running", "finalizing", "unknown")

    def _tick(self) -> None:
        try:
            self._renew()
        finally:  # a process that hangs must be noticed also while the server is away
            try:
                self.on_tick()
            finally:
                self._end_if_stalled()

    def _renew(self) -> None:
        claims = self.held()
        self.state, lost = self._context.ledger.renew(self._job, claims, self._context.settings.lease_s)
        self.lost |= lost
        for claim in claims:
            if claim.shard in lost:
                self.drop(claim)
        if lost and self.state != "unknown":
            logger.warning(
                "job %s: the lease of shards %s ran out; another worker may have them", self._job, sorted(lost)
            )

    def _end_if_stalled(self) -> None:
        if self.idle_s > self._context.settings.stall_s:
            logger.critical("nothing was finished for %.0f s; this process ends", self._context.settings.stall_s)
            hang_guard.end(STALLED_EXIT_CODE)
