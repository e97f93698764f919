"""The usual size of a data set's images."""

import os
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from modeling.data import sample
from modeling.data.dataset import TEST, TRAIN, Dataset
from modeling.data.forms.open import open_dataset
from modeling.data.sample import SampledImages, num_learnt, sample_images
from tests.support.images import encode, make_idx


def write(folder, sizes, mode="RGB", suffix="png", colour=0):
    for label in ("a", "b"):
        (folder / label).mkdir(parents=True)
        for number, size in enumerate(sizes):
            image = Image.new(mode, size, colour)
            (folder / label / f"{number}.{suffix}").write_bytes(encode(image, {"jpg": "JPEG"}.get(suffix, suffix)))
    return open_dataset(folder)


def test_the_median_of_the_longer_sides_counts(tmp_path):
    dataset = write(tmp_path, [(20, 10), (64, 30), (65, 500)], colour=(255, 0, 0))

    assert sample_images(dataset) == SampledImages(64, 3)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff", "bmp", "gif"])
def test_every_format_says_its_size(tmp_path, suffix):
    dataset = write(tmp_path, [(300, 200)], suffix=suffix, colour=(255, 0, 0))

    assert sample_images(dataset).median_side == 300


def test_colour_is_looked_for_in_small_images_and_asked_of_large_ones(tmp_path):
    assert sample_images(write(tmp_path / "a", [(28, 28)], colour=(9, 9, 9))).channels == 1
    assert sample_images(write(tmp_path / "b", [(28, 28)], colour=(9, 9, 8))).channels == 3
    assert sample_images(write(tmp_path / "c", [(280, 280)], mode="L")).channels == 1
    assert sample_images(write(tmp_path / "d", [(280, 280)], colour=(9, 9, 9))).channels == 3


def test_images_in_memory_have_one_size(tmp_path):
    assert sample_images(open_dataset(make_idx(tmp_path))) == SampledImages(12, 1)


def test_broken_files_count_for_nothing_and_a_pipe_stops_nobody(tmp_path):
    dataset = write(tmp_path, [(90, 80)] * 3, colour=(1, 2, 3))
    dataset.files[0].write_bytes(b"")
    dataset.files[1].write_bytes(b"\x89PNG\r\n\x1a\nno more")
    dataset.files[2].unlink()
    dataset.files[3].unlink()
    os.mkfifo(dataset.files[3])

    assert sample_images(dataset) == SampledImages(90, 3)

    for path in dataset.files[4:]:
        path.write_bytes(b"")
    assert sample_images(dataset) == SampledImages(None, 3)


def test_no_more_than_a_sample_is_opened(tmp_path, monkeypatch):
    dataset = write(tmp_path, [(90, 80)] * 30, colour=(1, 2, 3))
    opened = []
    header = sample._header
    monkeypatch.setattr(sample, "_header", lambda path: opened.append(path) or header(path))
    monkeypatch.setattr(sample, "NUM_SAMPLED", 7)

    assert sample_images(dataset).median_side == 90
    assert sorted(opened) == list(dataset.files[::9])


def test_what_is_learnt_from_is_what_is_not_held_out(tmp_path):
    free = Dataset("folders", tmp_path, ("a",), np.zeros(10, np.int64))

    assert num_learnt(free, 0.2) == 8
    assert num_learnt(replace(free, parts_N=np.array([TRAIN] * 7 + [TEST] * 3, np.int8)), 0.2) == 7
