"""The comparison of two checkouts, and of shares with what is promised."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.before_after import compare, what_is_worse
from benchmarks.shares import SCENARIOS, WEIGHTS, Share


class FakeCheckout:
    """Takes the given seconds for its jobs, and writes a manifest."""

    def __init__(self, name: str, seconds: list[float], runs: list[str], manifest: bytes = b"rows") -> None:
        self._name, self._seconds, self._runs, self._manifest = name, iter(seconds), runs, manifest

    def run(self, source: Path, output: Path) -> dict[str, float]:
        self._runs.append(self._name)
        output.write_bytes(self._manifest)
        seconds = next(self._seconds)
        return {"seconds": seconds, "processor_seconds": 2 * seconds}


@pytest.mark.parametrize(("manifest", "same"), [(b"rows", True), (b"others", False)])
def test_jobs_of_two_checkouts_run_in_turns_and_are_compared_pair_by_pair(tmp_path: Path, manifest: bytes, same: bool):
    runs: list[str] = []
    before: Any = FakeCheckout("before", [1.0, 2.0, 4.0], runs)
    after: Any = FakeCheckout("after", [1.1, 2.0, 4.2], runs, manifest)

    found = compare(before, after, tmp_path, tmp_path, 3)

    assert runs == ["before", "after", "after", "before", "before", "after"]
    assert found["same_manifest"] is same
    assert found["seconds"] == {
        "before": 2.0,
        "after": 2.0,
        "ratio": 1.05,
        "of_least": 1.1,
        "ratios": [1.0, 1.05, 1.1],
    }
    assert found["processor_seconds"]["ratio"] == 1.05


def test_a_median_over_the_limit_and_another_manifest_are_named(tmp_path: Path):
    before: Any = FakeCheckout("before", [1.0, 1.0, 1.0], [])
    slower: Any = FakeCheckout("after", [1.0, 1.03, 1.5], [])
    before_other: Any = FakeCheckout("before", [1.0], [])
    other: Any = FakeCheckout("after", [1.01], [], b"others")

    found = {
        "tiny": compare(before, slower, tmp_path, tmp_path, 3),
        "photographs": compare(before_other, other, tmp_path, tmp_path, 1),
    }

    assert what_is_worse(found) == [
        "tiny: seconds after/before 1.030, allowed 1.02",
        "tiny: processor_seconds after/before 1.030, allowed 1.02",
        "photographs: other manifests",
    ]


def test_a_share_is_kept_within_a_fifth_of_it():
    kept = [Share("low", 1, 0.05, 0.0, of_time).kept for of_time in (0.039, 0.041, 0.059, 0.061)]

    assert kept == [False, True, True, False]


def test_the_scenarios_are_of_known_priorities():
    assert {priority for priorities in SCENARIOS.values() for priority in priorities} == set(WEIGHTS)
