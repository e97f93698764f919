"""Which lines a worker serves: with real servers, in this process, with fake models."""

import gc
import weakref

import pytest

from tests.support.images import grey_png
from tests.support.line_workers import Gate
from tests.support.pushes import Pusher, wait_until_open, workers_of
from tests.support.server import wait_until
from workers.lines import consumer, link, sweeping
from workers.lines.sweeping import LineSweeper, _ServerSweep

pytestmark = pytest.mark.integration

LIGHT, DARK = grey_png(250), grey_png(5)


@pytest.fixture
def home(line_home):
    return line_home


def test_a_line_of_an_emptied_server_is_served_again(home, server):
    home.start("w1")
    sweeper = LineSweeper(home.settings)
    sweeper.start()
    post = home.create("post")
    assert post.ask("before", LIGHT).bin == "L1"

    server.empty()
    wait_until(lambda: post.store.epoch() is not None, what="the line is entered again")
    again = Pusher(post.store)

    assert again.ask("after", LIGHT).bin == "L1"
    sweeper.stop(wait_s=5)


def test_a_line_that_cannot_be_read_harms_no_other_and_is_reported(home, caplog):
    post = home.create("post", workers=0)
    broken = home.settings.home / "lines" / "broken" / "line.json"
    home.create("broken", workers=0)
    broken.write_text("{")
    home.client.hset("{pigeonhole}:lines", "malformed", b"[]")
    sweeper = LineSweeper(home.settings)
    sweeper.start()
    home.start("w1")

    wait_until_open(post.store)
    assert post.ask("a", LIGHT).bin == "L1"
    wait_until(lambda: "line broken" in caplog.text, what="the broken line is reported")
    sweeper.stop(wait_s=5)


def test_a_line_with_a_server_of_its_own_harms_no_other_while_that_is_frozen(home, own_server, monkeypatch):
    monkeypatch.setattr(sweeping, "SOCKET_TIMEOUT_S", 0.3)
    sweeper = LineSweeper(home.settings)
    sweeper.start()
    home.start("w1")
    post, own = home.create("post"), home.create("own", server=own_server.url)
    assert own.ask("a", LIGHT).bin == "L1"

    own_server.freeze()
    for number in range(30):
        assert post.ask(f"item-{number}", DARK).bin == "D"
    own_server.thaw()

    assert own.ask("b", LIGHT).bin == "L1"
    own_server.empty()
    wait_until(lambda: own.store.epoch() is not None, what="the line is entered again")
    assert Pusher(own.store).ask("c", DARK).bin == "D"
    sweeper.stop(wait_s=5)


def test_a_request_that_is_tried_alone_holds_up_no_other_line_when_its_server_goes_away(home, own_server):
    post, own = home.create("post", workers=0), home.create("own", workers=0, server=own_server.url)
    own.push("poison", LIGHT)
    assert len(own.store.take("dead", 1, 1, 1 << 20).held) == 1
    gate = Gate()
    home.predictor("tones@1").before = lambda brightness: gate() if 250 in brightness else None
    home.start("w1")
    assert gate.entered.wait(60)

    own_server.freeze()
    gate.open()

    assert post.ask("a", DARK).bin == "D"
    own_server.thaw()
    assert own.wait_for("poison")[0].bin == "L1"


def test_a_request_whose_answer_is_given_up_is_held_no_longer(home, own_server, monkeypatch):
    monkeypatch.setattr(link, "_ANSWER_AGAIN_S", -1e6)  # it is given up at once
    worker = home.start("w1")
    own = home.create("own", server=own_server.url)
    gate = Gate()
    home.predictor("tones@1").before = gate
    own.push("a", LIGHT)
    assert gate.entered.wait(60)

    own_server.freeze()
    gate.open()

    wait_until(lambda: not worker._links[own_server.url]._leases, what="it is given up")
    own_server.thaw()


def test_lines_that_are_removed_are_closed_and_others_are_opened_by_name(home):
    worker = home.start("w1", lines="post,parcels")
    post = home.create("post")
    home.create("other", workers=0)
    home.registry.remove("post")
    wait_until(lambda: not worker.lines, what="the line is closed")
    parcels = home.create("parcels")

    assert parcels.ask("a", LIGHT).bin == "L1"
    assert list(worker.lines) == ["parcels"]
    assert workers_of(post.store) == {}


def test_a_line_that_is_removed_is_not_entered_again_by_who_has_not_heard_of_it(home, own_server):
    own = home.create("own", server=own_server.url, workers=0)
    swept = _ServerSweep(own_server.url, lambda: None, home.registry.has)
    swept.lines = (home.registry.get("own"),)

    home.registry.remove("own")
    swept._check()

    assert own.store.client.keys() == []


def test_nothing_is_kept_in_memory_of_a_line_that_was_removed(home):
    worker = home.start("w1")
    sweeper = LineSweeper(home.settings)
    sweeper.start()
    home.create("post").ask("a", LIGHT)
    home.create("parcels").ask("a", LIGHT)
    [sweep] = sweeper._servers.values()
    wait_until(lambda: set(sweep._swept_s) == {"post", "parcels"}, what="both are swept")
    wait_until(lambda: "post" in worker._files._keeper._writers, what="its answer was looked at")
    store = weakref.ref(worker.lines["post"].store)  # as long as the worker has the line
    key = ("post", "tones")
    assert key in worker._loading

    home.registry.remove("post")
    wait_until(lambda: set(worker._files._archives) == {"parcels"}, what="the line is closed")
    wait_until(lambda: set(sweep._stores) == {"parcels"}, what="the sweep has heard")

    def is_gone() -> bool:
        gc.collect()
        return store() is None

    wait_until(is_gone, what="no thread has the line any more")
    assert set(sweep._swept_s) == {"parcels"}
    assert "post" not in worker._files._keeper._writers
    assert key not in worker._loading
    sweeper.stop(wait_s=5)


def test_a_running_worker_opens_a_line_at_its_next_look_after_it_was_created(home, monkeypatch):
    assert consumer.POLL_S <= 1.0  # the promise: within a second, and the time to load and warm the model
    monkeypatch.setattr(consumer, "READ_ALL_S", 1e9)  # it reads lines only where their version has changed
    worker = home.start("w1")
    assert home.create("first").ask("a", LIGHT).bin == "L1"

    later = home.create("later")

    assert later.ask("a", LIGHT).bin == "L1"
    assert set(worker.lines) == {"first", "later"}
