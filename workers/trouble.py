"""A worker that lacks files, memory or threads, or whose disk is away or full: it says so, waits, and tries again."""

import contextlib
import logging
import os
import time

from modeling.errors import is_out_of_memory, takes_no_writes, trouble_of
from orchestrator.contract.server import SERVER_ERRORS
from workers.context import WorkerContext
from workers.training.run import ProcessInterruptedError

logger = logging.getLogger(__name__)

PAUSES_S = (1.0, 2.0, 4.0, 8.0, 15.0)  # before each further attempt; the last one is repeated
_POLL_S = 0.2


def is_waited_for(err: Exception) -> bool:
    """Whether an error says nothing of the job: this process or its disk lacks something, and tries again later."""
    trouble = trouble_of(err)
    if isinstance(err, SERVER_ERRORS) and trouble != "worker":
        return False
    return trouble is not None or takes_no_writes(err) or isinstance(err, ProcessInterruptedError)


class BackOff:
    """Waits longer after each attempt in a row that ended with trouble of this process."""

    def __init__(self) -> None:
        self._num_failed = 0

    def reset(self) -> None:
        """An attempt has succeeded."""
        self._num_failed = 0

    def wait(self, job: str, context: WorkerContext, err: Exception) -> None:
        """Report the error in the records of the job and of the worker, and wait until the next attempt is due.

        The job comes last for a while: what this worker waits for holds up no other. Where memory ran out, models that
        were kept for other jobs are dropped.
        """
        pause_s = PAUSES_S[min(self._num_failed, len(PAUSES_S) - 1)]
        self._num_failed += 1
        reason = _reason(err)
        trouble = f"worker {context.worker}: {reason}"
        logger.error("job %s: %s; trying again in %.0f s", job, trouble, pause_s)
        with contextlib.suppress(*SERVER_ERRORS):  # logged above
            context.report_trouble(job, trouble)
            context.ledger.turns.put_last(job, context.worker)
            context.ledger.live_workers.report_activity(context.worker, f"waiting: {reason}")
        if is_out_of_memory(err):
            context.models.drop_others()
        deadline = time.monotonic() + pause_s
        while time.monotonic() < deadline and not context.draining():
            time.sleep(_POLL_S)


def _reason(err: BaseException) -> str:
    """An error in words, for the record of a job."""
    if isinstance(err, OSError) and err.strerror:
        return err.strerror + (f": {os.fsdecode(err.filename)!r}" if err.filename is not None else "")
    return (str(err) or type(err).__name__)[:500]
