"""Which request is decoded next, and which batch is predicted next, by a clock that only the test moves."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pytest

from modeling.images.preprocessing import Preprocessing
from orchestrator.contract.lines.requests import Held
from orchestrator.contract.lines.settings import Line, LineSettings
from tests.support.server import wait_until
from workers.lines.model import LineModel
from workers.lines.requests import OpenLine, Request
from workers.lines.scheduler import UNFAIR_S, Scheduler

PIXELS = np.zeros((1, 1, 1), np.uint8)


@dataclass
class FakePredictor:
    """Batches of 1, 2 and 4 that take 10 ms an image."""

    num_streams: int = 1
    preprocessing: Preprocessing = Preprocessing("L", 1, 1)  # noqa: RUF009 frozen
    sizes: tuple[int, ...] = (1, 2, 4)
    alone_streams: int = 1
    alone_ms: float = 10.0
    batch_ms: dict[int, float] = field(default_factory=lambda: {1: 10.0, 2: 20.0, 4: 40.0})


class Desk:
    """A scheduler, its lines, and what it found late."""

    def __init__(self) -> None:
        self.now = 0.0
        self.late: list[tuple[str, str]] = []
        self.scheduler = Scheduler(1, self._note_late, clock=lambda: self.now)
        self._numbers = itertools.count()

    def line(self, name: str, **predictor: object) -> OpenLine:
        settings = LineSettings(name, "m@champion", "F", "R", deadline_ms=500)  # batches of 62.5 ms at most
        opened = OpenLine(Line(settings), None, "redis://s", LineModel("m@1", FakePredictor(**predictor)))
        for _ in range(3):
            opened.answer.add(1.0)
        return opened

    def push(self, line: OpenLine, *names: str, due: float = 9.0, degraded: bool = False) -> list[Request]:
        requests = [
            Request(Held(name, 0, 0, 1, degraded), line, deadline_s=due, taken_s=self.now, waited_ms=0.0)
            for name in names
        ]
        self.scheduler.add(requests)
        return requests

    def decode(self) -> list[str]:
        """Decode all that is there; returns the keys in order."""
        keys = []
        while (request := self.scheduler.next_to_decode(0.0)) is not None:
            keys.append(request.key)
            request.pixels = PIXELS
            self.scheduler.decoded(request)
        return keys

    def predict(self, seconds: float = 0.0) -> list[str]:
        """Predict one batch, which takes so long; returns its keys."""
        batch = self.scheduler.next_batch()
        if batch is None:
            return []
        self.now += seconds
        self.scheduler.finished(batch, seconds)
        return [request.key for request in batch.requests]

    def _note_late(self, late) -> None:
        self.late += [(request.key, cause) for request, cause in late]


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_the_earliest_deadline_goes_first_over_all_lines(desk):
    post, parcels = desk.line("post"), desk.line("parcels")
    desk.push(post, "late", due=3.0)
    desk.push(parcels, "early", due=1.0)
    desk.push(post, "middle", due=2.0)

    assert desk.decode() == ["early", "middle", "late"]
    assert [desk.predict(), desk.predict(), desk.predict()] == [["early"], ["middle", "late"], []]


def test_a_free_device_starts_with_what_is_there(desk):
    post = desk.line("post")
    desk.push(post, "a")
    desk.decode()

    assert desk.predict() == ["a"]

    desk.push(post, "b", "c", "d", "e", "f")
    desk.decode()

    assert [desk.predict(), desk.predict(), desk.predict()] == [["b", "c", "d", "e"], ["f"], []]


def test_what_waits_is_spread_over_all_streams_also_one_that_is_busy_now(desk):
    post = desk.line("post", num_streams=2)
    desk.push(post, "a", "b", "c", "d")
    desk.decode()

    batches = [desk.scheduler.next_batch(), desk.scheduler.next_batch()]

    assert [[request.key for request in batch.requests] for batch in batches] == [["a", "b"], ["c"]]


def test_only_an_image_beside_which_nothing_is_at_work_gets_all_cores(desk):
    post = desk.line("post", num_streams=2)
    desk.push(post, "a")
    desk.decode()
    alone = desk.scheduler.next_batch()
    desk.push(post, "b")
    desk.decode()
    beside = desk.scheduler.next_batch()

    assert (alone.all_cores, beside.all_cores) == (True, False)


def test_a_line_that_is_always_urgent_does_not_starve_another(desk):
    urgent, patient = desk.line("urgent", sizes=(1,)), desk.line("patient", sizes=(1,))
    used = {"urgent": 0.0, "patient": 0.0}
    for number in range(100):
        desk.push(urgent, f"urgent-{number}", due=desk.now + 0.5)
        desk.push(patient, f"patient-{number}", due=desk.now + 1e3)
    for _ in range(100):
        desk.decode()
        [key] = desk.predict(0.01)
        used[key.partition("-")[0]] += 0.01
        desk.now = 0.0  # nothing becomes late here

    assert used["urgent"] - used["patient"] == pytest.approx(UNFAIR_S, abs=0.03)


def test_a_line_that_was_idle_has_saved_nothing_up(desk):
    busy, idle = desk.line("busy"), desk.line("idle")
    busy.used_s = 100.0
    desk.push(busy, "b", due=1.0)
    desk.push(idle, "i", due=2.0)
    desk.decode()

    assert idle.used_s == busy.used_s
    assert desk.predict() == ["b"]


def test_nothing_is_decoded_that_could_not_be_predicted_in_time(desk):
    post = desk.line("post")
    for _ in range(3):
        post.decode.add(5.0)
    desk.push(post, "hopeless", due=0.015)
    desk.push(post, "just", due=0.017)

    assert desk.decode() == ["just"]
    assert desk.late == [("hopeless", "queue")]
    assert desk.scheduler.num_held == 1


def test_nothing_is_predicted_that_would_be_late_and_a_batch_is_no_larger_than_its_most_urgent_image_allows(desk):
    post = desk.line("post")
    desk.push(post, "hopeless", due=0.1)
    desk.push(post, "tight", due=0.125)
    desk.push(post, "a", "b", "c", due=9.0)
    desk.decode()
    desk.now = 0.1

    assert [desk.predict(), desk.predict()] == [["tight", "a"], ["b", "c"]]
    assert desk.late == [("hopeless", "device")]
    assert desk.scheduler.num_held == 0


def test_no_batch_takes_so_long_that_an_urgent_image_of_a_later_moment_would_wait(desk):
    post = desk.line("post")
    desk.push(post, "a", "b", "c", "d", due=9.0)
    assert desk.scheduler.largest_batch(post, post.model) == 4  # 40 ms of 500
    desk.push(post, "urgent", due=0.06)
    assert desk.scheduler.largest_batch(post, post.model) == 2  # 20 ms of 60
    desk.decode()

    assert [desk.predict(), desk.predict(), desk.predict()] == [["urgent", "a"], ["b", "c"], ["d"]]
    for number in range(200):
        desk.push(post, str(number), due=9.0)
    assert desk.scheduler.largest_batch(post, post.model) == 4


def test_what_another_worker_has_now_is_neither_decoded_nor_predicted(desk):
    post = desk.line("post")
    first, second = desk.push(post, "a", "b")
    first.gone = True
    assert desk.decode() == ["b"]
    second.gone = True

    assert desk.predict() == []
    assert (desk.scheduler.num_held, desk.late) == (0, [])


def test_a_new_model_takes_the_pixels_of_the_old_one_unless_it_wants_others(desk):
    post = desk.line("post")
    before = post.model
    desk.push(post, "a")
    desk.decode()
    post.model = alike = LineModel("m@2", FakePredictor())
    assert desk.scheduler.next_batch().model is alike

    desk.push(post, "b")
    desk.decode()
    post.model = LineModel("m@3", FakePredictor(preprocessing=Preprocessing("L", 2, 2)))

    assert desk.scheduler.next_batch().model is alike
    assert before is not alike


def test_the_smaller_model_has_batches_of_its_own(desk):
    post = desk.line("post")
    post.degraded = LineModel("small@1", FakePredictor())
    desk.push(post, "a", due=1.0)
    desk.push(post, "b", due=2.0, degraded=True)
    desk.push(post, "c", due=3.0, degraded=True)
    desk.decode()

    batches = [desk.scheduler.next_batch() for _ in range(2)]

    assert [(batch.model.name, len(batch.requests)) for batch in batches] == [("m@1", 1), ("small@1", 2)]


def test_a_batch_has_one_model_also_where_a_request_between_two_of_them_is_gone(desk):
    post = desk.line("post")
    post.degraded = LineModel("small@1", FakePredictor())
    desk.push(post, "a", due=1.0)
    (between,) = desk.push(post, "gone", due=2.0)
    desk.push(post, "b", due=3.0, degraded=True)
    desk.decode()
    between.gone = True

    batches = [desk.scheduler.next_batch() for _ in range(2)]

    keys = [(batch.model.name, [request.key for request in batch.requests]) for batch in batches]
    assert keys == [("m@1", ["a"]), ("small@1", ["b"])]


def test_a_worker_holds_no_more_than_it_begins_soon(desk):
    post = desk.line("post")
    room = desk.scheduler.room(post)
    desk.push(post, *map(str, range(room)))

    assert room == 2 * 4 + 1  # two batches, and one for the decode thread
    assert desk.scheduler.room(post) == 0


def test_what_nobody_began_to_decode_can_be_given_back(desk):
    post = desk.line("post")
    desk.push(post, "a", "b")
    begun = desk.scheduler.next_to_decode(0.0)

    given_back = desk.scheduler.take_back_untried()

    assert (begun.key, [request.key for request in given_back]) == ("a", ["b"])
    assert desk.scheduler.num_held == 1


def risky(line: OpenLine) -> Request:
    """A request that a dead worker held."""
    return Request(Held("risky", 0, 0, 2, False), line, deadline_s=9.0, taken_s=0.0, waited_ms=0.0, alone=True)


def test_a_request_that_is_tried_alone_has_the_worker_for_itself(desk):
    post = desk.line("post")

    assert desk.scheduler.hold_alone(risky(post), timeout_s=0.0)

    assert desk.scheduler.room(post) == 0
    assert desk.decode() == ["risky"]
    assert not desk.scheduler.wait_until_free(0.0)
    assert desk.predict() == ["risky"]
    assert desk.scheduler.wait_until_free(0.0)
    assert desk.scheduler.room(post) == 0
    desk.scheduler.end_alone()
    assert desk.scheduler.room(post) > 0


def test_a_request_is_not_tried_alone_beside_others(desk):
    post = desk.line("post")
    desk.push(post, "other")

    assert not desk.scheduler.hold_alone(risky(post), timeout_s=0.0)
    assert desk.decode() == ["other"]
    assert desk.scheduler.room(post) > 0


def test_a_batch_that_hangs_is_noticed(desk):
    post = desk.line("post")
    desk.push(post, "a")
    desk.decode()
    assert desk.scheduler.longest_prediction_s() == 0.0
    batch = desk.scheduler.next_batch()
    desk.now += 7.0

    assert desk.scheduler.longest_prediction_s() == 7.0
    desk.scheduler.finished(batch, 7.0)
    assert desk.scheduler.longest_prediction_s() == 0.0


def test_nothing_stays_of_a_closed_line_whose_requests_were_taken_back(desk):
    line = desk.line("a")
    requests = desk.push(line, "x", "y")
    desk.scheduler.forget(line)

    taken_back = desk.scheduler.take_back_untried()

    assert taken_back == requests
    assert line not in desk.scheduler._queues


def test_a_request_that_is_due_in_ages_is_tried_alone_once_nothing_else_is_held(desk):
    line = desk.line("a")
    desk.push(line, "held")

    with ThreadPoolExecutor(1) as thread:
        begun = thread.submit(desk.scheduler.hold_alone, risky(line), 1e13)
        wait_until(lambda: desk.scheduler.alone, what="it waits for the other")
        desk.decode()
        desk.predict()

        assert begun.result(timeout=60)
    assert desk.scheduler.room(line) == 0
    assert desk.decode() == ["risky"]
