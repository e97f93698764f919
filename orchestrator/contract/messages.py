"""The message that crosses a queue: a doorbell. It says which job has work, and nothing else.

What the work is stands in the job folder, who does it in the ledger. So a doorbell that is lost, late or
doubled does no harm.
"""

import logging
import re
from typing import Any, Self

from celery import Celery
from kombu.exceptions import OperationalError
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from orchestrator.contract.errors import MessageError
from orchestrator.contract.queues import TASKS
from orchestrator.contract.server import SERVER_ERRORS

logger = logging.getLogger(__name__)

MESSAGE_VERSION = 1

JOB_ID = re.compile(r"[ct][0-9]{6}-[0-9]{6}-[0-9a-f]{6}")


class Versioned(BaseModel):
    """A frozen record with a version; other versions and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_bytes="base64")

    version: int = MESSAGE_VERSION

    @classmethod
    def parse(cls, record: Any, *, what: str) -> Self:
        """Read `record` (a decoded JSON object), called `what` in errors.

        Raises:
            MessageError: if it is of another version, or malformed.
        """
        version = record.get("version") if isinstance(record, dict) else None
        if version != MESSAGE_VERSION:
            raise MessageError(
                f"{what} has version {version!r}, this Pigeonhole reads version {MESSAGE_VERSION}; "
                "run the same release on every machine"
            )
        try:
            return cls.model_validate(record)
        except ValidationError as err:
            first = err.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "it"
            raise MessageError(f"{what} is malformed: {where}: {first['msg']}") from err


class Doorbell(Versioned):
    """There is work in job `job`."""

    job: str

    @field_validator("job")
    @classmethod
    def _is_job_id(cls, job: str) -> str:
        """An id becomes a folder name in a worker: nothing else may pass."""
        if not JOB_ID.fullmatch(job):
            raise ValueError(f"{job!r} is no job id")
        return job


def ring(app: Celery, queue: str, job: str) -> None:
    """Hang a doorbell for `job` on `queue`. Where the server is away that is left to a worker's sweep."""
    try:
        app.send_task(TASKS[queue], args=[Doorbell(job=job).model_dump()], queue=queue)
    except (OperationalError, *SERVER_ERRORS) as err:
        logger.warning("cannot ring for job %s on %s, a sweep will: %s", job, queue, err)
