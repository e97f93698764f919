"""Clients of a line on a real server, with a worker that has no model: whatever happens, one answer for every push."""

import asyncio
import dataclasses
import time

import pytest

from orchestrator.contract.errors import NotFoundError, UnavailableError
from orchestrator.contract.lines.answers import Verdict, decode_record, encode_facts, request_key
from orchestrator.contract.lines.requests import GivenAnswer, Held, Push
from orchestrator.contract.lines.store import LineStore
from orchestrator.contract.server import connect_raw
from orchestrator.lines import AsyncLineClient, LineClient
from tests.support.line_worker import LATE, UNANSWERED, answer_one, enter_line, line_worker, make_line
from tests.support.server import Server, wait_until

pytestmark = pytest.mark.integration
GENEROUS_MS = 5_000  # of a machine that is busy with other tests; the promise is 20 ms after the deadline
CONNECTING_S = 2.0  # a deadline that a busy machine's first push keeps: before a client is connected, it decides alone


def record_of(store: LineStore, item: str, pass_: int = 1):
    record = store.record(request_key(item, pass_))
    return decode_record(record) if record else None


def _named(prefix: str, images: list[bytes]) -> list[tuple[bytes, str]]:
    return [(image, f"{prefix} {number}") for number, image in enumerate(images)]


def _size(held: Held) -> GivenAnswer:
    """An answer whose label is the size of the image."""
    facts = encode_facts(label=str(len(held.image)), score=0.9, model="m@1", map_version=1)
    return GivenAnswer(held.key, Verdict("1"), LATE, facts)


def test_pushes_get_their_answers_in_the_order_given(server: Server):
    store = enter_line(server.url, make_line())

    with LineClient("post", server.url) as client, line_worker(server.url) as worker:
        answers = client.push_many([(f"image {n}".encode(), f"item {n}") for n in range(200)], deadline=60)

    assert [(answer.item, answer.pass_, answer.bin, answer.reason, answer.label) for answer in answers] == [
        (f"item {n}", 1, "1", None, "a") for n in range(200)
    ]
    assert len(worker.taken) == 200
    assert record_of(store, "item 7") is not None


def test_asyncio_has_the_same(server: Server):
    enter_line(server.url, make_line())

    async def push() -> list[str | None]:
        async with AsyncLineClient("post", server.url) as client:
            answers = await client.push_many([(b"image", f"{n}") for n in range(20)], deadline=60)
            again = await client.push(b"image", "7", deadline=60)
            await client.discharged("7", 1, "2")
            found = await client.answer("7")
        assert found is not None
        assert [answer.item for answer in answers] == [str(n) for n in range(20)]
        return [again.bin, found.bin, again.reason]

    with line_worker(server.url):
        assert asyncio.run(push()) == ["1", "1", None]


def test_images_larger_than_a_socket_takes_at_once_are_sent_whole(server: Server):
    images = [bytes([number]) * (3 << 20) for number in range(4)]
    enter_line(server.url, make_line())

    async def push() -> list[str | None]:
        async with AsyncLineClient("post", server.url) as client:
            return [answer.label for answer in await client.push_many(_named("loop", images), deadline=60)]

    with line_worker(server.url, answer=_size) as worker, LineClient("post", server.url) as client:
        answers = client.push_many(_named("thread", images), deadline=60)
        labels = [*asyncio.run(push()), *(answer.label for answer in answers)]

    assert labels == [str(len(image)) for image in images] * 2
    assert len(worker.taken) == 8


def test_a_client_that_an_event_loop_drives_is_used_from_threads_too(server: Server):
    enter_line(server.url, make_line())

    async def push() -> list[str | None]:
        client = LineClient("post", server.url, loop=asyncio.get_running_loop())
        here = client.submit(b"image", "1", deadline=60)
        there = await asyncio.to_thread(client.submit, b"image", "2", deadline=60)
        answers = [await asyncio.wrap_future(future) for future in (here, there)]
        await asyncio.to_thread(client.close)
        return [answer.bin for answer in answers]

    with line_worker(server.url):
        assert asyncio.run(push()) == ["1", "1"]


def test_bytes_that_are_no_image_are_answered_and_so_is_no_image(server: Server):
    store = enter_line(server.url, make_line(max_image_bytes=100))

    with LineClient("post", server.url) as client, line_worker(server.url):
        answers = client.push_many(
            [(b"bad", "1"), (b"", "2"), (None, "3"), (bytes(101), "4"), (b"good", "5")], deadline=60
        )

    assert [(answer.bin, answer.reason) for answer in answers] == [("F", "unreadable")] * 4 + [("1", None)]
    assert answers[3].error == "the image has 101 bytes; the line takes 100 at most"
    assert record_of(store, "4").error == answers[3].error


