import json

import pytest
from celery import Celery
from pydantic import ValidationError

from orchestrator.contract.app import ring
from orchestrator.contract.errors import MessageError
from orchestrator.contract.messages import Doorbell

JOB = "c261123-143355-7f3a2b"


def test_a_doorbell_crosses_as_json():
    sent = json.loads(json.dumps(Doorbell(job=JOB).model_dump()))

    assert sent == {"version": 1, "job": JOB}
    assert Doorbell.parse(sent, what="a doorbell") == Doorbell(job=JOB)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_version_is_refused_with_what_to_do(version):
    with pytest.raises(MessageError) as refused:
        Doorbell.parse({"version": version, "job": JOB}, what="a doorbell on classify")

    assert str(refused.value) == (
        f"a doorbell on classify has version {version!r}, this Pigeonhole reads version 1; "
        "run the same release on every machine"
    )


@pytest.mark.parametrize("record", [None, [], "c261123-143355-7f3a2b", 1, {}, [{"version": 1}]])
def test_what_is_no_record_is_refused(record):
    with pytest.raises(MessageError, match="a doorbell has version None"):
        Doorbell.parse(record, what="a doorbell")


@pytest.mark.parametrize(
    "job",
    ["../../etc", "c261123-143355-7f3a2b/..", "c261123-143355-7f3a2b\n", "", "x261123-143355-7f3a2b", 5, None, [JOB],
     "c261123-143355-7F3A2B", "c２61123-143355-7f3a2b", JOB + "0", " " + JOB],
)  # fmt: skip
def test_only_a_job_id_may_become_a_folder_name(job):
    with pytest.raises(MessageError, match="a doorbell is malformed: job: "):
        Doorbell.parse({"version": 1, "job": job}, what="a doorbell")


def test_unknown_keys_are_refused():
    with pytest.raises(MessageError, match="a doorbell is malformed: shard: "):
        Doorbell.parse({"version": 1, "job": JOB, "shard": 3}, what="a doorbell")


def test_a_doorbell_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        Doorbell(job=JOB).job = "t261123-143355-7f3a2b"


def test_ringing_puts_a_doorbell_into_the_queue():
    app = Celery(broker="memory://", set_as_current=False)
    with app.connection_for_read() as connection, connection.SimpleQueue("classify") as queue:
        ring(app, "classify", JOB)

        message = queue.get(timeout=5)
    assert message.headers["task"] == "pigeonhole.classify"
    assert message.payload[:2] == [[{"version": 1, "job": JOB}], {}]
    assert message.content_type == "application/json"
