"""How a worker serves lines: with a real server, in this process, with fake models."""

import json
import os
import threading
from collections import Counter
from dataclasses import replace

import pytest

from modeling.names import path_to_text
from orchestrator.contract.lines.requests import ImagePath, Push
from tests.support.images import grey_png
from tests.support.line_workers import Gate, image_file
from tests.support.pushes import PATIENCE_MS, Pusher, wait_until_open, workers_of
from tests.support.server import wait_until
from workers.lines.loading import MODELS_KEPT, LineModels
from workers.lines.sweeping import LineSweeper

pytestmark = pytest.mark.integration

LIGHT, DARK = grey_png(250), grey_png(5)
JUNK = b"\xff\xd8 this is no image"


@pytest.fixture
def home(line_home):
    return line_home


def test_an_answer_has_the_bin_of_the_label_and_all_that_is_known(home):
    home.start("w1")
    post = home.create("post")

    answer = post.ask("a", LIGHT)

    assert (answer.bin, answer.reason, answer.label, answer.model, answer.map_version) == (
        "L1", None, "light", "tones@1", 1,
    )  # fmt: skip
    assert answer.scores[0] == ("light", answer.score)
    assert set(answer.stage_ms) == {"queue", "decode", "device"}


def test_an_unreadable_image_gets_its_own_answer_and_its_neighbours_theirs(home):
    home.start("w1")
    post = home.create("post")

    for number in range(20):
        post.push(f"good-{number}", LIGHT if number % 2 else DARK)
        post.push(f"bad-{number}", JUNK)

    good = post.wait_for(*(f"good-{number}" for number in range(20)))
    bad = post.wait_for(*(f"bad-{number}" for number in range(20)))
    assert [answer.bin for answer in good] == ["D", "L1"] * 10
    assert {(answer.bin, answer.reason, answer.label, bool(answer.error)) for answer in bad} == {
        ("F", "unreadable", None, True)
    }


def test_a_device_that_fails_is_reported_and_the_line_goes_on_when_it_works_again(home):
    def refuse(brightness):
        if 77 in brightness:
            raise RuntimeError("cannot take 77")

    home.start("w1")
    post = home.create("post")
    home.predictor("tones@1").before = refuse
    post.push("good", LIGHT)

    assert post.wait_for("good")[0].bin == "L1"
    post.push("poison", grey_png(77))
    wait_until(lambda: "cannot take 77" in facts_of(post)["trouble"], what="the trouble is reported")
    assert post.ask("another", DARK).bin == "D"


def facts_of(pusher: Pusher, worker: str = "w1"):
    """What a worker reports of a line, for people; `trouble` is text."""
    facts = json.loads(pusher.store.client.hget(pusher.store.key("workers"), worker))
    return facts | {"trouble": facts["trouble"] or ""}


def test_requests_of_a_dead_worker_are_answered_by_another_one_by_one(home):
    post = home.create("post", workers=0)
    for number in range(4):
        post.push(f"held-{number}", LIGHT)
    assert len(post.store.take("dead", 10, 50, 1 << 20).held) == 4
    beside = []
    home.predictor("tones@1").before = beside.append

    home.start("w1")

    answers = post.wait_for(*(f"held-{number}" for number in range(4)))
    assert [(answer.bin, answer.reason) for answer in answers] == [("L1", None)] * 4
    assert beside == [[250]] * 4


def test_what_killed_three_workers_is_crashed_and_what_was_held_beside_it_is_not(home):
    post = home.create("post", workers=0)
    post.push("poison", LIGHT)
    post.push("beside", DARK)
    for worker in ("dead-1", "dead-2"):
        wait_until(lambda: len(post.store.take(worker, 2, 1, 1 << 20).held) == 2, what="both are taken")  # noqa: B023
    gate = Gate()
    home.predictor("tones@1").before = lambda brightness: gate() if 250 in brightness else None
    dying = home.start("w1")
    wait_until_open(post.store)
    assert gate.entered.wait(60)
    for link in dying._links.values():  # it takes nothing, renews no lease and answers nothing, like a dead one
        link._stopping.set()
        link._stopped.set()
    home.start("w2")

    assert [(each.bin, each.reason) for each in post.wait_for("poison", "beside")] == [("F", "crashed"), ("D", None)]
    gate.open()


