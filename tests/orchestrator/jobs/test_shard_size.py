import json
import os
from dataclasses import asdict

import pytest

from modeling.images.quotas import num_cores
from modeling.inference.engines.choice import LARGEST_BATCH, Choice, choice_path
from orchestrator.jobs.shard_size import (
    LARGEST,
    LOW_SHARD_S,
    SHARD_S,
    SMALLEST,
    UNKNOWN,
    choose_shard_size,
    decode_rate,
    round_shard_size,
)
from tests.support.fakes import make_images


def remember(artifacts, speed, *, hardware="a", precision="auto", batch_size=32):
    """The engine choice that a worker stores after measuring the model."""
    choice = Choice("torch fp32", batch_size, hardware, batch_sizes={str(batch_size): speed})
    artifacts.mkdir(exist_ok=True)
    choice_path(artifacts, precision, hardware).write_text(json.dumps(asdict(choice)))


def size_of(artifacts, images=(), precision="auto"):
    return choose_shard_size(artifacts, precision, images)


@pytest.mark.parametrize(
    ("images_per_sec", "batch_size", "size"),
    [(100, 16, 128), (127.9, 16, 128), (128, 16, 256), (5, 8, SMALLEST), (1e6, 32, LARGEST), (60, 256, 256)],
)
def test_a_shard_is_two_seconds_of_work_in_a_power_of_two(images_per_sec, batch_size, size):
    assert round_shard_size(images_per_sec, batch_size) == size


def test_the_slowest_worker_that_measured_the_model_counts(tmp_path):
    remember(tmp_path, 900.0)
    remember(tmp_path, 300.0, hardware="b")
    remember(tmp_path, 40.0, hardware="b", precision="fp32")

    assert size_of(tmp_path) == 512
    assert size_of(tmp_path, precision="fp32") == 64


def test_as_long_as_no_worker_has_measured_the_model_shards_are_of_middling_size(tmp_path):
    assert size_of(tmp_path / "none") == UNKNOWN
    assert size_of(tmp_path / "none", [__file__] * 8) >= LARGEST_BATCH


@pytest.mark.parametrize("rubbish", ["", "{", "[]", '{"engine": "torch fp32"}', '{"batch_size": 32, "hardware": ""}'])
def test_a_memory_that_cannot_be_read_counts_as_none(tmp_path, rubbish):
    remember(tmp_path, 40.0)
    choice_path(tmp_path, "auto", "a").write_text(rubbish)

    assert size_of(tmp_path) == UNKNOWN


@pytest.mark.parametrize(("num_bytes", "size"), [(1000, LARGEST), (3_000_000, 64), (200_000, 1024)])
def test_larger_files_make_smaller_shards(tmp_path, monkeypatch, num_bytes, size):
    remember(tmp_path / "artifacts", 1e6)
    monkeypatch.setattr("orchestrator.jobs.shard_size.time.perf_counter", lambda: 0.0)  # a storage that takes no time
    monkeypatch.setattr("orchestrator.jobs.shard_size.num_cores", lambda: 2)
    (tmp_path / "a.jpg").write_bytes(b"x" * num_bytes)

    assert size_of(tmp_path / "artifacts", [str(tmp_path / "a.jpg")] * 3) == size


def test_a_slow_storage_makes_smaller_shards_and_is_not_read_for_long(tmp_path, monkeypatch):
    remember(tmp_path / "artifacts", 1e6)
    images = [str(tmp_path / "in" / name) for name in make_images(tmp_path / "in", [1, 2, 3])]
    ticks = iter(range(100))
    monkeypatch.setattr("orchestrator.jobs.shard_size.time.perf_counter", lambda: next(ticks) / 16)  # 62.5 ms an image

    size = size_of(tmp_path / "artifacts", images)

    assert size == round_shard_size(15.9 * num_cores(), 32)
    assert next(ticks) == 2 * 2  # a tenth of a second is over: the third is not read


def test_unreadable_files_do_not_count_and_are_no_error(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "link.png").symlink_to("text.png")
    names = ["pipe.png", "link.png", "gone.png", "nul\0.png"]

    assert decode_rate([str(tmp_path / name) for name in names]) == float("inf")


def test_a_batch_size_that_is_set_divides_the_shard(tmp_path):
    remember(tmp_path, 130.0)

    assert choose_shard_size(tmp_path, "auto", [], 100) == 300
    assert choose_shard_size(tmp_path, "auto", [], 1000) == 1000


def test_a_job_of_low_priority_has_smaller_shards_with_the_same_batches(tmp_path):
    remember(tmp_path, 4000.0)

    normal, low = (choose_shard_size(tmp_path, "auto", [], 32, seconds) for seconds in (SHARD_S, LOW_SHARD_S))

    assert (normal, low) == (4096, 512)
