import os
import time
from concurrent.futures import Future

import pytest

from modeling.names import path_to_text
from orchestrator.contract.errors import PushRefusedError, UnavailableError
from orchestrator.contract.lines.requests import Decided
from orchestrator.lines import pushes as module
from orchestrator.lines.pushes import Pushes
from orchestrator.lines.request import PushOptions, PushRequest, make_request
from tests.support.fake_line import record_of
from tests.support.line_worker import make_line
from tests.support.server import wait_until


def request_of(image: bytes = b"image", item: str = "x", **options) -> PushRequest:
    return make_request(image, item, 1, PushOptions(**options), Future())


def record(request: PushRequest) -> bytes:
    return record_of(Decided(request.key, None, request.digest), bin_="1", reason="next_bin")


@pytest.fixture
def pushes() -> Pushes:
    """Of a client that has seen the line."""
    made = Pushes("post", None, None)
    made.saw(make_line(deadline_ms=500, max_image_bytes=100))
    return made


def test_only_the_first_push_of_an_item_is_sent_and_others_of_other_bytes_conflict(pushes):
    first, same, other = request_of(), request_of(), request_of(b"other")

    sent = [pushes.add(request) for request in (first, same, other)]
    pushes.resolve(first.key, record(first))

    assert sent == [True, False, False]
    assert [request.future.result().reason for request in (first, same, other)] == ["next_bin", "next_bin", "conflict"]
    assert len(pushes) == 0


def test_a_push_is_decided_once(pushes):
    request = request_of()
    pushes.add(request)

    pushes.decide_alone(request)
    pushes.resolve(request.key, record(request))
    pushes.decide_alone(request)

    assert request.future.result().reason == "no_server"
    assert [decided.verdict.reason for decided in pushes.alone] == ["no_server"]


def test_without_any_fallback_bin_a_push_ends_with_an_error_and_no_record_without_a_bin_is_reported():
    made = Pushes("post", 0.001, None)
    readable, unreadable = request_of(), request_of(b"", item="y")
    for request in (readable, unreadable):
        made.add(request)
        made.decide_alone(request)

    for request in (readable, unreadable):
        with pytest.raises(UnavailableError, match="the server said nothing of the line before the deadline"):
            request.future.result(timeout=0)
    assert not made.alone
    assert len(made) == 0


def test_the_deadline_is_the_pushs_own_then_the_clients_then_the_lines():
    line = make_line(deadline_ms=500)
    dues = []
    for client, own in [(None, None), (2.0, None), (2.0, 3.0)]:
        made = Pushes("post", client, None)
        made.saw(line)
        made.add(request := request_of(deadline=own))
        dues.append(request.due - request.called)

    assert dues == pytest.approx([0.5, 2.0, 3.0])


def test_a_deadline_of_the_line_is_known_when_the_line_is():
    pushes = Pushes("post", None, None)
    pushes.add(request := request_of(triggered_at=time.time() - 0.1))
    before = request.due

    known = pushes.saw(make_line(deadline_ms=60_000))

    assert (before, known) == (None, [request])
    assert request.due - request.called == pytest.approx(60 - request.age_s)


def test_what_the_trigger_made_late_is_not_sent(pushes):
    pushes.add(request := request_of(triggered_at=time.time() - 10))

    assert (request.due, request.reason, request.unsendable) == (request.called, "late", True)


def test_an_image_above_the_limit_is_not_sent(pushes):
    pushes.add(request := request_of(bytes(101)))
    pushes.decide_alone(request)

    answer = request.future.result()
    assert (answer.bin, answer.reason) == ("F", "unreadable")
    assert answer.error == "the image has 101 bytes; the line takes 100 at most"


def test_a_path_outside_the_roots_fails_also_when_the_line_becomes_known_later(tmp_path):
    (tmp_path / "image").write_bytes(b"image")
    pushes = Pushes("post", None, None)
    pushes.add(request := make_request(tmp_path / "image", "x", 1, PushOptions(by_path=True), Future()))

    pushes.saw(make_line(roots=["/elsewhere"]))

    with pytest.raises(ValueError, match="lies under no root"):
        request.future.result(0)


def test_a_client_holds_a_bounded_number_of_bytes(pushes, monkeypatch):
    monkeypatch.setattr(module, "MOST_HELD_BYTES", 10)
    pushes.add(first := request_of(b"six 66", "1"))
    pushes.add(second := request_of(b"six 66", "2"))
    pushes.resolve(first.key, record(first))
    pushes.add(third := request_of(b"six 66", "3"))

    assert [request.unsendable for request in (first, second, third)] == [False, True, False]
    assert second.reason == "busy"
    with pytest.raises(PushRefusedError, match="busy"):
        pushes.add(request_of(b"six 66", "4", retry=False))


def test_without_a_line_the_clients_fallback_counts_and_then_the_lines():
    pushes = Pushes("post", 1.0, "G")
    pushes.add(first := request_of(item="1"))
    pushes.decide_alone(first)
    pushes.saw(make_line())
    pushes.add(second := request_of(item="2"))
    pushes.decide_alone(second)

    assert [request.future.result().bin for request in (first, second)] == ["G", "F"]


def test_a_record_that_cannot_be_read_is_no_answer(pushes):
    pushes.add(request := request_of())

    pushes.resolve(request.key, b'{"key": "1/x", "bin": 7}')

    answer = request.future.result()
    assert (answer.bin, answer.reason) == ("F", "no_server")
    assert "the record of an answer" in answer.error


def test_an_error_ends_all_pushes_of_an_item(pushes):
    pushes.add(first := request_of())
    pushes.add(second := request_of())

    pushes.fail([first], UnavailableError("away"))

    for request in (first, second):
        with pytest.raises(UnavailableError, match="away"):
            request.future.result(0)


def test_a_root_whose_name_is_not_utf8_holds_its_images(tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    (folder / "image").write_bytes(b"image")
    pushes = Pushes("post", None, None)
    pushes.saw(make_line(roots=[path_to_text(str(folder))]))

    assert pushes.add(make_request(folder / "image", "x", 1, PushOptions(by_path=True), Future()))


def test_images_that_were_dropped_before_their_decision_take_no_room_afterwards(pushes, monkeypatch):
    monkeypatch.setattr(module, "MOST_HELD_BYTES", 10)
    first, other = request_of(b"12345"), request_of(b"other", deadline=0.001)
    for request in (first, other):
        pushes.add(request)
    wait_until(lambda: time.monotonic() > other.due, what="its deadline is over")
    assert pushes.decide_before_others(other)
    first.refuse("unreadable", "the line takes less")  # as the server may say
    pushes.decide_alone(first)

    room = request_of(b"1234567890", item="y")
    pushes.add(room)

    assert (room.reason, room.payload) == (None, b"1234567890")


def test_a_second_push_of_an_item_ends_with_an_error_where_no_bin_is_known():
    made = Pushes("post", None, None)
    first, second = request_of(deadline=60), request_of(deadline=0.001)
    for request in (first, second):
        made.add(request)

    assert made.decide_before_others(second)

    with pytest.raises(UnavailableError, match="no bin is known"):
        second.future.result(timeout=0)
