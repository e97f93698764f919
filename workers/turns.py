"""Answering a doorbell: the ledger says for which job, and work on it is charged to that job."""

import contextlib
import logging
import time

from modeling.errors import reason_of
from orchestrator.contract.ledger.turns import Barred, Turn
from orchestrator.contract.queues import CLASSIFY, TRAIN
from orchestrator.contract.server import SERVER_ERRORS
from workers.classify.slice import classify_slice
from workers.context import WorkerContext
from workers.finalize.finalize import end_job
from workers.other_versions import is_of_another_version
from workers.training.run import run_process_job
from workers.trouble import is_waited_for

logger = logging.getLogger(__name__)


def take_turn(queue: str, named: str, context: WorkerContext) -> Turn | Barred | None:
    """The turn that a doorbell for the job `named` gives to this worker; None where no job has work for it.

    A job that has work, but for workers of another version alone, is returned as barred.
    """
    if queue == CLASSIFY:
        return context.recovering_ledger.take_turn(named, context.worker, context.settings.slice_s)
    if queue == TRAIN:
        job = context.recovering_ledger.next_training(named, context.worker)
        return Turn(job) if isinstance(job, str) else job
    return Turn(named)


def work_on(queue: str, turn: Turn, context: WorkerContext) -> None:
    """Do the work of a turn. A doorbell for classify jobs goes on as long as one of them has work for this worker."""
    if queue == CLASSIFY:
        _classify(turn, context)
    elif queue == TRAIN:
        _train(turn, context)
    else:
        end_job(turn.job, context)


def _classify(turn: Turn, context: WorkerContext) -> None:
    started, num_shards, waits, following = time.monotonic(), 0, False, None
    try:
        num_shards = classify_slice(turn.job, context, turn)
    except Exception as err:
        waits = is_waited_for(err)  # the code that waits rings afterwards
        raise
    finally:
        with contextlib.suppress(*SERVER_ERRORS):  # the sweep rings
            elapsed_s = time.monotonic() - started
            following = context.ledger.turns.end(turn, context.worker, elapsed_s, None if waits else num_shards)
        if following is not None and not waits:
            context.ring(CLASSIFY, following)  # the turn's own job may be gone


def _train(turn: Turn, context: WorkerContext) -> None:
    try:
        run_process_job(turn.job, context)
    except Exception as err:
        if not is_waited_for(err):
            with contextlib.suppress(*SERVER_ERRORS):
                _leave_to_others(turn.job, context, err)
        raise


def _leave_to_others(job: str, context: WorkerContext, err: Exception) -> None:
    """After an error that may not be theirs."""
    context.ledger.turns.avoid(job, context.worker)
    if not (isinstance(err, SERVER_ERRORS) or is_of_another_version(err)):
        context.report_trouble(job, f"worker {context.worker}: {reason_of(err)}")