def test_a_moved_alias_and_a_full_bin_take_effect_while_images_come(home):
    home.publish("tones", seed=1)
    home.models.set_alias(home.models.resolve("tones@1"), "champion")
    home.start("w1")
    post = home.create("post", model="tones@champion")
    stopped = threading.Event()
    items = []

    def push_on():
        while not stopped.is_set():
            items.append(f"item-{len(items)}")
            post.push(items[-1], LIGHT)

    pushing = threading.Thread(target=push_on)
    pushing.start()
    try:
        other = Pusher(post.store)
        assert other.ask("before", LIGHT).model == "tones@1"
        for number in (2, 1, 2):
            home.models.set_alias(home.models.resolve(f"tones@{number}"), "champion")
            wait_until(lambda: facts_of(post)["model"] == f"tones@{number}", what="the alias is followed")  # noqa: B023
        home.registry.change("post", lambda line: replace(line, full=("L1",)))
        wait_until(lambda: home.consumers[0].lines["post"].line.full == ("L1",), what="the bin is full")
        after = other.ask("after", LIGHT)
    finally:
        stopped.set()
        pushing.join()

    assert (after.model, after.bin, after.reason, after.map_version) == ("tones@2", "L2", "next_bin", 2)
    answers = post.wait_for(*items)
    assert {answer.label for answer in answers} == {"light"}
    assert {answer.model for answer in answers} == {"tones@1", "tones@2"}
    assert {answer.reason for answer in answers} <= {None, "next_bin"}


def test_a_new_model_loads_beside_the_old_one_which_answers_meanwhile(home):
    gate = Gate()
    home.start("w1")
    post = home.create("post")
    home.loading = lambda version: gate() if version.version == 2 else None
    home.publish("tones", seed=1)
    assert gate.entered.wait(60)

    assert post.ask("meanwhile", LIGHT).model == "tones@1"
    gate.open()
    wait_until(lambda: facts_of(post)["model"] == "tones@2", what="the new model is used")
    assert post.ask("after", LIGHT).model == "tones@2"


def test_lines_of_more_models_than_are_kept_unused_load_each_of_them_once(home):
    loads = []
    home.loading = lambda version: loads.append(version.name)
    names = [f"tones-{number}" for number in range(MODELS_KEPT + 2)]
    home.start("w1")
    for name in names:
        home.publish(name)
        home.create(name, model=name)

    later = home.create("later")  # its opening takes several looks at all lines

    assert later.ask("a", LIGHT).model == "tones@1"
    assert Counter(loads) == dict.fromkeys([*names, "tones"], 1)


def test_of_the_models_that_no_line_uses_the_last_ones_stay_warm(home):
    models = LineModels(home.models, home._load)
    versions = [home.publish(f"tones-{number}") for number in range(MODELS_KEPT + 2)]
    loaded = [models.load(version) for version in versions]

    models.drop_unused(loaded[:1])

    assert [models.warm(version) for version in versions] == [loaded[0], None, *loaded[2:]]


def test_a_reference_that_points_nowhere_later_keeps_the_model_and_is_reported(home):
    home.models.set_alias(home.models.resolve("tones@1"), "champion")
    home.start("w1")
    post = home.create("post", model="tones@champion")
    home.models.drop_alias("tones", "champion")

    wait_until(lambda: "no alias 'champion'" in facts_of(post)["trouble"], what="the trouble is reported")
    assert post.ask("a", LIGHT).model == "tones@1"


