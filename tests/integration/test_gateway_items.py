"""Pushes over HTTP: every outcome with its status. A real server, and a worker that needs no model."""

from dataclasses import replace

import httpx2
import pytest

from tests.support.gateway import make_context, served
from tests.support.line_worker import UNANSWERED, LineWorker, enter_line, line_worker, make_line
from tests.support.server import running_server, wait_until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    (root / "1.jpg").write_bytes(b"an image")
    return root


@pytest.fixture(scope="module")
def real_server(_server_program):
    """A server that no other test empties."""
    with running_server() as server:
        yield server


@pytest.fixture(scope="module")
def gateway(real_server, root, tmp_path_factory):
    """A gateway with the lines `open`, with a worker, and `alone`, `small` and `paused`, without one."""
    for line in (
        make_line("open", roots=[str(root)], deadline_ms=20_000, max_image_bytes=1000),
        make_line("alone", deadline_ms=20_000),
        make_line("small", max_requests=1, deadline_ms=20_000),
        replace(make_line("paused"), paused=True),
    ):
        enter_line(real_server.url, line)
    with (
        served(make_context(tmp_path_factory.mktemp("home"), server_url=real_server.url, port=0)) as gateway,
        line_worker(real_server.url, "open"),
        httpx2.Client(base_url=gateway.url, timeout=60) as client,
    ):
        yield client


def push(gateway, path, body=b"an image", **options):
    return gateway.post(f"/v1/lines/{path}", content=body, **options)


def test_a_record_is_200_with_bin_and_reason(gateway):
    good, bad = push(gateway, "open/items?wait&item=a"), push(gateway, "open/items?wait&item=b", b"bad")

    assert (good.status_code, good.json()["bin"], good.json()["reason"]) == (200, "1", None)
    assert (bad.status_code, bad.json()["bin"], bad.json()["reason"]) == (200, "F", "unreadable")


def test_the_fallback_bin_at_the_deadline_is_200(gateway):
    answer = push(gateway, "alone/items?wait&deadline_ms=100")

    assert (answer.status_code, answer.json()["bin"]) == (200, "F")
    assert answer.json()["reason"] in UNANSWERED


def test_item_pass_and_deadline_come_as_headers_or_fields(gateway, root):
    headers = {"pigeonhole-item": "belt%2F%C3%A4", "pigeonhole-pass": "2", "pigeonhole-deadline-ms": "20000"}
    data = {"item": "form", "pass": "3", "wait": "1"}
    by_path = {"path": str(root / "1.jpg"), "item": "json", "pass": 4, "wait": True}

    answers = [
        push(gateway, "open/items?wait", headers=headers),
        gateway.post("/v1/lines/open/items", files={"image": b"an image"}, data=data),
        gateway.post("/v1/lines/open/items", json=by_path),
    ]

    assert [(each.json()["item"], each.json()["pass"]) for each in answers] == [("belt/ä", 2), ("form", 3), ("json", 4)]


def test_without_wait_202_says_where_the_answer_will_be(gateway, real_server):
    enter_line(real_server.url, make_line("later", deadline_ms=20_000))
    accepted = push(gateway, "later/items?item=a%2Fb&pass=2")
    place = accepted.headers["location"]
    waiting = gateway.get(place)

    worker = LineWorker(real_server.url, "later")
    worker.start()

    assert (accepted.status_code, place, waiting.status_code) == (202, "/v1/lines/later/items/a%2Fb?pass=2", 202)
    wait_until(lambda: gateway.get(place).status_code == 200, what="it is answered")
    worker.stop()
    assert (gateway.get(place).json()["item"], gateway.get(place).json()["bin"]) == ("a/b", "1")


def test_a_busy_line_is_429_at_once_unless_the_client_waits_and_what_waits_is_202(gateway):
    first = push(gateway, "small/items?item=a")
    waiting = gateway.get(first.headers["location"])
    refused = push(gateway, "small/items?wait&item=b")
    waited = push(gateway, "small/items?wait=deadline&item=c&deadline_ms=1000")

    assert (first.status_code, waiting.status_code, refused.status_code) == (202, 202, 429)
    assert (refused.headers["retry-after"], refused.json()["retry_after_ms"]) == ("1", 50)
    assert (waited.status_code, waited.json()["bin"], waited.json()["reason"]) == (200, "F", "busy")


def test_a_paused_line_is_503_at_once_unless_the_client_waits(gateway):
    refused = push(gateway, "paused/items?wait")
    waited = push(gateway, "paused/items?wait=deadline&deadline_ms=1000")

    assert (refused.status_code, refused.json()["type"]) == (503, "urn:pigeonhole:paused")
    assert int(refused.headers["retry-after"]) >= 1
    assert (waited.status_code, waited.json()["reason"]) == (200, "paused")


def test_the_same_item_with_other_bytes_is_409_with_the_first_answer(gateway):
    bodies = (b"one", b"one", b"two")

    _, again, other = [push(gateway, "open/items?wait&item=twice", body) for body in bodies]

    assert (again.status_code, other.status_code) == (200, 409)
    assert (other.json()["type"], other.json()["answer"]["bin"]) == ("urn:pigeonhole:conflict", "1")