def test_the_same_item_with_other_bytes_gets_the_first_answer(server: Server):
    store = enter_line(server.url, make_line(deadline_ms=60_000))

    with LineClient("post", server.url) as one, LineClient("post", server.url) as other:
        first, same, conflict = one.submit(b"a", "x"), one.submit(b"a", "x"), one.submit(b"b", "x")
        wait_until(lambda: store.counts().get("admitted"), what="the first is admitted")
        elsewhere = other.submit(b"b", "x")
        with line_worker(server.url):
            answers = [future.result() for future in (first, same, conflict, elsewhere)]
            later = other.push(b"c", "x")
            another_pass = other.push(b"c", "x", 2)

    assert [answer.reason for answer in answers] == [None, None, "conflict", "conflict"]
    assert {answer.bin for answer in (*answers, later)} == {"1"}
    assert (later.reason, another_pass.reason) == ("conflict", None)


def test_without_a_worker_the_deadline_decides_and_record_and_decision_agree(server: Server):
    store = enter_line(server.url, make_line())

    with LineClient("post", server.url) as client:
        answer = client.push(b"image", "x", deadline=CONNECTING_S)

    assert (answer.bin, answer.reason in UNANSWERED) == ("F", True)
    assert CONNECTING_S * 1000 <= answer.ms < GENEROUS_MS
    wait_until(lambda: record_of(store, "x"), what="the decision is in the record")
    record = record_of(store, "x")
    assert (record.bin, record.reason in UNANSWERED) == ("F", True)


def test_a_push_that_was_late_before_it_began_is_decided_at_once(server: Server):
    store = enter_line(server.url, make_line())

    with LineClient("post", server.url) as client:
        answer = client.push(b"image", "x", deadline=1000, triggered_at=time.time() - 3000)

    assert (answer.bin, answer.reason) == ("F", "late")
    wait_until(lambda: record_of(store, "x"), what="the decision is reported")
    assert record_of(store, "x").reason == "late"
    assert store.counts().get("admitted") is None


@pytest.mark.parametrize("ahead_s", [5 * 3600, -5 * 3600])
def test_a_clients_clock_may_be_wrong_by_hours(server: Server, monkeypatch, ahead_s: int):
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + ahead_s)
    enter_line(server.url, make_line())
    given_ms: list[int] = []

    def answer(held: Held) -> GivenAnswer:
        given_ms.append(held.deadline_ms - held.admitted_ms)
        return answer_one(held)

    with LineClient("post", server.url) as client:
        nobody = client.push(b"image", "early", deadline=CONNECTING_S)
        with line_worker(server.url, answer=answer):
            plain = client.push(b"image", "plain", deadline=60)
            triggered = client.push(b"image", "triggered", deadline=60, triggered_at=time.time() - 20)

    assert nobody.reason in UNANSWERED
    assert (plain.reason, triggered.reason) == (None, None)
    assert 0 < given_ms[0] <= 60_000
    assert 0 < given_ms[1] <= 40_000
    assert abs(plain.admitted_ms / 1000 - right()) < 3600  # times of a record are the server's


def test_an_unknown_line_is_an_error_that_names_the_others(server: Server):
    enter_line(server.url, make_line("parcels"))

    with LineClient("post", server.url, deadline=60, fallback="F") as client:
        with pytest.raises(NotFoundError, match=r"no line 'post' at .*; there are: parcels"):
            client.push(b"image", "x")
        enter_line(server.url, make_line())
        with line_worker(server.url):
            assert client.push(b"image", "y").bin == "1"


def test_without_a_server_a_client_decides_alone_and_reports_when_there_is_one(own_server: Server):
    own_server.kill()
    with LineClient("post", own_server.url, deadline=0.1, fallback="G") as client:
        alone = client.push(b"image", "x")
        own_server.start()
        store = enter_line(own_server.url, make_line())
        wait_until(lambda: record_of(store, "x"), what="the decision is reported")
        with line_worker(own_server.url):
            after = client.push(b"image", "y", deadline=60)

    assert (alone.bin, alone.reason, alone.cause) == ("G", "no_server", "server")
    assert (after.bin, after.reason) == ("1", None)
    assert record_of(store, "x").bin == "G"
    assert [store.counts()[name] for name in ("delivered_alone", "cause:server")] == [1, 1]


def test_without_a_server_and_a_deadline_nothing_can_be_decided(tmp_path):
    with (
        LineClient("post", f"unix://{tmp_path}/none", fallback="F") as client,
        pytest.raises(UnavailableError, match="with deadline= and fallback= a client decides alone"),
    ):
        client.push(b"image", "x")


@pytest.mark.parametrize("fault", ["killed", "frozen"])
def test_a_dead_server_costs_no_decision(own_server: Server, fault: str):
    store = enter_line(own_server.url, make_line())
    with LineClient("post", own_server.url) as client:
        with line_worker(own_server.url):
            before = client.push(b"image", "before", deadline=60)
            if fault == "killed":
                own_server.kill()
            else:
                own_server.freeze()
            during = client.push_many([(b"image", f"during {n}") for n in range(50)], deadline=0.3)
            if fault == "killed":
                own_server.start()
            else:
                own_server.thaw()
            after = client.push(b"image", "after", deadline=60)
        wait_until(lambda: store.counts().get("delivered_alone") == 50, what="all decisions are reported")

    assert (before.reason, after.reason) == (None, None)
    assert {(answer.bin, answer.reason) for answer in during} == {("F", "no_server")}
    assert max(answer.ms for answer in during) < GENEROUS_MS


