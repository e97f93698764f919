"""`pigeonhole telegrams` with a real server, a worker without a model, and controllers that are cut off."""

import asyncio
import contextlib
import json
import socket
import time

import pytest

from orchestrator.contract.lines.store import LineStore
from orchestrator.contract.server import connect_raw
from orchestrator.lines.client import LineClient
from orchestrator.stack.server import free_port
from orchestrator.telegrams.spool import Facts, Spool
from tests.support.line_worker import enter_line, line_worker, make_line
from tests.support.server import wait_until
from tests.support.telegram_controllers import Controller, TelegramProcess

pytestmark = pytest.mark.integration
NUM_ITEMS = 150


def say(port: int, telegram: dict) -> dict:
    """Send one telegram over a connection of its own; what comes back."""
    with socket.create_connection(("127.0.0.1", port), 30) as connection, connection.makefile("rb") as lines:
        connection.sendall(json.dumps(telegram).encode() + b"\n")
        return json.loads(lines.readline())


@pytest.fixture
def service(tmp_path, server):
    """A process at a free port, with a line and a worker."""
    enter_line(server.url, make_line(deadline_ms=60_000))
    environment = {"PIGEONHOLE_HOME": str(tmp_path / "home"), "PIGEONHOLE_SERVER_URL": server.url}
    port = free_port()
    service = TelegramProcess(["--line", "post", "--port", str(port)], environment, tmp_path / "log")
    with line_worker(server.url):
        yield service, port
    service.kill()


def test_none_is_lost_or_doubled_by_cuts_and_restarts(service, server, tmp_path):
    process, port = service
    controllers = [
        Controller(f"belt-{belt}", port, [(f"{belt}-{number}", b"image %d" % number) for number in range(NUM_ITEMS)],
                   cut=0.02, seed=belt)
        for belt in range(2)
    ]  # fmt: skip

    async def run():
        running = asyncio.gather(*(controller.run() for controller in controllers))
        for share in (0.3, 0.6):
            while sum(len(each.answers) for each in controllers) < share * 2 * NUM_ITEMS:
                await asyncio.sleep(0.02)
                if running.done():
                    break
            process.kill()
            process.start()
        async with asyncio.timeout(120):
            await running

    process.start()
    asyncio.run(run())
    assert say(port, {"type": "discharged", "seq": 1, "item": "0-0", "bin": "7"}) == {"type": "ack", "seq": 1}

    assert [controller.faults for controller in controllers] == [[], []]
    answered = {item: answer["bin"] for controller in controllers for item, answer in controller.answers.items()}
    assert answered == {item: "1" for controller in controllers for item, _ in controller.items}
    assert sum(controller.cuts for controller in controllers) > 2
    assert LineStore(connect_raw(server.url), "post").counts()["answers"] == 2 * NUM_ITEMS
    with LineClient("post", server.url) as client:
        found = client.answer("0-0")
    assert found is not None
    assert (found.bin, found.discharged) == ("1", "7")
    assert process.stop() == 0, (tmp_path / "log").read_text()
    left = [path.name for path in (tmp_path / "home" / "telegrams").rglob("*.*")]
    assert [name for name in left if not name.endswith(".answer")] == []
    assert len(left) <= len(controllers)  # the last acknowledgement of a controller may be cut off, too


def test_an_item_whose_deadline_ended_while_nobody_served_has_the_answer_of_the_line(service, server, tmp_path):
    process, port = service
    with LineClient("post", server.url) as client:
        assert client.push(b"image", "4711").bin == "1"
    spool = Spool(tmp_path / "home" / "telegrams" / f"post-{port}")
    for item in ("4711", "unknown"):
        spool.add(Facts("127.0.0.1", item, 1, "", time.time() - 1000, 1.0), b"image")
    spool.close()

    process.start()
    answers = {}
    wait_until(lambda: is_open(port), what="the port is open")
    with socket.create_connection(("127.0.0.1", port), 30) as connection, connection.makefile("rb") as lines:
        connection.sendall(b'{"type":"alive"}\n')
        while len(answers) < 2:
            telegram = json.loads(lines.readline())
            if telegram["type"] == "answer":
                answers[telegram["item"]] = (telegram["bin"], telegram.get("reason"))
                connection.sendall(b'{"type":"ack","seq":%d}\n' % telegram["seq"])

    assert answers == {"4711": ("1", None), "unknown": ("F", "late")}


def is_open(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
