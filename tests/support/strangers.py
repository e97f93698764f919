"""Messages that strangers put on a queue: nothing of them may have an effect but a line in the log."""

import base64
import json
import zlib
from functools import cache
from typing import Any

from orchestrator.contract.queues import TASKS

JOB = "c261123-143355-7f3a2b"
TASK_ID = "00000000-0000-0000-0000-000000000001"


def encoded(body: Any) -> str:
    """A body as Celery sends it."""
    return base64.b64encode(json.dumps(body).encode()).decode()


def envelope(queue: str, body: Any = None, **changes: Any) -> dict[str, Any]:
    """A message as Celery writes it, with these changes; `headers` and `properties` are changed key by key."""
    properties = {
        "body_encoding": "base64",
        "correlation_id": TASK_ID,
        "delivery_info": {"exchange": "", "routing_key": queue},
        "delivery_mode": 2,
        "delivery_tag": TASK_ID,
        "priority": 0,
    }
    message = {
        "body": encoded([[{"version": 1, "job": JOB}], {}, {}] if body is None else body),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": TASKS[queue], "id": TASK_ID, "retries": 0, "timelimit": [None, None]},
        "properties": properties,
    }
    for part in ("headers", "properties"):
        change = changes.pop(part, {})
        message[part] = {**message[part], **change} if isinstance(change, dict) else change  # type: ignore[dict-item]
    return message | changes


@cache
def _inflating() -> str:
    """A body of 400 MB, compressed."""
    return base64.b64encode(zlib.compress(bytes(400 << 20), 1)).decode()


def refused(queue: str) -> list[tuple[str, bytes]]:
    """Messages that are no doorbells, each with what is wrong with it."""
    doorbell = {"version": 1, "job": JOB}
    written: dict[str, bytes] = {
        "empty": b"",
        "no JSON": b"hello {",
        "no UTF-8": b"\xff\xfe\x00",
        "list": b"[]",
        "null": b"null",
        "number": b"1e999",
        "deep JSON": b"[" * 8000 + b"]" * 8000,
        "deep JSON, long": b"[" * 200_000,
        "oversized": b'{"body": "' + b"A" * (8 << 20) + b'"}',
    }
    made: dict[str, Any] = {
        "an empty object": {},
        "body is no base64": envelope(queue, body="***"),
        "body is a number": {**envelope(queue), "body": 1},
        "body is no JSON": {**envelope(queue), "body": base64.b64encode(b"{").decode()},
        "body is deep": {**envelope(queue), "body": base64.b64encode(b"[" * 5000).decode()},
        "body is null": envelope(queue, [None]),
        "no argument": envelope(queue, [[], {}, {}]),
        "two arguments": envelope(queue, [[doorbell, doorbell], {}, {}]),
        "keywords": envelope(queue, [[doorbell], {"message": 1}, {}]),
        "a callback": envelope(queue, [[doorbell], {}, {"callbacks": [{"task": "pigeonhole.train", "args": []}]}]),
        "argument is no doorbell": envelope(queue, [["../../etc"], {}, {}]),
        "job is a path": envelope(queue, [[{"version": 1, "job": "../../etc"}], {}, {}]),
        "another version": envelope(queue, [[{"version": 2, "job": JOB}], {}, {}]),
        "no task": envelope(queue, headers={"task": None}),
        "task is a list": envelope(queue, headers={"task": []}),
        "task does not exist": envelope(queue, headers={"task": "celery.backend_cleanup"}),
        "headers are a list": envelope(queue, headers=[]),
        "headers are null": envelope(queue, headers=None),
        "properties are a text": envelope(queue, properties="x"),
        "compressed": {**envelope(queue, headers={"compression": "application/x-gzip"}), "body": _inflating()},
        "short and compressed": envelope(queue, headers={"compression": "application/x-gzip"}),
        "pickled": envelope(queue, **{"content-type": "application/x-python-serialize"}),
        "content type is a number": envelope(queue, **{"content-type": 5}),
        "encoding is unknown": envelope(queue, **{"content-encoding": "rot13"}),
        "body encoding is unknown": envelope(queue, properties={"body_encoding": "x"}),
        "protocol 1": {
            **envelope(queue),
            "headers": {},
            "body": encoded({"task": TASKS[queue], "id": TASK_ID, "args": [doorbell], "kwargs": {}}),
        },
    }
    return [*written.items(), *((name, json.dumps(message).encode()) for name, message in made.items())]


def forged(queue: str) -> list[tuple[str, bytes]]:
    """Doorbells with something added that would change what Celery does; a plain doorbell is taken from them."""
    changes: dict[str, dict[str, Any]] = {
        "id": {"headers": {"id": {"a": []}}},
        "time limit": {"headers": {"timelimit": "soon"}},
        "time limits": {"headers": {"timelimit": [0.001, 0.001]}},
        "retries": {"headers": {"retries": "many"}},
        "time of start": {"headers": {"eta": "9999-12-31T23:59:59"}},
        "time of expiry": {"headers": {"expires": 7}},
        "name": {"headers": {"shadow": ["x"]}},
        "answer": {"properties": {"reply_to": "classify", "correlation_id": 3}},
        "delivery tag": {"properties": {"delivery_tag": ["x"]}},
        "no delivery tag": {"properties": {"delivery_tag": None}},
        "route": {"properties": {"delivery_info": {"exchange": 5, "routing_key": None}}},
        "no route": {"properties": {"delivery_info": None}},
        "priority": {"properties": {"priority": "high"}},
        "stamps": {"headers": {"stamps": {"x": 1}, "stamped_headers": 4}},
    }
    return [(name, json.dumps(envelope(queue, **change)).encode()) for name, change in changes.items()]


def remote_commands() -> list[tuple[str, bytes]]:
    """What a stranger publishes on the channel of Celery's remote control."""
    commands: dict[str, dict[str, Any]] = {
        "shutdown": {},
        "pool_restart": {},
        "pool_grow": {"n": 50},
        "pool_shrink": {"n": 1},
        "cancel_consumer": {"queue": "classify"},
        "add_consumer": {"queue": "evil"},
        "rate_limit": {"task_name": TASKS["classify"], "rate_limit": "1/h"},
        "time_limit": {"task_name": TASKS["classify"], "soft": 1, "hard": 1},
        "revoke": {"task_id": TASK_ID, "terminate": True},
        "conf": {},
        "no such thing": {},
    }
    reply_to = {"exchange": "", "routing_key": "classify"}
    return [
        *((name, published({"method": name, "arguments": given})) for name, given in commands.items()),
        ("ping to another queue", published({"method": "ping", "reply_to": reply_to, "ticket": TASK_ID})),
        ("ping to nobody", published({"method": "ping", "destination": 5})),
        ("a list", published([1])),
        ("no JSON", b"hello"),
        ("null", b"null"),
        ("deep", b"[" * 100_000),
        ("oversized", b'"' + b"a" * (8 << 20) + b'"'),
    ]


def published(body: Any) -> bytes:
    """A message of the remote control."""
    message = envelope("classify")
    return json.dumps(message | {"body": encoded(body), "headers": {"clock": 1, "expires": 0}}).encode()