def test_what_an_emptied_server_lost_is_pushed_again(own_server: Server):
    line = make_line(deadline_ms=60_000)
    enter_line(own_server.url, line)
    with LineClient("post", own_server.url) as client:
        futures = [client.submit(b"image", f"{n}") for n in range(20)]
        store = LineStore(connect_raw(own_server.url), "post")
        wait_until(lambda: store.counts().get("admitted") == 20, what="all are admitted")

        own_server.empty()
        enter_line(own_server.url, line)
        with line_worker(own_server.url):
            answers = [future.result() for future in futures]

    assert {(answer.bin, answer.reason) for answer in answers} == {("1", None)}


def test_a_restarted_server_has_or_gets_what_waited(own_server: Server):
    store = enter_line(own_server.url, make_line(deadline_ms=60_000))
    with LineClient("post", own_server.url) as client:
        futures = [client.submit(b"image", f"{n}") for n in range(20)]
        wait_until(lambda: store.counts().get("admitted") == 20, what="all are admitted")
        own_server.kill()
        own_server.start()
        enter_line(own_server.url, make_line(deadline_ms=60_000))
        with line_worker(own_server.url):
            answers = [future.result() for future in futures]

    assert {(answer.bin, answer.reason) for answer in answers} == {("1", None)}


@pytest.mark.parametrize(
    ("paused", "most", "reason", "cause"), [(True, 1000, "paused", "paused"), (False, 1, "busy", "queue")]
)
def test_a_refusal_becomes_the_answer_at_the_deadline(server: Server, paused: bool, most: int, reason: str, cause: str):
    line = dataclasses.replace(make_line(max_requests=most), paused=paused)
    store = enter_line(server.url, line)
    with LineClient("post", server.url) as client:
        waiting = client.submit(b"image", "waits", deadline=60)
        wait_until(store.counts, what="the line has taken or refused it")
        refused = client.push(b"image", "refused", deadline=CONNECTING_S)
        store.enter(make_line())
        with line_worker(server.url):
            first = waiting.result()

    assert (refused.bin, refused.reason, refused.cause) == ("F", reason, cause)
    assert record_of(store, "refused").reason == reason
    assert store.counts()[f"cause:{cause}"] == 1
    assert first.reason is None


def test_paths_travel_below_the_roots_of_the_line(server: Server, tmp_path):
    (tmp_path / "image").write_bytes(b"image")
    enter_line(server.url, make_line(roots=[str(tmp_path)]))

    with LineClient("post", server.url) as client, line_worker(server.url):
        answer = client.push(tmp_path / "image", "x", by_path=True, deadline=60)
        with pytest.raises(ValueError, match="lies under no root of line 'post'"):
            client.push(tmp_path / ".." / "image", "y", by_path=True)
        absent = client.push(tmp_path / "absent", "z", by_path=True)

    assert (answer.bin, absent.reason) == ("1", "unreadable")


def test_answers_of_a_client_that_vanished_are_kept(server: Server):
    store = enter_line(server.url, make_line())
    store.admit([Push("1/x", "ab", 60_000, 5, "image", b"image")], "vanished")

    with line_worker(server.url):
        wait_until(lambda: record_of(store, "x"), what="it is answered")

    with LineClient("post", server.url) as other:
        assert other.answer("x").bin == "1"
        assert other.answer("y") is None


def test_a_server_without_room_is_busy(own_server: Server):
    store = enter_line(own_server.url, make_line())
    with LineClient("post", own_server.url) as client, line_worker(own_server.url):
        client.push(b"image", "before", deadline=60)
        own_server._client.config_set("maxmemory", 1)
        full = client.push(b"image", "full", deadline=CONNECTING_S)
        own_server._client.config_set("maxmemory", 0)
        after = client.push(b"image", "after", deadline=60)

    assert (full.bin, full.reason, after.reason) == ("F", "busy", None)
    assert record_of(store, "full").reason == "busy"


def test_a_line_may_have_a_server_of_its_own(server: Server, own_server: Server):
    line = make_line(server=own_server.url)
    enter_line(server.url, line)
    enter_line(own_server.url, line)

    with LineClient("post", server.url) as client, line_worker(own_server.url):
        assert client.push(b"image", "x", deadline=60).reason is None


def test_a_closed_client_takes_nothing_more(server: Server):
    enter_line(server.url, make_line())
    client = LineClient("post", server.url)
    client.close()

    with pytest.raises(RuntimeError, match="closed"):
        client.push(b"image", "x")
