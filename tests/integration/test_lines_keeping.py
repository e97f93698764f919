"""What a line keeps, on a real server: counts, answers that move to files, images for review."""

import errno
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from orchestrator.contract.lines.answers import Verdict, decode_record, encode_facts, request_key
from orchestrator.contract.lines.archive import AnswerArchive, segment_names
from orchestrator.contract.lines.lookup import find_answer
from orchestrator.contract.lines.mover import AnswerMover, MoveBounds, find_record, restore_answer, stay_keeper
from orchestrator.contract.lines.registry import LineRegistry, answers_folder
from orchestrator.contract.lines.requests import Decided, GivenAnswer, Push
from orchestrator.contract.lines.settings import LineSettings
from orchestrator.contract.lines.stats import WorkerCounts, read_stats
from orchestrator.contract.lines.store import LineStore
from orchestrator.contract.server import connect_raw
from orchestrator.contract.settings import Settings
from tests.support.pushes import digit_png, open_line, registry_of
from tests.support.replies import Replies
from tests.support.server import Server, wait_until
from tests.support.workers import Cluster
from workers.lines.kept_images import KeptImage
from workers.lines.maintenance import LineMaintenance

pytestmark = pytest.mark.integration

SETTINGS = LineSettings(name="post", model="m@champion", fallback="F", review="R", bins={"cat": ("1",)})
LATE = Verdict("F", "late", "device")


@pytest.fixture
def registry(server: Server, settings: Settings) -> Iterator[LineRegistry]:
    client = connect_raw(server.url)
    yield LineRegistry(settings, client)
    client.close()


@pytest.fixture
def store(registry: LineRegistry) -> LineStore:
    """An open line without a worker."""
    return registry.store(registry.create(SETTINGS))


@pytest.fixture
def archive(registry: LineRegistry, store: LineStore) -> AnswerArchive:
    return AnswerArchive(answers_folder(registry.folder("post")))


def push(item: str, digest: str = "aa", remaining_ms: int = 60_000) -> Push:
    return Push(request_key(item, 1), digest, remaining_ms, 5, "image", b"image")


def answer_in_time(store: LineStore, item: str, bin_: str = "1") -> None:
    """Push an item, and answer it as a worker does."""
    store.admit([push(item)], "c1")
    key = request_key(item, 1)
    assert store.answer([GivenAnswer(key, Verdict(bin_), LATE, encode_facts(label="cat", score=0.9))]) == [True]


def test_counts_are_read_since_the_beginning_and_by_minute(store):
    answer_in_time(store, "a")
    store.settle([Decided("1/b", Verdict("F", "busy"), "bb")], "c")
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

    store.settle([Decided(f"1/{name}", Verdict("F", name, name), "bb") for name in names], "c")
    store.deliver([Decided(f"2/{name}", Verdict("F", name, name), "bb") for name in names])

    stats = read_stats(store)
    assert stats.outcomes == {"other": 6, "busy": 2}
    assert (stats.causes, stats.batches) == ({}, {})


FEW = MoveBounds(keep=2, move_from=4, grace_s=0)
NOW_MS = 0  # nothing is too old


def read_kept(folder: Path) -> list[KeptImage]:
    """All images of a line's folder that its indexes name."""
    indexes = sorted((folder / "images").glob("*/index-*.jsonl"))
    return [KeptImage.decode(line) for index in indexes for line in index.read_bytes().splitlines()]


def num_on_server(store: LineStore) -> int:
    return store.client.hlen(store.key("answers"))


def test_answers_beyond_a_number_move_to_files_and_are_found_also_after_the_server_was_emptied(
    registry, store, archive, server
):
    mover = AnswerMover(store, archive, FEW)
    for number in range(3):
        answer_in_time(store, f"i{number}", bin_=str(number))
    few = mover.move(NOW_MS)
    for number in range(3, 1203):
        answer_in_time(store, f"i{number}", bin_=str(number))

    moved = mover.move(NOW_MS)

    assert (few, moved, num_on_server(store), store.client.zcard(store.key("answered"))) == (0, 1201, 2, 2)
    assert [find_answer(registry, "post", f"i{number}").bin for number in (0, 600, 1202)] == ["0", "600", "1202"]
    server.empty()
    registry.refill()
    assert [find_answer(registry, "post", f"i{number}") is not None for number in (0, 1200, 1201)] == [
        True,
        True,
        False,
    ]
    assert find_answer(registry, "post", "never") is None


