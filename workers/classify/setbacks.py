"""What ends a slice early: a source that this worker does not see, or an unexpected error."""

import contextlib
import logging
import os

from orchestrator.contract.queues import CLASSIFY
from orchestrator.contract.server import SERVER_ERRORS
from workers.context import WorkerContext
from workers.leases import Leases
from workers.source_folder import StorageAwayError

logger = logging.getLogger(__name__)

MAX_ERRORS = 3  # attempts at a shard that end in an unexpected error; then the job fails with that error
BROKEN_DEVICE_EXIT_CODE = 70  # EX_SOFTWARE of sysexits.h


def pause_or_leave(job: str, context: WorkerContext, err: StorageAwayError) -> str:
    """Leave the job to workers that see its source, or pause it if there are none; returns its state."""
    reason = f"worker {context.worker}: {err}"
    logger.error("job %s: %s", job, reason)
    able = context.ledger.live_workers.listeners(CLASSIFY)
    return context.recovering_ledger.pause(job, reason, by="storage", worker=context.worker, workers=able)


def count_attempt(job: str, run: int, context: WorkerContext, leases: Leases, err: Exception) -> None:
    """Let the leases run out, so that the attempt counts: a shard that breaks every worker must not be tried forever.

    On a device other than the CPU this process ends.
    """
    reason = f"{type(err).__name__}: {err}"[:500]
    if any(claim.attempt >= MAX_ERRORS for claim in leases.held()):
        leases.state = context.recovering_ledger.cancel(job, run=run, reason=reason)
    else:
        with contextlib.suppress(*SERVER_ERRORS):  # the error itself is raised by the caller
            context.report_trouble(job, f"worker {context.worker}: {reason}")
    leases.abandon()
    if context.device != "cpu":
        logger.critical("an error on %s may be sticky; this process ends", context.device, exc_info=True)
        os._exit(BROKEN_DEVICE_EXIT_CODE)
