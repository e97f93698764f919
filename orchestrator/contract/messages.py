"""The only message on a queue: a doorbell. It names a job that has work, and nothing else.

The job folder says what the work is, the ledger who does it. So a doorbell that is lost, late or duplicated does no
harm.
"""

import json
import re
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from modeling.durable import STRICT, complaint, decode_json
from orchestrator.contract.errors import MessageError, OtherVersionError

MESSAGE_VERSION = 1

JOB_ID = re.compile(r"[cte][0-9]{6}-[0-9]{6}-[0-9a-f]{6}")


class Versioned(BaseModel):
    """A frozen record with a version; other versions, other types and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, **STRICT)

    version: int = MESSAGE_VERSION

    @classmethod
    def parse(cls, record: Any, *, what: str) -> Self:
        """Read what was decoded from JSON already, called `what` in errors.

        Raises MessageError if it is of another version, or malformed.
        """
        try:
            data = json.dumps(record)  # pydantic is strict in another way with Python's objects
        except (RecursionError, TypeError, ValueError) as err:
            raise MessageError(f"{what} is malformed: {err}") from err
        return cls.parse_json(data, what=what)

    @classmethod
    def parse_json(cls, data: bytes | str, *, what: str) -> Self:
        """Read a JSON object, called `what` in errors.

        Raises MessageError if it is not JSON, of another version, or malformed.
        """
        record = decode_json(data, what, error=MessageError)
        version = record.get("version") if isinstance(record, dict) else None
        if version != MESSAGE_VERSION:
            kind = OtherVersionError if isinstance(version, int) else MessageError
            raise kind(
                f"{what} has version {version!r}, this Pigeonhole reads version {MESSAGE_VERSION}; "
                "run the same release on every machine"
            )
        try:
            return cls.model_validate_json(data)
        except ValidationError as err:
            raise MessageError(f"{what} is malformed: {complaint(err)}") from err

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Read the JSON file `path`; None where there is none.

        Raises MessageError if it is not JSON, of another version, or malformed.
        """
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        return cls.parse_json(data, what=str(path))


class Doorbell(Versioned):
    """There is work in job `job`."""

    job: str

    @field_validator("job")
    @classmethod
    def _is_job_id(cls, job: str) -> str:
        """Only a valid id may pass, because workers use it as a folder name."""
        if not JOB_ID.fullmatch(job):
            raise ValueError(f"{job!r} is not a job id")
        return job
