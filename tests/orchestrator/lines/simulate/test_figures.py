"""What a simulation reports, and its picture."""

from collections import Counter
from itertools import repeat
from pathlib import Path

import pytest
from PIL import Image

from orchestrator.contract.lines.answers import Answer
from orchestrator.contract.lines.settings import LineSettings
from orchestrator.lines.simulate.belt import BeltPlan, Sample
from orchestrator.lines.simulate.burst import Burst, most_in_flight
from orchestrator.lines.simulate.figures import Times, make_figures, percentile
from orchestrator.lines.simulate.plot import draw_timeline
from tests.support.belts import FakeClock, FakePusher, accepted

PLAN = BeltPlan("sim-r1", deadline_ms=500, gate_ms=1000)


def sample(
    number: int, ms: float, reason: str | None = None, cause: str | None = None, late_send_ms: float = 0.0
) -> Sample:
    """Item `number` of a belt with an item a second."""
    answer = Answer(f"sim-r1-{number}", 1, "fallback" if cause else "bin-1", reason, cause)
    return Sample(answer.item, number, number + late_send_ms / 1000, number + ms / 1000, answer)


def test_percentiles_are_values_that_were_measured():
    values = [float(number) for number in range(1, 101)]

    assert [percentile(values, share) for share in (0.5, 0.95, 0.99, 1.0)] == [50, 95, 99, 100]
    assert percentile([3.0], 0.99) == 3


def test_a_gate_is_missed_without_a_prediction_in_time_or_after_it():
    samples = [
        sample(1, 20),
        sample(2, 30, "low_confidence"),
        sample(3, 25, "unreadable"),
        sample(4, 503, "late", "device"),
        sample(5, 502, "busy", "queue"),
        sample(6, 501, "no_worker", "queue"),
        sample(7, 1001),
    ]

    figures = make_figures(samples, [0.0], PLAN, elapsed_s=8, cpu_s=0.4)

    assert figures.num_items == 8
    assert figures.by_reason == {
        "accept": 2,
        "low_confidence": 1,
        "late": 1,
        "no_worker": 1,
        "unreadable": 1,
        "busy": 1,
    }
    assert list(figures.by_reason) == ["accept", "low_confidence", "late", "no_worker", "unreadable", "busy"]
    assert figures.by_cause == {"queue": 2, "device": 1}
    assert figures.by_bin == {"bin-1": 4, "fallback": 3}
    assert (figures.num_missed, figures.num_after_gate, figures.num_unanswered) == (5, 1, 1)
    assert figures.times == Times(*(pytest.approx(ms) for ms in (501, 1001, 1001, 1001)))
    assert figures.generator.cpu_share == pytest.approx(0.05)
    assert figures.generator.valid


def test_a_generator_that_was_late_itself_makes_the_figures_invalid():
    in_time = [sample(number, 20, late_send_ms=9) for number in range(98)]
    late = [sample(98, 20, late_send_ms=11)]

    valid = make_figures(in_time + late, [0.0], PLAN, elapsed_s=1, cpu_s=0)
    invalid = make_figures(in_time + late, [80.0], PLAN, elapsed_s=1, cpu_s=0)

    assert (valid.generator.num_late, valid.generator.valid) == (1, True)
    assert (invalid.generator.num_late, invalid.generator.valid) == (2, False)
    assert invalid.generator.worst_late_ms == pytest.approx(80)


def test_a_run_without_items_has_no_times():
    figures = make_figures([], [], PLAN, elapsed_s=0, cpu_s=0)

    assert (figures.num_items, figures.times, figures.by_reason) == (0, None, {})


def test_the_timeline_is_a_picture_with_every_reason(tmp_path: Path):
    reasons = ("next_bin", "degraded", "low_confidence", "late", "unreadable", "busy", "a_new_one", None)
    samples = [sample(number, 5 + number % 40, reasons[number % 8]) for number in range(400)]
    samples.append(sample(400, 5000))
    figures = make_figures(samples, [], PLAN, elapsed_s=400, cpu_s=1)

    draw_timeline(tmp_path / "line.png", "line post: 1 item a second", samples, PLAN, figures)

    with Image.open(tmp_path / "line.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 500
        assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 8
    assert Counter(figures.by_reason.values()) == {50: 7, 51: 1}


def test_a_timeline_of_nothing_is_drawn_too(tmp_path: Path):
    draw_timeline(tmp_path / "line.png", "nothing", [], PLAN, make_figures([], [], PLAN, elapsed_s=0, cpu_s=0))

    assert (tmp_path / "line.png").read_bytes().startswith(b"\x89PNG")


def test_the_burst_finds_how_many_items_a_line_takes():
    clock = FakeClock()
    pusher = FakePusher(accepted, clock, push_s=0.01)

    capacity = Burst("sim-r1-burst", pusher, clock, cpu_s=lambda: 0.5 * clock.moment).run(
        repeat(b"image"), most_waiting=64
    )

    assert capacity is not None
    assert capacity.per_second == pytest.approx(100, rel=0.02)
    assert capacity.client_cpu == pytest.approx(0.5)
    assert not capacity.client_bound
    assert capacity.duration_s == pytest.approx(3, rel=0.02)  # more waiting made it no faster
    assert len({item for item, *_ in pusher.pushed}) == len(pusher.pushed)


def test_a_burst_without_predictions_has_no_capacity():
    clock = FakeClock()
    pusher = FakePusher(lambda item: Answer(item, 1, "fallback", "busy"), clock, push_s=0.01)

    assert Burst("sim-r1-burst", pusher, clock).run(repeat(b"image"), most_waiting=64) is None


@pytest.mark.parametrize(("image_bytes", "most"), [(1_000, 500), (1 << 20, 128), (1 << 40, 1), (0, 500)])
def test_a_burst_stays_within_half_of_the_lines_bounds(image_bytes: int, most: int):
    settings = LineSettings("post", "m@champion", "fallback", "review", max_requests=1000, max_bytes=256 << 20)

    assert most_in_flight(settings, image_bytes) == most