def test_the_smaller_model_answers_what_was_admitted_for_it(home):
    home.publish("small")
    home.start("w1")
    post = home.create("post", degraded="small@1")
    wait_until(lambda: facts_of(post).get("degraded") == "small@1", what="the smaller model is loaded")
    post.store.report_capacity("w1", f"1 {2 * PATIENCE_MS} 1 1", {"state": "open", "trouble": None})

    answer = None
    for number in range(100):  # until a push comes before the worker reports again
        post.store.report_capacity("w1", f"1 {2 * PATIENCE_MS} 1 1", {"state": "open", "trouble": None})
        answer = post.ask(f"item-{number}", LIGHT)
        if answer.reason is not None:
            break

    assert (answer.reason, answer.bin, answer.model) == ("degraded", "L1", "small@1")


def test_the_sweep_answers_what_is_late_where_no_worker_is(home):
    sweeper = LineSweeper(home.settings)
    sweeper.start()
    post = home.create("post", workers=0, deadline_ms=50)

    post.push("a", LIGHT, deadline_ms=50)
    [answer] = post.wait_for("a")

    assert (answer.bin, answer.reason, answer.cause) == ("F", "no_worker", "queue")
    assert answer.answered_ms - answer.admitted_ms >= 50
    sweeper.stop(wait_s=5)


def test_a_worker_that_has_stopped_takes_nothing_more(home):
    worker = home.start("w1")
    post = home.create("post")
    assert post.ask("a", LIGHT).bin == "L1"

    worker.stop(wait_s=10.0)
    post.push("b", LIGHT)

    assert [held.key for held in post.store.take("w2", 10, 50, 1 << 20).held] == ["1/b"]


def test_a_worker_that_drains_answers_what_it_tries_and_hands_the_rest_back(home):
    draining = threading.Event()
    gate = Gate()
    consumer = home.start("w1", draining=draining.is_set)
    post = home.create("post")
    home.predictor("tones@1").before = gate
    for number in range(40):
        post.push(f"item-{number}", LIGHT)
    assert gate.entered.wait(60)

    draining.set()
    wait_until(consumer._stopped.is_set, what="it is noticed")
    gate.open()
    wait_until(lambda: workers_of(post.store) == {}, what="the worker leaves")

    client, key = post.store.client, post.store.key
    waiting = client.zcard(key("ready"))
    assert (client.zcard(key("leases")), client.zcard(key("deadlines"))) == (0, waiting)
    assert waiting > 0
    deliveries = {client.hget(key(f"r:{name.decode()}"), "deliveries") for name in client.zrange(key("ready"), 0, -1)}
    assert deliveries <= {None, b"0"}
    home.start("w2")
    assert len(post.wait_for(*(f"item-{number}" for number in range(40)))) == 40


def test_an_image_is_read_by_its_path_below_a_root_if_it_is_the_file_that_the_client_saw(home, tmp_path):
    inside = image_file(tmp_path / "belt", "a.png", LIGHT)
    outside = image_file(tmp_path / "secret", "b.png", LIGHT)
    changed = image_file(tmp_path / "belt", "c.png", LIGHT)
    link = tmp_path / "belt" / "link.png"
    link.symlink_to(outside)
    home.start("w1")
    post = home.create("post", roots=[str(tmp_path / "belt")])

    for item, path, later_ns in (("a", inside, 0), ("b", outside, 0), ("c", changed, 1), ("link", link, 0)):
        facts = path.stat()
        payload = ImagePath(str(path), facts.st_size, facts.st_mtime_ns + later_ns).encode()
        post.store.admit([Push(f"1/{item}", "d", PATIENCE_MS, facts.st_size, "path", payload)], post.client_id)
    os.utime(changed)

    answers = post.wait_for("a", "b", "c", "link")
    assert [(each.bin, each.reason) for each in answers] == [("L1", None), *[("F", "unreadable")] * 3]
    assert [each.error.partition(":")[0] for each in answers[1:]] == ["outside_root", "unreadable", "outside_root"]
    assert answers[3].error == f"outside_root: link.png leads out of the root {tmp_path / 'belt'}, by a link"


