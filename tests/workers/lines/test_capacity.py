"""What a worker reports of a line, by which pushes are admitted."""

import time

import pytest

from modeling.images.quotas import num_cores
from orchestrator.contract.lines.requests import Held
from orchestrator.contract.lines.settings import Line, LineSettings
from tests.support.line_workers import FakePushPredictor
from workers.device_gate import DeviceGate
from workers.lines.batches import Batch
from workers.lines.capacity import capacity_of
from workers.lines.model import LineModel
from workers.lines.requests import OpenLine, Request
from workers.lines.scheduler import Scheduler


class Worker:
    def __init__(self) -> None:
        self.now = 0.0
        self.scheduler = Scheduler(1, lambda late: None, clock=lambda: self.now)
        self.gate = DeviceGate(2)
        self.lines: list[OpenLine] = []

    def open(self, name: str, model: LineModel | None) -> OpenLine:
        settings = LineSettings(name, "m@champion", "F", "R", deadline_ms=500)
        self.lines.append(OpenLine(Line(settings), None, "redis://s", model))
        return self.lines[-1]

    def numbers(self, line: OpenLine) -> list[float]:
        text, _ = capacity_of(line, self.lines, self.scheduler, self.gate)
        return [float(number) for number in text.split()]

    def use(self, line: OpenLine, seconds: float, images: int = 1) -> None:
        """The line keeps the device busy on all streams for so long."""
        requests = [
            Request(Held(str(number), 0, 0, 1, False), line, deadline_s=1e9, taken_s=self.now, waited_ms=0.0)
            for number in range(images)
        ]
        self.scheduler.add(requests)
        while self.scheduler.next_to_decode(0.0) is not None:
            pass
        self.now += seconds
        self.scheduler.finished(Batch(line, line.model, requests), seconds * line.model.streams)


@pytest.fixture
def worker() -> Worker:
    return Worker()


def model_of(**predictor: object) -> LineModel:
    return LineModel("m@1", FakePushPredictor(batch_ms={1: 10.0, 2: 20.0, 4: 40.0}, **predictor))


def test_a_line_that_is_not_open_yet_can_do_nothing_and_says_so(worker):
    post = worker.open("post", None)

    text, facts = capacity_of(post, worker.lines, worker.scheduler, worker.gate)

    assert [float(number) for number in text.split()] == [0, 0, 0, 0]
    assert (facts["state"], facts["model"]) == ("opening", "m@champion")


def test_an_idle_line_promises_less_than_was_measured(worker):
    post = worker.open("post", model_of())
    for _ in range(3):
        post.decode.add(4.0)

    per_image, lead, *none = worker.numbers(post)

    assert per_image > 40.0 / (4 * 2) + 4.0 / num_cores()
    assert 10.0 + 10.0 + 4.0 < lead < 40.0  # it may wait for one image
    assert none == [0, 0]


def test_a_busy_line_may_let_a_push_wait_for_its_largest_batch(worker):
    post = worker.open("post", model_of())
    worker.use(post, 0.5)

    assert worker.numbers(post)[1] > 40.0 + 10.0


def test_what_was_measured_at_saturation_counts_if_it_is_slower(worker):
    post = worker.open("post", model_of())
    post.model.saturated_ms = 50.0

    assert worker.numbers(post)[0] > 50.0


def test_a_line_beside_a_busy_one_promises_its_share_of_the_device(worker):
    model = model_of()
    post, busy = worker.open("post", model), worker.open("busy", model)
    alone = worker.numbers(post)[0]
    for _ in range(40):
        worker.use(busy, 0.5)

    assert worker.scheduler.utilisation(busy) == pytest.approx(1.0, abs=0.01)
    assert worker.numbers(post)[0] == pytest.approx(2 * max(alone, 1.15 * model.saturated_ms), rel=0.05)


def test_the_smaller_model_has_numbers_of_its_own(worker):
    post = worker.open("post", model_of())
    post.degraded = LineModel("small@1", FakePushPredictor(batch_ms={1: 1.0, 2: 2.0, 4: 4.0}))

    per_image, lead, small_per_image, small_lead = worker.numbers(post)

    assert 0 < small_per_image < per_image
    assert 0 < small_lead < lead


def test_the_bound_on_the_wait_for_the_device_counts_a_job_beside(worker):
    post = worker.open("post", model_of())
    idle = capacity_of(post, worker.lines, worker.scheduler, worker.gate)[1]["bound_ms"]
    worker.gate._batch_s.append((time.perf_counter(), 0.3))

    assert idle == 40.0
    assert capacity_of(post, worker.lines, worker.scheduler, worker.gate)[1]["bound_ms"] == 300.0
    assert worker.numbers(post)[1] > 310.0
