"""Which messages of the broker a worker takes, and what becomes of them: a stranger may have written any of them.

Nothing of a message reaches Celery. A valid doorbell is read, and Celery gets a message that is made anew from its
queue and its job; so no header, time limit, callback or compression of a stranger has an effect.
"""

import base64
import json
import uuid
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from modeling.durable import complaint
from orchestrator.contract.errors import MessageError
from orchestrator.contract.messages import Doorbell
from orchestrator.contract.queues import ALL_QUEUES, TASKS

MAX_BYTES = 16 << 10  # of a message; Celery writes a doorbell in about one kilobyte
REPLY_EXCHANGE = "reply.celery.pidbox"  # where a ping is answered

_Uuid = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")]


class _Record(BaseModel):
    """A record of which we read some keys."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


_R = TypeVar("_R", bound=_Record)


class _Headers(_Record):
    task: str | None = None
    compression: None = None  # nothing is inflated


class _Properties(_Record):
    body_encoding: Literal["base64"]


class _Envelope(_Record):
    body: str
    content_type: Literal["application/json"] = Field(alias="content-type")
    content_encoding: Literal["utf-8"] = Field(alias="content-encoding")
    headers: _Headers
    properties: _Properties


class _ReplyTo(_Record):
    exchange: Literal["reply.celery.pidbox"]
    routing_key: _Uuid


class _Ping(_Record):
    method: Literal["ping"]
    destination: list[str] | None = None
    ticket: _Uuid
    reply_to: _ReplyTo


def read_doorbell(queue: str, data: bytes) -> bytes:
    """The message that Celery gets for the doorbell `data` of `queue`.

    Raises MessageError where it is not a doorbell of this queue.
    """
    if queue not in ALL_QUEUES:
        raise MessageError("it is in no queue of ours")
    envelope = _envelope(data)
    if envelope.headers.task != TASKS[queue]:
        raise MessageError(f"its task is {envelope.headers.task!r}, not {TASKS[queue]!r}")
    match _decoded(envelope.body):
        case [[doorbell], {**keywords}, {**callbacks}] if not keywords and not any(callbacks.values()):
            return _doorbell(queue, Doorbell.parse(doorbell, what="it").job)
    raise MessageError("its arguments are not one doorbell")


def read_ping(data: bytes) -> bytes:
    """The message that Celery gets for a ping.

    Raises MessageError where it is another command, or is to be answered elsewhere.
    """
    ping = _validated(_Ping, _body(_envelope(data).body))
    return _message(ping.model_dump(), {"clock": 0}, {"delivery_info": {"exchange": "celery.pidbox"}})


def _envelope(data: bytes) -> _Envelope:
    if len(data) > MAX_BYTES:
        raise MessageError(f"it has {len(data):,} bytes, more than {MAX_BYTES:,}")
    return _validated(_Envelope, data)


def _validated(kind: type[_R], data: bytes) -> _R:
    try:
        return kind.model_validate_json(data)
    except ValidationError as err:
        raise MessageError(complaint(err)) from err


def _body(body: str) -> bytes:
    try:
        return base64.b64decode(body, validate=True)
    except ValueError as err:
        raise MessageError(f"its body is not base64: {err}") from err


def _decoded(body: str) -> Any:
    try:
        return json.loads(_body(body))
    except (ValueError, RecursionError) as err:
        raise MessageError(f"its body is not JSON: {err}") from err


def _doorbell(queue: str, job: str) -> bytes:
    """As Celery's protocol 2 has it."""
    task_id = str(uuid.uuid4())
    headers = {"lang": "py", "task": TASKS[queue], "id": task_id, "root_id": task_id, "argsrepr": job}
    properties = {"correlation_id": task_id, "delivery_info": {"exchange": "", "routing_key": queue}}
    return _message([[Doorbell(job=job).model_dump()], {}, {}], headers, properties)


def _message(body: Any, headers: dict[str, Any], properties: dict[str, Any]) -> bytes:
    envelope = {
        "body": base64.b64encode(json.dumps(body).encode()).decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": headers,
        "properties": properties | {"body_encoding": "base64", "delivery_tag": str(uuid.uuid4())},
    }
    return json.dumps(envelope).encode()
