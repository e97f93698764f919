import json
import os

import pytest

from modeling.card import ModelCard
from modeling.engines.choice import Choice, choice_path
from modeling.preprocessing import Preprocessing
from orchestrator.shard_size import LARGEST, SMALLEST, UNKNOWN, choose_shard_size, decode_rate, fitting_shard_size
from tests.fakes import make_images

CARD = ModelCard("cnn", ("dark", "light"), Preprocessing("L", 28, 28), "0" * 64)
MANY_BYTES = 1 << 20


def remember(artifacts, speed, *, hardware="a", precision="auto", batch_size=32):
    """What a worker leaves that has measured the model."""
    choice = Choice("torch fp32", batch_size, hardware, batch_sizes={str(batch_size): speed})
    artifacts.mkdir(exist_ok=True)
    choice_path(artifacts, precision, hardware).write_text(json.dumps(choice.to_json()))


def size_of(artifacts, images=(), precision="auto"):
    return choose_shard_size(artifacts, precision, CARD, images, MANY_BYTES)


@pytest.mark.parametrize(
    ("images_per_sec", "batch_size", "size"),
    [(100, 16, 128), (127.9, 16, 128), (128, 16, 256), (5, 8, SMALLEST), (1e6, 32, LARGEST), (60, 256, 256)],
)
def test_a_shard_is_two_seconds_of_work_in_a_power_of_two(images_per_sec, batch_size, size):
    assert fitting_shard_size(images_per_sec, batch_size) == size


def test_the_slowest_worker_that_measured_the_model_counts(tmp_path):
    remember(tmp_path, 900.0)
    remember(tmp_path, 300.0, hardware="b")
    remember(tmp_path, 40.0, hardware="b", precision="fp32")

    assert size_of(tmp_path) == 512
    assert size_of(tmp_path, precision="fp32") == 64


def test_as_long_as_no_worker_has_measured_the_model_shards_are_of_middling_size(tmp_path):
    assert size_of(tmp_path / "none") == UNKNOWN


@pytest.mark.parametrize("rubbish", ["", "{", "[]", '{"engine": "torch fp32"}', '{"batch_size": 32, "hardware": ""}'])
def test_a_memory_that_cannot_be_read_counts_as_none(tmp_path, rubbish):
    remember(tmp_path, 40.0)
    choice_path(tmp_path, "auto", "a").write_text(rubbish)

    assert size_of(tmp_path) == UNKNOWN


def test_images_that_are_slow_to_decode_make_smaller_shards(tmp_path, monkeypatch):
    remember(tmp_path / "artifacts", 1e6)
    images = [str(tmp_path / "in" / name) for name in make_images(tmp_path / "in", [1, 2, 3])]
    ticks = iter(range(100))
    monkeypatch.setattr("orchestrator.shard_size.time.perf_counter", lambda: next(ticks) / 16)  # 62.5 ms an image

    size = size_of(tmp_path / "artifacts", images)

    assert size == max(SMALLEST, 1 << int(2 * 16 * len(os.sched_getaffinity(0))).bit_length() - 1)
    assert next(ticks) == 2 * 2  # a tenth of a second is over: the third is not read


def test_what_is_no_image_tells_nothing_and_stops_nobody(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "large.png").write_bytes(b"x" * (MANY_BYTES + 1))
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to("text.png")
    names = ["text.png", "large.png", "pipe.png", "link.png", "gone.png", "nul\0.png"]

    assert decode_rate(CARD, [str(tmp_path / name) for name in names], MANY_BYTES) == float("inf")
