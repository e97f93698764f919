"""The Celery tasks: unwrap the doorbell, call a plain function."""

import contextlib
import logging
from typing import Any

from celery import shared_task

from orchestrator.contract.app import SLICE_TIME_LIMIT_S
from orchestrator.contract.errors import MessageError, NotFoundError
from orchestrator.contract.messages import Doorbell
from orchestrator.contract.queues import CLASSIFY, FINALIZE, TASKS, TRAIN
from orchestrator.contract.server import SERVER_ERRORS
from workers.child import reporting_activity, worker_context
from workers.classify.slice import classify_slice
from workers.context import HomeAccessError
from workers.finalize.finalize import end_job
from workers.training.run import run_process_job

logger = logging.getLogger(__name__)

_WORK = {CLASSIFY: classify_slice, TRAIN: run_process_job, FINALIZE: end_job}


@shared_task(name=TASKS[CLASSIFY], time_limit=SLICE_TIME_LIMIT_S)
def classify_task(message: dict[str, Any]) -> None:
    """Classify for one slice of time."""
    _handle(CLASSIFY, message)


@shared_task(name=TASKS[TRAIN])
def train_task(message: dict[str, Any]) -> None:
    """Train or evaluate to the end; the process that does it can be stopped at any time."""
    _handle(TRAIN, message)


@shared_task(name=TASKS[FINALIZE], time_limit=SLICE_TIME_LIMIT_S)
def finalize_task(message: dict[str, Any]) -> None:
    """End a job."""
    _handle(FINALIZE, message)


def _handle(queue: str, message: dict[str, Any]) -> None:
    """Work on the job of a doorbell; an invalid doorbell is logged and dropped."""
    try:
        job = Doorbell.parse(message, what=f"a doorbell on {queue}").job
        with reporting_activity(f"{queue} {job}") as context:
            _WORK[queue](job, context)
    except MessageError as err:
        logger.error("%s", err)  # noqa: TRY400 the message says everything
    except HomeAccessError as err:
        logger.error("%s", err)  # noqa: TRY400 the message says everything
        with contextlib.suppress(*SERVER_ERRORS):  # whoever watches the job learns why it waits
            worker_context().ledger.report_trouble(job, str(err))
    except NotFoundError as err:
        logger.error("%s; does this worker see the PIGEONHOLE_HOME of the others?", err)  # noqa: TRY400
    except SERVER_ERRORS as err:
        logger.warning("the server was away for too long, leaving %s to another doorbell: %s", queue, err)