def test_answers_beyond_an_age_move_however_few_they_are(store, archive):
    mover = AnswerMover(store, archive, MoveBounds(grace_s=0))
    answer_in_time(store, "a")
    (_, answered_ms), *_ = store.client.zrange(store.key("answered"), 0, 0, withscores=True)

    assert mover.move(int(answered_ms) + 3_599_000) == 0
    assert mover.move(int(answered_ms) + 3_601_000) == 1
    assert decode_record(archive.find("1/a")).label == "cat"


def test_one_worker_keeps_a_line_until_it_has_not_done_so_for_a_while(store):
    def keepers() -> list[bool]:
        return [stay_keeper(store, worker) is not None for worker in ("w1", "w2", "w1")]

    before = keepers()
    left_ms = store.client.pttl(store.key("keeper"))
    store.client.delete(store.key("keeper"))  # w1 has died, and the time is over

    assert (before, 0 < left_ms <= 15_000) == ([True, False, True], True)
    assert stay_keeper(store, "w2") is not None
    assert stay_keeper(store, "w1") is None


def test_the_server_keeps_what_is_in_a_file_until_workers_have_seen_it(store, archive):
    for number in range(5):
        answer_in_time(store, f"i{number}")
    patient, hasty = (AnswerMover(store, archive, replace(FEW, grace_s=grace_s)) for grace_s in (3600, 0))

    assert (patient.move(NOW_MS), patient.move(NOW_MS), num_on_server(store)) == (0, 0, 5)
    assert len(segment_names(archive.folder)) == 1  # the second call writes nothing twice
    assert decode_record(archive.find("1/i0")).bin == "1"
    assert (hasty.move(NOW_MS), num_on_server(store)) == (3, 2)


def test_a_mover_that_dies_between_file_and_server_costs_and_doubles_nothing(store, archive):
    for number in range(5):
        answer_in_time(store, f"i{number}")
    AnswerMover(store, archive, FEW)._write(NOW_MS)  # and here it dies
    before = find_record(store, archive, "1/i0")

    moved = AnswerMover(store, archive, FEW).move(NOW_MS)

    assert (moved, num_on_server(store), len(segment_names(archive.folder))) == (3, 2, 2)
    assert before == find_record(store, archive, "1/i0") == archive.find("1/i0")


def test_where_an_item_went_is_told_before_and_after_its_answer_moved(registry, store, archive):
    for number in range(5):
        answer_in_time(store, f"i{number}")
    store.discharge("1/i0", "2")
    store.deliver([Decided("1/i0", Verdict("F", "no_server"), "aa")])
    before = find_answer(registry, "post", "i0")
    mover = AnswerMover(store, archive, FEW)
    mover.move(NOW_MS)
    moved = find_answer(registry, "post", "i0")
    store.discharge("1/i0", "3")
    store.discharge("1/i1", "1")
    reported_late = find_answer(registry, "post", "i0")
    mover._bounds = MoveBounds(most_discharges=1, grace_s=0)
    mover.move(NOW_MS)

    assert before == moved
    assert (moved.bin, moved.discharged, moved.delivered) == ("1", "2", "F")
    assert (reported_late.discharged, find_answer(registry, "post", "i0").discharged) == ("3", "3")
    assert [store.client.exists(store.key(name)) for name in ("discharged", "delivered", "late_discharged")] == [
        0,
        0,
        0,
    ]
    assert (read_stats(store).discharged, read_stats(store).discharged_elsewhere) == (3, 2)


def test_a_full_disk_counts_no_report_more_than_once(store, archive, monkeypatch):
    for number in range(5):
        answer_in_time(store, f"i{number}")
    mover = AnswerMover(store, archive, FEW)
    mover.move(NOW_MS)
    store.discharge("1/i0", "9")
    mover._bounds = MoveBounds(most_discharges=1, grace_s=0)

    with monkeypatch.context() as patch:
        patch.setattr("orchestrator.contract.lines.mover.write_segment", refuse)
        for _ in range(3):
            with pytest.raises(OSError, match="No space left"):
                mover.move(NOW_MS)
    mover.move(NOW_MS)

    assert read_stats(store).discharged_elsewhere == 1