def test_other_bytes_of_an_item_that_waits_are_never_202(gateway):
    first = push(gateway, "alone/items?item=other")
    second = push(gateway, "alone/items?item=other&deadline_ms=2000", b"other bytes")

    assert (first.status_code, second.status_code) == (202, 409)


def test_an_item_with_a_line_break_is_found_where_202_says(gateway):
    place = push(gateway, "alone/items?item=a%0Ab").headers["location"]

    assert gateway.get(place).status_code in (200, 202)


def test_an_unknown_line_or_item_is_404_and_names_the_lines(gateway):
    answers = [
        push(gateway, "none/items?wait"),
        gateway.get("/v1/lines/none"),
        gateway.get("/v1/lines/open/items/none"),
    ]

    assert [each.status_code for each in answers] == [404, 404, 404]
    assert "there are: alone" in answers[0].json()["detail"]


def test_a_line_that_is_made_while_the_gateway_runs_is_known(gateway, real_server):
    enter_line(real_server.url, make_line("new"))

    assert push(gateway, "new/items?wait&deadline_ms=50").status_code == 200


def test_bodies_that_are_too_large_compressed_or_no_push_are_refused(gateway):
    def chunks():
        for _ in range(100):
            yield b"x" * 100

    refused = [
        push(gateway, "open/items?wait", b"x" * 2000),
        push(gateway, "open/items?wait", chunks()),
        gateway.post("/v1/lines/open/items", files={"image": b"x" * 2000}),
        push(gateway, "open/items?wait", headers={"content-encoding": "gzip"}),
        push(gateway, "open/items", b"[" * 1000, headers={"content-type": "application/json"}),
        gateway.post("/v1/lines/open/items", json={"path": "/etc/passwd"}),
        push(gateway, "open/items?deadline=5"),
        push(gateway, "open/items", rb'{"path": "/\ud800.jpg"}', headers={"content-type": "application/json"}),
        gateway.put("/v1/lines/open/items"),
        gateway.get("/v2/models/m/infer"),
    ]

    assert [each.status_code for each in refused] == [413, 413, 413, 415, 400, 403, 400, 400, 405, 405]


def test_a_client_that_hangs_up_does_not_stop_its_items_record(gateway, real_server):
    enter_line(real_server.url, make_line("slow", deadline_ms=20_000))
    with pytest.raises(httpx2.ReadTimeout):
        push(gateway, "slow/items?wait&item=a", timeout=0.3)

    worker = LineWorker(real_server.url, "slow")
    worker.start()

    wait_until(lambda: gateway.get("/v1/lines/slow/items/a").status_code == 200, what="it is answered")
    worker.stop()


def test_a_batch_has_a_result_for_each_image(gateway, root):
    files = [("image", ("f", b"good")), ("image", ("g", b"bad")), ("image", ("h", b"x" * 2000))]
    paths = {"items": [{"path": f"{root}/1.jpg", "item": "d"}, {"path": "/etc/passwd"}]}

    uploaded = gateway.post("/v1/lines/open/batch?wait", files=files).json()["results"]
    listed = gateway.post("/v1/lines/open/batch?wait", json=paths).json()["results"]

    assert [each["status"] for each in uploaded] == [200, 200, 413]
    assert [(each["answer"]["item"], each["answer"]["bin"]) for each in uploaded[:2]] == [("f", "1"), ("g", "F")]
    assert [each["status"] for each in listed] == [200, 403]


def test_lines_their_counts_and_discharges_are_shown(gateway):
    push(gateway, "open/items?wait&item=gone")
    told = gateway.post("/v1/lines/open/discharged", json={"item": "gone", "bin": "7"})

    wait_until(lambda: gateway.get("/v1/lines/open").json()["state"] == "open", what="the worker has said so")
    lines = gateway.get("/v1/lines").json()
    shown = gateway.get("/v1/lines/open").json()
    stats = gateway.get("/v1/lines/open/stats?minutes=1").json()

    assert {each["line"] for each in lines} >= {"open", "alone", "small", "paused"}
    assert shown["settings"]["deadline_ms"] == 20_000
    assert stats["whole"]["answers"] > 0
    assert told.status_code == 202
    assert gateway.get("/v1/lines/open/items/gone").json()["discharged"] == "7"


def test_readiness_is_that_an_image_would_be_answered_in_time(gateway):
    def codes() -> dict[str, int]:
        paths = ("", "/lines/open", "/lines/alone", "/lines/paused", "/lines/none", "/models/none")
        return {path: gateway.get(f"/health/ready{path}").status_code for path in paths}

    def whys() -> list[str]:
        lines = gateway.get("/health/ready").json()["lines"]
        return [lines[name] for name in ("open", "alone", "paused")]

    expected = {
        "": 503, "/lines/open": 200, "/lines/alone": 503, "/lines/paused": 503, "/lines/none": 503, "/models/none": 503,
    }  # fmt: skip
    wait_until(lambda: codes() == expected, what="one line is ready")  # a busy machine's worker may be silent for long
    wait_until(lambda: whys() == ["ready", "opening", "paused"], what="the reasons are said")
