"""The belt, on a clock that takes no time."""

from itertools import repeat

import pytest

from orchestrator.contract.lines.answers import Answer
from orchestrator.lines.simulate.belt import Belt, BeltPlan
from tests.support.belts import FakeClock, FakePusher, accepted

PLAN = BeltPlan("sim-r1", deadline_ms=500, gate_ms=1000)


def test_items_are_pushed_at_their_times_although_nothing_is_answered():
    pusher = FakePusher(lambda item: None)
    belt = Belt(PLAN, pusher, FakeClock())

    belt.run([0, 0.25, 0.5], iter([b"a", b"b", b"c"]))

    assert pusher.pushed == [
        ("sim-r1-1", b"a", 500, 100.0),
        ("sim-r1-2", b"b", 500, 100.25),
        ("sim-r1-3", b"c", 500, 100.5),
    ]
    assert belt.samples == []
    assert belt.pending == {"sim-r1-1": (0, 0), "sim-r1-2": (0.25, 0.25), "sim-r1-3": (0.5, 0.5)}
    assert not belt.wait_for_answers(0)


def test_a_push_that_takes_long_delays_no_arrival_and_counts_against_the_next_answer():
    clock = FakeClock()
    pusher = FakePusher(accepted, clock, push_s=0.3)
    belt = Belt(PLAN, pusher, clock)

    belt.run([0, 0.1, 1.0], repeat(b"image"))

    assert [due - 100 for _, _, _, due in pusher.pushed] == pytest.approx([0, 0.1, 1.0])
    assert [sample.late_send_ms for sample in belt.samples] == pytest.approx([0, 200, 0], abs=1e-6)
    assert [sample.ms for sample in belt.samples] == pytest.approx([300, 500, 300])
    assert belt.wait_for_answers(0)


def test_a_stopped_belt_pushes_nothing_more():
    def rule(item: str) -> Answer:
        if item == "sim-r1-2":
            belt.stop()
        return accepted(item)

    belt = Belt(PLAN, FakePusher(rule), FakeClock())

    belt.run([0, 1, 2, 3], repeat(b"image"))

    assert [sample.item for sample in belt.samples] == ["sim-r1-1", "sim-r1-2"]
    assert belt.elapsed_s == 2  # by the clock that takes no time: it had waited for the third


def test_what_the_client_raises_instead_of_an_answer_ends_the_belt():
    class Failing(FakePusher):
        def submit(self, item: str, image: bytes, *, deadline_ms: float, due: float):
            future = super().submit(item, image, deadline_ms=deadline_ms, due=due)
            future.set_exception(RuntimeError("lost"))
            return future

    pusher = Failing(lambda item: None)
    belt = Belt(PLAN, pusher, FakeClock())

    belt.run([0, 1, 2], repeat(b"image"))

    assert len(pusher.pushed) == 1
    with pytest.raises(RuntimeError, match="lost"):
        belt.wait_for_answers(0)


def test_a_stopped_belt_does_not_wait_long_for_answers_that_are_due_in_an_hour():
    belt = Belt(PLAN, FakePusher(lambda item: None), FakeClock())
    belt.run([0], repeat(b"image"))
    belt.stop()

    assert not belt.wait_for_answers(3600, stopped_s=0)