def test_a_folder_that_becomes_a_link_out_of_a_root_is_not_followed(home, tmp_path):
    image_file(tmp_path / "secret", "b.png", DARK)
    inside = image_file(tmp_path / "belt" / "today", "b.png", DARK)
    home.start("w1")
    post = home.create("post", roots=[str(tmp_path / "belt")])

    def ask_by_path(item):
        facts = inside.stat()
        payload = ImagePath(str(inside), facts.st_size, facts.st_mtime_ns).encode()
        post.store.admit([Push(f"1/{item}", "d", PATIENCE_MS, facts.st_size, "path", payload)], post.client_id)
        return post.wait_for(item)[0]

    before = ask_by_path("before")
    inside.unlink()
    inside.parent.rmdir()
    inside.parent.symlink_to(tmp_path / "secret")
    after = ask_by_path("after")

    assert (before.bin, after.bin, after.reason) == ("D", "F", "unreadable")
    assert (after.error or "").startswith("outside_root: today/b.png leads out")


def test_a_path_that_is_no_utf_8_and_leads_out_of_a_root_costs_its_neighbours_nothing(home, tmp_path):
    target = image_file(tmp_path / "secret", "b.png", LIGHT)
    link = image_file(tmp_path / "belt", "a.png", LIGHT).parent / os.fsdecode(b"x\xff.png")
    link.symlink_to(target)
    post = home.create("post", workers=0, roots=[str(tmp_path / "belt")])
    facts = link.stat()
    payload = ImagePath(path_to_text(str(link)), facts.st_size, facts.st_mtime_ns).encode()
    post.store.admit([Push("1/link", "d", PATIENCE_MS, facts.st_size, "path", payload)], post.client_id)
    post.push("bad", JUNK)

    home.start("w1")

    linked, bad = post.wait_for("link", "bad")
    assert linked.error == rf"outside_root: x\xff.png leads out of the root {tmp_path / 'belt'}, by a link"
    assert (linked.reason, bad.reason) == ("unreadable", "unreadable")


def test_what_cannot_be_predicted_in_time_is_answered_at_once_and_never_predicted(home):
    home.start("w1")
    post = home.create("post", deadline_ms=60_000)
    opened = home.consumers[0].lines["post"]
    for _ in range(50):
        opened.model.timings.add(1, 30_000.0)
    wait_until(lambda: opened.model.timings.expected_ms(1) > 20_000, what="the slow batches count")

    def admitted() -> bool:
        post.forget_capacity()  # until the worker says it again, admission takes everything
        return post.push("hopeless", LIGHT, deadline_ms=20_000).verdict == "admitted"

    wait_until(admitted, what="the push is before the next report")
    [answer] = post.wait_for("hopeless")

    assert (answer.bin, answer.reason, answer.cause, answer.label) == ("F", "late", "queue", None)
    assert answer.answered_ms - answer.admitted_ms < 20_000
    assert home.predictor("tones@1").batches == []


def test_counts_of_batches_and_waits_reach_the_server(home):
    home.start("w1")
    post = home.create("post")
    post.ask("a", LIGHT)

    def counted():
        counts = post.store.counts()
        return "batch:1" in counts and {name.partition(":")[0] for name in counts} >= {"queue", "decode", "device"}

    wait_until(counted, what="the counts are sent")


def test_an_image_in_the_review_or_fallback_bin_is_kept(home):
    home.start("w1")
    post = home.create("post")
    post.ask("bad", JUNK)

    images = home.settings.home / "lines" / "post" / "images"
    wait_until(lambda: any(images.rglob("*.image")), what="the image is kept")
    assert next(images.rglob("*.image")).read_bytes() == JUNK
