"""A whole simulation, with a client that answers by a rule."""

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.contract.lines.settings import Line, LineSettings
from orchestrator.contract.lines.status import LineStatus, WorkerOfLine
from orchestrator.lines.simulate.arrivals import Load
from orchestrator.lines.simulate.run import Simulation, plan_belt
from tests.support.belts import FakePusher, accepted

LINE = Line(LineSettings("post", "m@champion", "fallback", "review", deadline_ms=400))


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    path = tmp_path / "1.png"
    path.write_bytes(b"image")
    return [path]


def look() -> LineStatus:
    workers = (
        WorkerOfLine("w1", alive=True, facts={"state": "open", "utilisation": 0.25}),
        WorkerOfLine("w2", alive=True, facts={"state": "opening"}),
    )
    return LineStatus("open", 0, 0, 0, 0, workers)


def test_the_deadline_is_the_gate_unless_the_lines_own_is_shorter():
    near = replace(Load(8), distance=0.9)

    assert [plan_belt(load, LINE, "sim").deadline_ms for load in (Load(8), near)] == [400, 300]
    assert [plan_belt(load, LINE, "sim").gate_ms for load in (Load(8), near)] == [1000, 300]


def test_an_interrupt_ends_the_belt_and_what_was_measured_so_far_is_reported(paths: list[Path]):
    def interrupt(simulation: Simulation) -> None:
        assert simulation.belt.samples
        raise KeyboardInterrupt

    pusher = FakePusher(accepted)
    simulation = Simulation(Load(20, minutes=60), LINE, "sim", pusher, look)

    outcome = simulation.run(paths, interrupt, burst=True)

    assert outcome.interrupted
    assert outcome.capacity is None
    assert outcome.figures.num_items == len(outcome.samples) == len(pusher.pushed) < 20 * 3600
    assert outcome.figures.by_reason == {"accept": len(pusher.pushed)}
    assert outcome.utilisation == {"w1": 0.25}
    assert outcome.to_json()["interrupted"]


def test_a_belt_that_cannot_go_on_raises_what_stopped_it(tmp_path: Path):
    simulation = Simulation(Load(20), LINE, "sim", FakePusher(accepted), look)

    with pytest.raises(Exception, match="cannot be read"):
        simulation.run([tmp_path / "gone.png"], lambda _: None, burst=False)
