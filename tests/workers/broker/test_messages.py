"""What a worker takes from the broker."""

import base64
import json
from typing import Any

import pytest
from celery import Celery

from orchestrator.contract.app import ring
from orchestrator.contract.errors import MessageError
from orchestrator.contract.queues import ALL_QUEUES, CLASSIFY, TASKS
from tests.support.strangers import JOB, TASK_ID, envelope, forged, published, refused, remote_commands
from workers.broker.messages import MAX_BYTES, read_doorbell, read_ping

PING = {
    "method": "ping",
    "arguments": {},
    "destination": ["w@host"],
    "ticket": TASK_ID,
    "reply_to": {"exchange": "reply.celery.pidbox", "routing_key": TASK_ID},
}


def body(message: bytes) -> Any:
    return json.loads(base64.b64decode(json.loads(message)["body"]))


@pytest.mark.parametrize("queue", ALL_QUEUES)
def test_a_doorbell_that_was_rung_is_taken(queue: str):
    app = Celery(broker="memory://", set_as_current=False)
    with app.connection_for_read() as connection, connection.SimpleQueue(queue) as waiting:
        ring(app, queue, JOB)
        rung = waiting.get(timeout=5)
    written = {
        "body": base64.b64encode(rung.body if isinstance(rung.body, bytes) else rung.body.encode()).decode(),
        "content-encoding": rung.content_encoding,
        "content-type": rung.content_type,
        "headers": rung.headers,
        "properties": rung.properties | {"body_encoding": "base64"},
    }
    data = json.dumps(written).encode()

    message = read_doorbell(queue, data)

    assert body(message) == [[{"version": 1, "job": JOB}], {}, {}]
    assert json.loads(message)["headers"]["task"] == TASKS[queue]
    assert len(data) < MAX_BYTES / 8


@pytest.mark.parametrize(("wrong", "data"), refused(CLASSIFY), ids=[name for name, _ in refused(CLASSIFY)])
def test_what_is_no_doorbell_is_refused_in_a_line(wrong: str, data: bytes):
    with pytest.raises(MessageError) as err:
        read_doorbell(CLASSIFY, data)

    assert 0 < len(str(err.value)) < 1000, wrong
    assert "\n" not in str(err.value)


@pytest.mark.parametrize(("added", "data"), forged(CLASSIFY), ids=[name for name, _ in forged(CLASSIFY)])
def test_nothing_of_a_doorbell_is_passed_on_but_its_job(added: str, data: bytes):
    message, plain = (
        json.loads(read_doorbell(CLASSIFY, raw)) for raw in (data, json.dumps(envelope(CLASSIFY)).encode())
    )

    assert (
        message["headers"].pop("id") == message["headers"].pop("root_id") == message["properties"].pop("correlation_id")
    )
    assert len(message["properties"].pop("delivery_tag")) == 36
    for key in ("id", "root_id"):
        del plain["headers"][key]
    for key in ("delivery_tag", "correlation_id"):
        del plain["properties"][key]
    assert message == plain, added


def test_a_doorbell_in_the_queue_of_another_task_is_refused():
    with pytest.raises(MessageError, match=r"its task is 'pigeonhole\.train'"):
        read_doorbell(CLASSIFY, json.dumps(envelope("train")).encode())
    with pytest.raises(MessageError, match="no queue of ours"):
        read_doorbell("celery", json.dumps(envelope(CLASSIFY)).encode())


def test_a_ping_is_taken_with_what_is_needed_to_answer_it():
    assert body(read_ping(published(PING | {"stranger": 1, "pattern": "*"}))) == {
        key: PING[key] for key in ("method", "destination", "ticket", "reply_to")
    }


@pytest.mark.parametrize(("command", "data"), remote_commands(), ids=[name for name, _ in remote_commands()])
def test_every_other_command_of_the_remote_control_is_refused(command: str, data: bytes):
    with pytest.raises(MessageError):
        read_ping(data)


@pytest.mark.parametrize("changed", [{"ticket": "x"}, {"ticket": TASK_ID + "\n"}, {"destination": [1]},
                                     {"reply_to": {"exchange": "", "routing_key": "classify"}}])  # fmt: skip
def test_a_ping_is_answered_nowhere_but_to_who_asked(changed: dict[str, Any]):
    with pytest.raises(MessageError):
        read_ping(published(PING | changed))
