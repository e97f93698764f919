"""What the limited user of one line can write costs no other line of its server anything (docs/security.md)."""

import pytest

from orchestrator.contract.lines.answers import Verdict, decode_record
from tests.support.images import grey_png
from tests.support.pushes import Pusher, workers_of
from tests.support.server import wait_until
from workers.device_gate import DeviceGate
from workers.lines.files import LineFiles
from workers.lines.link import ServerLink
from workers.lines.requests import Done, OpenLine, Request
from workers.lines.scheduler import Scheduler
from workers.lines.sweeping import LineSweeper

pytestmark = pytest.mark.integration

LIGHT, DARK = grey_png(250), grey_png(5)
LONG_MS = 3_000_000


@pytest.fixture
def home(line_home):
    return line_home


def write_wrong(line: Pusher, name: str) -> None:
    """Put text in the place of a key of another type."""
    line.store.client.delete(line.store.key(name))
    line.store.client.set(line.store.key(name), "x")


PATHS = [b"x", b"", b"[1]", b"[null, Infinity, 1]", b"[" * 100_000, b"\xff"]


def test_requests_that_nobody_can_read_are_answered_once_and_others_as_ever(home, caplog):
    belt, post = home.create("belt", workers=0), home.create("post", workers=0)
    pushed = [("path", path, LONG_MS, 0) for path in PATHS]
    pushed += [("image", "", LONG_MS, 0), ("odd", "", LONG_MS, 0), ("path", PATHS[0], "inf", 0)]
    some = b'["/a", 1, 1]'
    pushed += [("path", some, LONG_MS, "soon"), ("path", some, LONG_MS, "9" * 400), ("path", some, "1e300", 0)]
    for number, (kind, path, remaining_ms, tried) in enumerate(pushed):
        belt.store.client.set(belt.store.key(f"i:aa:1/{number}"), LIGHT)
        belt.store.run("admit", ["c", f"1/{number}", "aa", remaining_ms, 1, kind, path, tried])
        belt.store.client.delete(belt.store.key(f"i:aa:1/{number}"))
    belt.store.run("admit", ["c", b"1/\xff", "aa", LONG_MS, 1, "path", b"[]", 0])
    belt.push("good", LIGHT)
    post.push("good", DARK)

    home.start("w1")

    assert post.wait_for("good")[0].bin == "D"
    assert belt.wait_for("good")[0].bin == "L1"
    wait_until(lambda: belt.store.client.zcard(belt.store.key("deadlines")) == 0, what="all are answered")
    answers = [decode_record(belt.store.record(f"1/{number}") or b"") for number in range(len(pushed))]
    assert {(answer.bin, answer.reason, bool(answer.error)) for answer in answers} == {("F", "unreadable", True)}
    assert f"line belt: {len(pushed) + 1} requests cannot be read" in caplog.text


@pytest.mark.parametrize("name", ["wake", "ready", "leases", "capacity", "workers"])
def test_a_key_of_another_type_stops_its_own_line_only(home, name, caplog):
    home.start("w1")
    belt, post = home.create("belt"), home.create("post")

    write_wrong(belt, name)
    post.forget_capacity()
    wait_until(lambda: "w1" in workers_of(post.store), what="the worker reports the other line")

    for number in range(5):
        assert post.ask(f"item-{number}", DARK).bin == "D"
    assert all(message.startswith("line belt: ") for message in caplog.messages)
    if name != "wake":  # that one was deleted
        belt.store.client.delete(belt.store.key(name))
    wait_until(lambda: "w1" in workers_of(belt.store), what="the worker reports the line again")
    assert belt.ask("a", LIGHT).bin == "L1"


def test_one_answer_that_cannot_be_sent_costs_its_neighbours_nothing(home):
    post = home.create("post", workers=0)
    for item in ("a", "bad", "b"):
        post.push(item, LIGHT)
    files = LineFiles(home.settings.home / "lines")
    link = ServerLink(home.settings.require_server_url(), "w1", Scheduler(1, lambda late: None), files, DeviceGate(1))
    line = OpenLine(home.registry.get("post"), post.store, link.url)
    taken = post.store.take("w1", 3, 60_000, 1 << 20)
    rests = {"1/a": "", "1/bad": "\udcff", "1/b": ""}

    link._send(
        [
            Done(Request(held, line, 1e9, 0.0, 0.0), Verdict("L1"), Verdict("F", "late"), rests[held.key])
            for held in taken.held
        ]
    )

    assert [answer.bin for answer in post.wait_for("a", "b")] == ["L1", "L1"]
    assert post.store.record("1/bad") is None
    files.close(wait_s=5)


@pytest.mark.parametrize("name", ["line", "deadlines"])
def test_what_is_late_on_other_lines_is_answered(home, name):
    belt, post = home.create("belt", workers=0), home.create("post", workers=0)
    write_wrong(belt, name)
    sweeper = LineSweeper(home.settings)
    sweeper.start()

    post.push("a", LIGHT, deadline_ms=50)

    assert post.wait_for("a")[0].reason == "no_worker"
    sweeper.stop(wait_s=5)


def test_a_line_whose_state_cannot_be_read_keeps_no_worker_from_draining(home):
    worker = home.start("w1")
    belt, post = home.create("belt"), home.create("post")

    write_wrong(belt, "capacity")

    assert worker._others_serve(worker.lines["belt"])
    assert not worker._others_serve(worker.lines["post"])
    assert post.ask("a", LIGHT).bin == "L1"
