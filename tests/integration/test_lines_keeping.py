"""What a line keeps, on a real server: counts, answers that move to files, images for review."""

from collections.abc import Iterator

import pytest

from orchestrator.contract.lines.answers import Verdict, encode_facts, request_key
from orchestrator.contract.lines.settings import Line, LineSettings
from orchestrator.contract.lines.stats import WorkerCounts, read_stats
from orchestrator.contract.lines.store import Decided, GivenAnswer, LineStore, Push
from orchestrator.contract.server import connect_raw
from tests.support.server import Server

pytestmark = pytest.mark.integration

SETTINGS = LineSettings(name="post", model="m@champion", fallback="F", review="R", bins={"cat": ("1",)})
LATE = Verdict("F", "late", "device")


@pytest.fixture
def store(server: Server) -> Iterator[LineStore]:
    """An open line without a worker."""
    client = connect_raw(server.url)
    store = LineStore(client, "post")
    store.enter(Line(SETTINGS))
    yield store
    client.close()


def push(item: str, digest: str = "aa", remaining_ms: int = 60_000) -> Push:
    return Push(request_key(item, 1), digest, remaining_ms, 5, "image", b"image")


def answer_in_time(store: LineStore, item: str, bin_: str = "1") -> None:
    """Push an item, and answer it as a worker does."""
    store.admit([push(item)], "c1")
    key = request_key(item, 1)
    assert store.answer([GivenAnswer(key, Verdict(bin_), LATE, encode_facts(label="cat", score=0.9))]) == [True]


def test_counts_are_read_since_the_beginning_and_by_minute(store):
    answer_in_time(store, "a")
    store.settle([Decided("1/b", Verdict("F", "busy"), "bb")])
    counts = WorkerCounts()
    counts.batch(1)
    counts.wait("device", 4.5)
    store.count(counts.take())

    stats = read_stats(store)

    assert (stats.admitted, stats.answers, stats.waiting) == (1, 2, 0)
    assert stats.outcomes == {"accept": 1, "busy": 1}
    assert stats.share("busy") == 0.5
    assert stats.latency.num == 1  # the server never had the other request
    assert stats.batches == {1: 1}
    assert stats.waits["device"].counts == ((5, 1),)
    assert read_stats(store, minutes=2).outcomes == stats.outcomes


def test_a_clients_own_words_make_no_field_of_the_counts(store):
    names = ["busy", "x" * 100, "a:b", "batch:7"]

    store.settle([Decided(f"1/{name}", Verdict("F", name), "bb") for name in names])
    store.deliver([Decided(f"2/{name}", Verdict("F", name), "bb") for name in names])

    assert read_stats(store).outcomes == {"other": 6, "busy": 2}
    assert read_stats(store).batches == {}
