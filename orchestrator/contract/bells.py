"""Ringing doorbells. Apart from the message itself, so that a command which only reads never imports Celery."""

import logging

from celery import Celery
from kombu.exceptions import OperationalError

from orchestrator.contract.messages import Doorbell
from orchestrator.contract.queues import TASKS
from orchestrator.contract.server import SERVER_ERRORS

logger = logging.getLogger(__name__)


def ring(app: Celery, queue: str, job: str) -> None:
    """Hang a doorbell for `job` on `queue`. Where the server is away that is left to a worker's sweep."""
    try:
        app.send_task(TASKS[queue], args=[Doorbell(job=job).model_dump()], queue=queue)
    except (OperationalError, *SERVER_ERRORS) as err:
        logger.warning("cannot ring for job %s on %s, a sweep will: %s", job, queue, err)
