"""What ends a slice early: a source that this worker does not see, or an unexpected error."""

import contextlib
import logging
import os

from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.ledger.ledger import Claim
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


def count_attempt(folder: JobFolder, context: WorkerContext, leases: Leases, err: Exception) -> None:
    """Let the leases run out, so that the attempt counts: a shard that breaks every worker must not be tried forever.

    On a device other than the CPU this process ends.
    """
    reason = f"{type(err).__name__}: {err}"[:500]
    if max((_num_errors(folder, claim) for claim in leases.held()), default=0) >= MAX_ERRORS:
        leases.state = context.recovering_ledger.cancel(folder.job, run=folder.run, reason=reason)
    else:
        with contextlib.suppress(*SERVER_ERRORS):  # the error itself is raised by the caller
            context.report_trouble(folder.job, f"worker {context.worker}: {reason}")
    leases.abandon()
    if context.device != "cpu":
        logger.critical("an error on %s may be sticky; this process ends", context.device, exc_info=True)
        os._exit(BROKEN_DEVICE_EXIT_CODE)


def _num_errors(folder: JobFolder, claim: Claim) -> int:
    """How many attempts at a shard have ended so in this run of the job, this one included.

    Each leaves a file beside the journals. Where the disk takes none, deaths of workers count as well.
    """
    of_shard = f"{claim.shard:08d}.{folder.run}."
    try:
        folder.journals.mkdir(exist_ok=True)
        (folder.journals / f"{of_shard}{claim.fence}.error").touch()
        return sum(1 for _ in folder.journals.glob(f"{of_shard}*.error"))
    except OSError:
        return claim.attempt
