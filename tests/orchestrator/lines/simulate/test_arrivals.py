"""When items arrive, and the images that they bring."""

import os
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path

import pytest

from orchestrator.contract.errors import UsageError
from orchestrator.lines.simulate.arrivals import Load, cycle_shuffled, read_ahead


def test_even_arrivals_keep_their_distance():
    assert list(Load(4, minutes=1.5 / 60).arrivals()) == [0, 0.25, 0.5, 0.75, 1.0, 1.25]


def test_poisson_arrivals_repeat_with_their_seed_and_have_the_asked_rate():
    first, again, other = (list(Load(50, minutes=100 / 60, poisson=True, seed=seed).arrivals()) for seed in (7, 7, 8))

    assert first == again != other
    assert 4700 < len(first) < 5300  # four standard deviations are 283
    assert sorted(first) == first
    assert first[0] > 0
    assert first[-1] < 100
    gaps = [after - before for before, after in pairwise(first)]
    assert 0.33 < sum(gap > 0.02 for gap in gaps) / len(gaps) < 0.41  # of exponential gaps, 1/e exceed their mean


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"per_second": 0}, r"--per-second 0 must be above 0"),
        ({"per_second": -8}, r"--per-second -8"),
        ({"per_second": float("nan")}, r"--per-second nan"),
        ({"per_second": 1e9}, r"--per-second 1e\+09 must be above 0 and at most 10,000"),
        ({"minutes": 0}, r"--minutes 0"),
        ({"minutes": float("inf")}, r"--minutes inf"),
        ({"speed": 0}, r"--speed 0"),
        ({"distance": -1}, r"--distance -1"),
        ({"distance": float("nan")}, r"--distance nan"),
        ({"per_second": 300, "minutes": 60}, r"300 items a second for 60 minutes are more than 1,000,000"),
        ({"per_second": 0.001}, r"at 0.001 items a second none arrives in 1 minutes"),
    ],
)
def test_a_load_that_makes_no_belt_is_named(values: dict[str, float], named: str):
    with pytest.raises(UsageError, match=named):
        replace(Load(8), **values)


def test_the_gate_is_as_far_as_the_belt_takes():
    assert Load(8, speed=3, distance=1.5).gate_ms == 500


def test_images_are_cycled_in_another_order_each_time(tmp_path: Path):
    paths = [tmp_path / f"{number}.jpg" for number in range(20)]
    for path in paths:
        path.write_bytes(path.stem.encode())

    images = list(islice(read_ahead(cycle_shuffled(paths, seed=0)), 60))

    turns = [images[:20], images[20:40], images[40:]]
    assert [sorted(turn) for turn in turns] == [sorted(path.stem.encode() for path in paths)] * 3
    assert turns[0] != turns[1] != turns[2]


def test_an_image_that_is_gone_is_named(tmp_path: Path):
    with pytest.raises(UsageError, match=r"gone\.jpg' cannot be read: No such file"):
        next(read_ahead([tmp_path / "gone.jpg"]))


def test_a_pipe_among_the_images_does_not_stop_the_belt(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.jpg")

    with pytest.raises(UsageError, match=r"pipe\.jpg' cannot be read: no regular file"):
        next(read_ahead([tmp_path / "pipe.jpg"]))
