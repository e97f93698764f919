"""The counts of a line, read."""

import re
from importlib.resources import files

import pytest

from orchestrator.contract.lines.answers import CAUSES, REASONS
from orchestrator.contract.lines.stats import BUCKETS_MS, Histogram, WorkerCounts

COMMON = (files("orchestrator.contract.lines") / "lua" / "common.lua").read_text(encoding="utf-8")


def lua_table(name: str) -> str:
    found = re.search(rf"^local {name} = {{(.*?)}}", COMMON, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def test_scripts_and_readers_have_the_same_buckets():
    assert [int(bound) for bound in lua_table("BUCKETS_MS").split(",")] == list(BUCKETS_MS)


def test_the_scripts_count_every_reason_that_an_answer_may_have():
    counted = re.findall(r"(\w+) = 1", lua_table("REASONS"))

    assert [*counted, "conflict"] == list(REASONS)  # a conflict is no answer of its own


def test_the_scripts_count_every_cause_that_a_miss_may_have():
    assert re.findall(r"(\w+) = 1", lua_table("CAUSES")) == list(CAUSES)


def test_a_quantile_is_interpolated_in_its_bucket():
    histogram = Histogram(((10, 50), (20, 50)))  # 8 to 10, and 15 to 20 ms

    assert histogram.quantile(0.25) == 9.0
    assert histogram.quantile(0.5) == 10.0
    assert histogram.quantile(0.75) == 17.5
    assert histogram.quantile(1.0) == 20.0


def test_quantiles_of_nothing_and_of_what_exceeds_all_bounds():
    assert Histogram().quantile(0.5) is None
    assert Histogram(((1, 1),), more=9).quantile(0.99) == 60_000


@pytest.mark.parametrize(
    ("num_images", "field"), [(1, "batch:1"), (16, "batch:16"), (17, "batch:32"), (32, "batch:32"), (300, "batch:512")]
)
def test_batch_sizes_fill_a_bounded_number_of_fields(num_images, field):
    counts = WorkerCounts()

    counts.batch(num_images)

    assert counts.take() == {field: 1}


def test_a_workers_counts_are_zero_again_after_they_were_taken():
    counts = WorkerCounts()

    counts.wait("queue", 0.2)
    counts.wait("queue", 1.0)
    counts.wait("device", 4.4)
    counts.wait("device", 61_000)
    counts.image_not_kept()

    assert counts.take() == {
        "queue:1": 2, "queue_us_sum": 1200, "device:5": 1, "device:more": 1, "device_us_sum": 61_004_400,
        "images_not_kept": 1,
    }  # fmt: skip
    assert counts.take() == {}
