"""The scripts of a line, one by one: what is admitted, who may end a request, and what is counted."""

import pytest

from orchestrator.contract.lines.answers import Verdict, decode_record
from orchestrator.contract.lines.requests import Admission, Decided, Push
from orchestrator.contract.lines.stats import read_stats
from orchestrator.contract.lines.store import LineStore
from tests.support.line_worker import enter_line, make_line
from tests.support.server import Server

pytestmark = pytest.mark.integration

LONG_MS = 3_000_000
IMAGE_S, LEAD_S = 100, 50  # so slow that the milliseconds between two calls of a test do not count
ALONE = Verdict("F", "no_server", "server")


@pytest.fixture
def slow(server: Server) -> LineStore:
    """A line without a smaller model, with one living worker that takes `IMAGE_S` an image and `LEAD_S` besides."""
    store = enter_line(server.url, make_line())
    store.run("capacity", ["w", LONG_MS, f"{IMAGE_S * 1000} {LEAD_S * 1000} 0 0", "{}"])
    return store


def push(store: LineStore, item: str, deadline_s: int) -> Admission:
    return store.admit([Push(f"1/{item}", "aa", deadline_s * 1000, 1, "image", b"x")], "c1")[0]


def ask(store: LineStore, deadline_s: int) -> Admission:
    """Whether the line would take a push now."""
    return store.admit([Push("1/asked", "aa", deadline_s * 1000, 1, "ask")], "c1")[0]


def test_what_the_workers_cannot_do_in_time_is_refused_with_the_time_to_come_again(slow: LineStore):
    taken = [push(slow, f"{number}", deadline_s=600).verdict for number in range(6)]

    refused, longer = push(slow, "late", deadline_s=600), ask(slow, deadline_s=700)

    assert taken == ["admitted"] * 6  # the sixth is done after 5 * 100 + 50 s
    assert (refused.verdict, longer.verdict) == ("busy", "welcome")
    assert refused.retry_ms == pytest.approx(50_000, abs=1)  # it would be done after 650 s
    assert slow.counts() == {"admitted": 6, "refused:busy": 1}


def test_a_push_with_less_time_goes_before_others_unless_they_would_be_late_by_it(slow: LineStore):
    push(slow, "first", deadline_s=240)
    before = ask(slow, deadline_s=150).verdict
    push(slow, "second", deadline_s=240)  # done after 150 s; after 250 s with another before it

    refused, later = ask(slow, deadline_s=150), ask(slow, deadline_s=300)

    assert (before, refused.verdict, later.verdict) == ("welcome", "busy", "welcome")
    assert refused.retry_ms >= 10_000


def test_who_pushes_other_bytes_ends_no_request_before_its_deadline(server: Server):
    store = enter_line(server.url, make_line())
    store.admit([Push("1/a", "aa", LONG_MS, 1, "image", b"x")], "c1")
    assert store.admit([Push("1/a", "bb", 100, 1, "image", b"y")], "c2")[0].verdict == "conflict"

    (record,) = store.settle([Decided("1/a", ALONE, "bb")], "c1")

    assert decode_record(record).reason == "no_server"
    assert store.record("1/a") is None
    assert [held.key for held in store.take("w1", 1, LONG_MS, 1 << 20).held] == ["1/a"]


def test_pushes_that_are_offered_together_are_bounded_as_those_that_come_one_by_one(server: Server):
    store = enter_line(server.url, make_line(max_requests=3, max_image_bytes=10))
    sizes = {"a": 1, "b": 11, "c": 2, "d": 3, "e": 4}
    pushes = [Push(f"1/{item}", "aa", LONG_MS, size, "image", b"x" * size) for item, size in sizes.items()]

    verdicts = [admission.verdict for admission in store.admit([*pushes, pushes[0]], "c1")]

    assert verdicts == ["admitted", "too_large", "admitted", "admitted", "busy", "in_flight"]
    assert [len(held.image) for held in store.take("w1", 9, LONG_MS, 1 << 20).held] == [1, 2, 3]
    assert store.client.hget(store.key("line"), "bytes") == b"6"
    assert store.counts() == {"admitted": 3, "refused:bound": 1}


def test_who_pushes_the_same_later_with_less_time_ends_no_request_before_its_deadline(server: Server):
    store = enter_line(server.url, make_line())
    store.admit([Push("1/a", "aa", LONG_MS, 1, "image", b"x")], "c1")
    assert store.admit([Push("1/a", "aa", 100, 1, "image", b"x")], "c2")[0].verdict == "in_flight"

    (record,) = store.settle([Decided("1/a", ALONE, "aa")], "c2")

    assert (decode_record(record).reason, store.record("1/a")) == ("no_server", None)
    assert store.settle([Decided("1/a", ALONE, "aa")], "c1") == [store.record("1/a")]


def test_causes_of_what_clients_decide_without_a_request_on_the_server_are_counted(server: Server):
    store = enter_line(server.url, make_line())
    settled = [Verdict("F", "paused", "paused"), Verdict("F", "busy", "queue"), Verdict("F", "late", "server")]
    unreadable = Verdict("F", "unreadable")

    store.settle([Decided(f"1/{number}", each, "aa") for number, each in enumerate([*settled, unreadable])], "c1")
    store.deliver([Decided("1/alone", ALONE, "aa")])
    store.deliver([Decided("1/alone", ALONE, "aa")])  # it has its record: counted once

    assert read_stats(store).causes == {"paused": 1, "queue": 1, "server": 2}


def test_a_report_that_is_repeated_is_counted_once(server: Server):
    store = enter_line(server.url, make_line())
    store.settle([Decided("1/a", Verdict("1"), "aa")], "c1")

    for _ in range(2):  # the second one, since a frozen server lost the first reply
        assert store.deliver([Decided("1/a", ALONE, "aa")]) == 1
        assert store.discharge("1/a", "9").item == "a"
        assert store.discharge("1/unknown", "9") is None
    store.discharge("1/a", "8")

    stats = read_stats(store)
    assert (stats.disagreements, stats.discharged, stats.discharged_elsewhere) == (1, 3, 2)
