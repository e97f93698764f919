"""The Celery tasks: unwrap the doorbell, call a plain function."""

import contextlib
import logging
import time
from typing import Any

from celery import shared_task

from orchestrator.contract.app import FINALIZE_TIME_LIMIT_S, SLICE_TIME_LIMIT_S
from orchestrator.contract.errors import MessageError, NotFoundError
from orchestrator.contract.ledger.turns import Barred, Turn
from orchestrator.contract.messages import Doorbell
from orchestrator.contract.queues import CLASSIFY, FINALIZE, TASKS, TRAIN
from orchestrator.contract.server import SERVER_ERRORS
from workers.child import report_activity, reporting_activity
from workers.context import HomeAccessError, WorkerContext
from workers.other_versions import (
    describe_barred,
    is_of_another_version,
    leave_alone,
    leave_to_others,
    may_look_again,
)
from workers.trouble import BackOff, is_waited_for
from workers.turns import take_turn, work_on

logger = logging.getLogger(__name__)

_back_off = BackOff()


@shared_task(name=TASKS[CLASSIFY], time_limit=SLICE_TIME_LIMIT_S)
def classify_task(message: dict[str, Any]) -> None:
    """Classify for one slice of time."""
    _handle(CLASSIFY, message)


@shared_task(name=TASKS[TRAIN])
def train_task(message: dict[str, Any]) -> None:
    """Train or evaluate to the end; the process that does it can be stopped at any time."""
    _handle(TRAIN, message)


@shared_task(name=TASKS[FINALIZE], time_limit=FINALIZE_TIME_LIMIT_S)
def finalize_task(message: dict[str, Any]) -> None:
    """End a job."""
    _handle(FINALIZE, message)


def _work(queue: str, named: str, context: WorkerContext) -> None:
    """Work on the job whose turn it is; what this process or its disk lacks is waited for, at no cost for the job."""
    job = named
    try:
        turn = _own_turn(queue, named, context)
        if turn is None:
            return
        job = turn.job
        if job != named:
            report_activity(context, f"{queue} {job}")
        work_on(queue, turn, context)
    except HomeAccessError as err:
        logger.error("%s", err)  # noqa: TRY400 the message says everything
        with contextlib.suppress(*SERVER_ERRORS):  # so that `watch` and `status` show why the job waits
            context.ledger.report_trouble(job, str(err))
    except Exception as err:
        if is_of_another_version(err):
            leave_alone(queue, job, str(err), context)
            return
        if not is_waited_for(err):
            raise
        _back_off.wait(job, context, err)
        context.ring(queue, job)
    else:
        _back_off.reset()


def _own_turn(queue: str, named: str, context: WorkerContext) -> Turn | None:
    """The next turn for this worker; a doorbell of jobs that it must leave to others is put back for them, once."""
    begun_s, put_back = time.monotonic(), False
    while isinstance(turn := take_turn(queue, named, context), Barred):
        if not put_back:
            leave_to_others(queue, turn.job, describe_barred(turn, context.ledger.worker_release), context)
            put_back = True
        if not may_look_again(begun_s, context):
            return None
    if turn is None:
        logger.info("no job on %s has work for this worker; the doorbell of job %s is dropped", queue, named)
    return turn


def _handle(queue: str, message: dict[str, Any]) -> None:
    """Answer a doorbell; an invalid one is logged and dropped."""
    try:
        job = Doorbell.parse(message, what=f"a doorbell on {queue}").job
        with reporting_activity(f"{queue} {job}") as context:
            _work(queue, job, context)
    except MessageError as err:
        logger.error("%s", err)  # noqa: TRY400 the message says everything
    except NotFoundError as err:
        logger.error("%s; does this worker see the PIGEONHOLE_HOME of the others?", err)  # noqa: TRY400
    except SERVER_ERRORS as err:
        logger.warning("the server was away for too long, leaving %s to another doorbell: %s", queue, err)
