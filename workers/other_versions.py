"""Work that this worker leaves to others: a job that another version began, or files that only another version reads.

Its doorbell is put back at once, so that a worker that can do it takes it, and this one takes no other for a while:
idle workers of a new version would otherwise take every doorbell of the jobs that the old ones still do.
"""

import contextlib
import logging
import time

from modeling.errors import UnknownFormatError
from orchestrator.contract.errors import OtherVersionError
from orchestrator.contract.ledger.turns import AVOID_S, Barred
from orchestrator.contract.release import Release
from orchestrator.contract.server import SERVER_ERRORS
from workers.context import WorkerContext

logger = logging.getLogger(__name__)

POLL_S = 0.5
_ENOUGH = 100  # doorbells in a queue: the sweep rings again where none is left
_LOGGED = 1000  # jobs of which the log says once that they are left to others

_logged: set[str] = set()


def is_of_another_version(err: BaseException) -> bool:
    """Whether an error says nothing of a job, only that workers of another version can do it."""
    return isinstance(err, OtherVersionError | UnknownFormatError)


def describe_barred(barred: Barred, own: Release) -> str:
    """Why this worker leaves a job to others."""
    if barred.version and barred.version != own.version:
        return f"job {barred.job} was begun by version {barred.version}, and this is {own.version}"
    return f"job {barred.job} needs a worker that reads model format {barred.model_format}"


def leave_to_others(queue: str, job: str, why: str, context: WorkerContext) -> None:
    """Put the doorbell back, say why, and let the job be for a while. Raises one of SERVER_ERRORS."""
    if job not in _logged:
        logger.warning("%s; it is left to other workers", why)
        if len(_logged) >= _LOGGED:
            _logged.clear()
        _logged.add(job)
    if context.ledger.queue_length(queue) < _ENOUGH:  # while a job waits for its version, doorbells come and none goes
        context.ring(queue, job)
    context.ledger.live_workers.report_activity(context.worker, "idle", trouble=why)


def may_look_again(begun_s: float, context: WorkerContext) -> bool:
    """Wait a moment; whether this worker should then look for work of its own, as long as it takes no doorbell."""
    if context.draining() or time.monotonic() - begun_s > AVOID_S:
        return False
    time.sleep(POLL_S)
    return True


def leave_alone(queue: str, job: str, why: str, context: WorkerContext) -> None:
    """Leave a job to others whose files this worker cannot read, and take no doorbell for a while."""
    begun_s = time.monotonic()
    with contextlib.suppress(*SERVER_ERRORS):
        context.ledger.turns.avoid(job, context.worker)
    leave_to_others(queue, job, why, context)
    while may_look_again(begun_s, context):
        pass
