"""Clients without a server: what they do alone."""

import asyncio
import gc
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.contract.errors import UsageError
from orchestrator.lines import AsyncLineClient, LineClient

ROOT = Path(__file__).resolve().parents[3]
NOWHERE = "unix:///nowhere/s.sock"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"line": "Not A Name"}, UsageError),
        ({"url": "http://server"}, UsageError),
        ({"deadline": 0}, ValueError),
        ({"deadline": 4000}, ValueError),
        ({"fallback": ""}, ValueError),
    ],
)
def test_arguments_that_cannot_be_used_are_refused_before_anything_is_pushed(arguments, error):
    with pytest.raises(error):
        LineClient(**{"line": "post", "url": NOWHERE} | arguments)


def test_the_server_is_the_one_of_the_environment(monkeypatch):
    monkeypatch.setenv("PIGEONHOLE_SERVER_URL", NOWHERE)

    with LineClient("post", deadline=0.01, fallback="F") as client:
        assert client._core.server.url == NOWHERE


def test_every_push_is_decided_without_a_server():
    with LineClient("post", NOWHERE, deadline=0.05, fallback="F") as client:
        answers = client.push_many([(b"image", "1"), (b"", "2"), (b"image", "3")])
        client.discharged("1", 1, "9")

    assert [(answer.item, answer.bin, answer.reason) for answer in answers] == [
        ("1", "F", "no_server"), ("2", "F", "unreadable"), ("3", "F", "no_server"),
    ]  # fmt: skip


def test_a_wall_clock_that_is_wrong_by_hours_changes_nothing(monkeypatch):
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() - 5 * 3600)

    with LineClient("post", NOWHERE, fallback="F") as client:
        late = client.push(b"image", "1", deadline=60, triggered_at=time.time() - 61)
        answer = client.push(b"image", "2", deadline=1, triggered_at=time.time() - 0.1)

    assert (late.reason, answer.reason) == ("late", "no_server")
    assert late.ms < 50_000


def test_a_future_of_a_client_that_is_gone_is_decided():
    future = LineClient("post", NOWHERE, deadline=0.1, fallback="F").submit(b"image", "1")
    gc.collect()

    assert future.result(30).reason == "no_server"


def test_an_exception_in_the_block_does_not_wait_for_deadlines():
    client = LineClient("post", NOWHERE, fallback="F")
    futures = []

    def fail() -> None:
        with client:
            futures.append(client.submit(b"image", "1", deadline=10))
            raise KeyError

    with pytest.raises(KeyError):
        fail()

    assert not futures[0].done()
    with pytest.raises(RuntimeError, match="closed"):
        client.push(b"image", "2")


def test_a_cancelled_task_leaves_its_push_and_others_alone():
    async def push() -> list[str | None]:
        async with AsyncLineClient("post", NOWHERE, deadline=0.2, fallback="F") as client:
            cancelled = asyncio.create_task(client.push(b"image", "1"))
            other = asyncio.create_task(client.push(b"image", "2"))
            await asyncio.sleep(0)
            cancelled.cancel()
            again = await client.push(b"image", "1")
            return [again.reason, (await other).reason, str(cancelled.cancelled())]

    assert asyncio.run(push()) == ["no_server", "no_server", "True"]


def test_a_forked_child_is_told_to_make_its_own_client():
    code = (
        "import gc, os\n"
        "from orchestrator.lines import LineClient\n"
        f"client = LineClient('post', {NOWHERE!r}, deadline=0.05, fallback='F')\n"
        "if os.fork() == 0:\n"
        "    try:\n"
        "        client.push(b'image', 'x')\n"
        "    except RuntimeError as err:\n"
        "        print(err, flush=True)\n"
        "    client.close()\n"
        "    del client\n"
        "    gc.collect()\n"
        "    with LineClient('post', deadline=0.05, fallback='F') as own:\n"
        "        print(own.push(b'image', 'x').reason, flush=True)\n"
        "    os._exit(0)\n"
        "os.wait()"
    )

    environment = os.environ | {"PIGEONHOLE_SERVER_URL": NOWHERE}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)

    assert done.stdout.splitlines() == [
        "this client belongs to the process that forked; make one in this process", "no_server",
    ], done.stderr  # fmt: skip


@pytest.mark.parametrize("make", [LineClient, AsyncLineClient])
def test_a_client_that_is_given_up_may_wait_until_the_server_has_its_reports(make):
    waited, client = [], make("post", NOWHERE, fallback="F")
    client._core._exchange.reports.wait = waited.append
    before = time.monotonic()

    done = client.wait_for_reports(5)
    if done is not None:
        asyncio.run(done)
    client.abandon()

    assert len(waited) == 1
    assert before + 5 <= waited[0] <= time.monotonic() + 5