def refuse(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_what_is_reported_while_an_answer_moves_stays_with_it(store, archive):
    for number in range(5):
        answer_in_time(store, f"i{number}")
    mover = AnswerMover(store, archive, FEW)
    mover._write(NOW_MS)
    store.discharge("1/i1", "9")

    assert mover._forget_written() == 2
    assert decode_record(find_record(store, archive, "1/i1")).discharged == "9"


def test_an_old_item_that_is_pushed_again_gets_its_archived_answer(store, archive):
    answer_in_time(store, "a", bin_="7")
    mover = AnswerMover(store, archive, MoveBounds(keep=0, move_from=1, grace_s=0))
    mover.move(NOW_MS)

    replies = {client: Replies(store, client) for client in ("same", "other")}
    verdicts = [
        store.admit([push("a")], "same")[0].verdict,
        store.admit([push("a", digest="cc")], "other")[0].verdict,
    ]
    restore_answer(store, "1/a", archive.find("1/a"))

    assert verdicts == ["admitted", "conflict"]
    assert (read_stats(store).waiting, read_stats(store).restored, read_stats(store).answers) == (0, 1, 1)
    for client in ("same", "other"):
        [(_, record)] = replies[client].read()
        assert (decode_record(record).bin, decode_record(record).reason) == ("7", None)
    assert store.admit([push("a")], "third")[0].verdict == "answered"


def test_other_bytes_under_an_archived_items_name_are_told_as_a_conflict(store, archive):
    answer_in_time(store, "a", bin_="7")
    AnswerMover(store, archive, MoveBounds(keep=0, move_from=1, grace_s=0)).move(NOW_MS)

    replies = Replies(store, "c2")
    store.admit([push("a", digest="cc")], "c2")
    restore_answer(store, "1/a", archive.find("1/a"))

    [(_, record)] = replies.read()
    assert (decode_record(record).bin, decode_record(record).reason) == ("7", "conflict")
    assert decode_record(store.record("1/a")).reason is None


def test_a_look_up_answers_what_is_late_and_needs_no_server_for_what_is_in_files(registry, store, archive, server):
    answer_in_time(store, "old")
    AnswerMover(store, archive, MoveBounds(keep=0, move_from=1, grace_s=0)).move(NOW_MS)
    store.admit([push("late", remaining_ms=1)], "c1")
    wait_until(lambda: find_answer(registry, "post", "late") is not None, what="the deadline is over")
    gone = LineRegistry(Settings(home=registry.folder("post").parents[1]), connect_raw("unix:///nowhere/s.sock"))

    assert find_answer(registry, "post", "late").reason == "no_worker"
    assert find_answer(gone, "post", "old").bin == "1"
    with pytest.raises(redis.ConnectionError):
        find_answer(gone, "post", "late")


def test_images_of_requests_that_no_worker_answered_are_kept_by_the_next_one(registry, store):
    store.admit([push("a", remaining_ms=1), push("b", digest="bb", remaining_ms=1)], "c1")
    wait_until(lambda: store.sweep(0) == 0 and num_on_server(store) == 2, what="both are late")
    folder = registry.folder("post")
    maintenance = LineMaintenance(store, folder, "w1")
    waiting = store.client.llen(store.key("unkept"))

    assert maintenance.run(registry.get("post").settings)

    kept = read_kept(folder)
    assert (waiting, store.client.llen(store.key("unkept"))) == (4, 0)
    assert store.client.hget(store.key("line"), "unkept_bytes") == b"0"
    assert {(each.reason, each.why, each.size) for each in kept} == {("no_worker", "fallback", 5)}
    assert sorted(each.item for each in kept) == ["a", "b"]


def test_a_line_that_is_made_again_has_its_own_key_where_the_same_worker_keeps_its_images(registry, store):
    def keep_one(item: str) -> None:
        store.admit([push(item, remaining_ms=1)], "c1")
        wait_until(lambda: store.sweep(0) == 0 and num_on_server(store) == 1, what="it is late")
        assert maintenance.run(registry.get("post").settings)

    folder = registry.folder("post")
    maintenance = LineMaintenance(store, folder, "w1")
    keep_one("a")
    before = (folder / "audit.key").read_bytes()
    registry.remove("post")
    registry.create(SETTINGS)

    keep_one("b")

    assert [each.item for each in read_kept(folder)] == ["b"]
    assert (folder / "audit.key").read_bytes() != before


def test_images_that_wait_for_a_worker_are_bounded_and_the_oldest_go_first(store):
    most = 64 << 20
    store.client.hset(store.key("line"), mapping={"unkept_bytes": most, "max_image_bytes": 2 * most})
    store.client.rpush(store.key("unkept"), "1/oldest", b"x" * 10, "1/next", b"y" * 10)
    for item, size in (("a", 8), ("large", most + 1)):
        store.admit([Push(request_key(item, 1), "aa", 60_000, size, "image", bytes(size))], "c1")
        store.client.hset(store.key(f"r:1/{item}"), "deadline", 1)
        store.settle([Decided(f"1/{item}", LATE, "aa")], "c")

    assert store.client.lrange(store.key("unkept"), 0, -1)[::2] == [b"1/next", b"1/a"]
    assert store.client.hget(store.key("line"), "unkept_bytes") == str(most - 2).encode()
    assert read_stats(store).images_not_kept == 2


def test_the_image_of_a_prediction_that_came_too_late_is_kept(store):
    store.admit([push("a")], "c1")
    store.take("w1", 1, 60_000, 1 << 20)
    store.client.hset(store.key("r:1/a"), "deadline", 1)  # it is over

    assert store.answer([GivenAnswer("1/a", Verdict("1"), LATE, "")]) == [False]
    assert store.client.lrange(store.key("unkept"), 0, -1) == [b"1/a", b"image"]


@pytest.mark.timeout(600)
def test_a_worker_answers_an_old_item_from_the_files_and_keeps_the_images_that_it_should(running_cluster: Cluster):
    pusher = open_line(running_cluster, "keeping", keep_share=0)
    registry = registry_of(running_cluster)
    folder, store = registry.folder("keeping"), pusher.store
    first = pusher.ask("old", digit_png(1))
    pusher.ask("bad", b"no image")
    mover = AnswerMover(store, AnswerArchive(answers_folder(folder)), MoveBounds(keep=0, move_from=1, grace_s=5))
    wait_until(lambda: mover.move(NOW_MS) > 0, what="the worker has had time to see the file")
    moved = store.record(request_key("old", 1))

    again = pusher.ask("old", digit_png(1))

    assert (moved, again) == (None, first)
    wait_until(lambda: read_kept(folder), what="the worker has kept an image")
    assert [(each.item, each.reason, each.why) for each in read_kept(folder)] == [("bad", "unreadable", "fallback")]


def test_what_a_foreign_client_has_left_stops_neither_moving_nor_keeping(registry, store, archive):
    junk, client = b"\xff no key", store.client
    client.zadd(store.key("answered"), {junk: 1, b"1/b": 2, b"1/c": 3})
    client.hset(store.key("answers"), mapping={junk: b"\xff", b"1/b": b'{"key":"1/b",\n', b"1/c": b'{"key":"1/c"}'})
    client.hset(store.key("discharged"), b"1/c", b"\xfe")
    client.hset(store.key("late_discharged"), junk, b"\xfe")
    client.rpush(store.key("unkept"), junk, b"image", b"1/c", b"image")
    answer_in_time(store, "good")
    maintenance = LineMaintenance(store, registry.folder("post"), "w1")

    maintenance.run(SETTINGS)
    AnswerMover(store, archive, MoveBounds(keep=0, move_from=1, most_discharges=1, grace_s=0)).move(NOW_MS)

    assert (num_on_server(store), client.llen(store.key("unkept"))) == (0, 0)
    assert client.hlen(store.key("late_discharged")) == 0
    assert [find_record(store, archive, key) is None for key in ("1/b", "1/c", "1/good")] == [True, True, False]


FILL = "for number = 1, ARGV[1] do redis.call(ARGV[2], KEYS[1], number, 'k' .. number) end"


def test_without_a_worker_the_server_keeps_a_bounded_number_of_answers(store):
    most = 250_000
    store.client.eval(FILL, 1, store.key("answered"), most, "ZADD")
    store.client.hset(store.key("answers"), "k1", "the oldest")

    answer_in_time(store, "new")

    assert (store.client.zcard(store.key("answered")), store.client.hkeys(store.key("answers"))) == (most, [b"1/new"])
    assert read_stats(store).answers_dropped == 1


def test_the_server_keeps_a_bounded_number_of_reports_about_items_that_it_does_not_know(store):
    most = 100_000
    store.client.eval(FILL, 1, store.key("late_discharged"), most, "HSET")

    store.discharge("1/unknown", "2")

    assert (store.client.hlen(store.key("late_discharged")), read_stats(store).discharges_dropped) == (most, 1)
