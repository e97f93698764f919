"""Images that vanish or change while a training reads them: left out and named, unless they are too many."""

import csv
import hashlib
import json
import os
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from modeling.data.dataset import Dataset
from modeling.data.lost import LostImages
from modeling.data.splits import Split
from modeling.errors import DataError
from modeling.training.request import TrainRequest
from modeling.training.train import _share_lost, train
from tests.support.images import GREY_4, encode, glyph, grey_png, make_class_folders

SAME = ("model.safetensors", "model.json", "split.csv", "data_report.json", "evaluation.json", "quarantine.csv")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """140 images of two classes; never changed."""
    return make_class_folders(tmp_path_factory.mktemp("photos") / "data", 70)


@pytest.fixture
def request_(photos, tmp_path):
    """A short training on a copy of the images."""
    data = shutil.copytree(photos, tmp_path / "data")
    return TrainRequest(data, "cnn", tmp_path / "model", epochs=2, batch_size=8, learning_rate=5e-3, deterministic=True)


@pytest.fixture(scope="module")
def base(photos, tmp_path_factory):
    """A trained model to start from."""
    output = tmp_path_factory.mktemp("base") / "model"
    train(TrainRequest(photos, "cnn", output, epochs=1, batch_size=8), lambda event: None)
    return output


def run(request, when="data", do=lambda: None):
    """Train, and do something at the first event of a kind; returns the card and the texts of warnings."""
    events = []

    def emit(event):
        if event["event"] == when and when not in [each["event"] for each in events]:
            do()
        events.append(event)

    card = train(request, emit)
    return card, [event["text"] for event in events if event["event"] == "warning"]


def parts(model):
    with (model / "split.csv").open(newline="") as file:
        return {row["name"]: row["part"] for row in csv.DictReader(file)}


def one_of(base, part):
    """The first image of a part of the split, which depends on the images and the seed only."""
    return next(name for name, its in parts(base).items() if its == part)


def files_of(folder):
    return {name: (folder / name).read_bytes() for name in SAME}


WAYS = {
    "in memory": {},
    "from disk": {},
    "probe": {"epochs": None},
    "fine-tuning": {"epochs": 1},
}


@pytest.mark.parametrize("part", ["train", "validation", "test"])
@pytest.mark.parametrize("way", WAYS)
def test_an_image_that_vanishes_is_left_out_and_named(request_, base, monkeypatch, way, part):
    name = one_of(base, part)
    if way == "from disk":
        monkeypatch.setattr("modeling.training.data.MAX_TENSOR_BYTES", 1000)
    request = replace(request_, **WAYS[way], weights=str(base) if way in ("probe", "fine-tuning") else None)

    card, warnings = run(request, do=(request.data / name).unlink)

    text = f"1 image was left out, gone or changed since the scan: {name} (missing: No such file or directory)"
    assert warnings[-1] == text
    assert [key for key, value in parts(request.output).items() if value == "lost"] == [name]
    assert sum(card.metrics[f"num_{each}"] for each in ("train", "validation", "test")) == 139
    assert card.training["data"]["num_lost"] == 1
    report = json.loads((request.output / "data_report.json").read_bytes())
    assert (report["findings"][0]["code"], report["findings"][0]["message"]) == ("lost", text)


def test_an_image_of_another_content_is_left_out_and_a_touched_one_is_not(request_, tmp_path):
    changed, touched = request_.data / "down/000.png", request_.data / "down/001.png"
    stat = changed.stat()

    def change():
        changed.write_bytes(encode(glyph(0, 999)))
        os.utime(changed, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        data = touched.read_bytes()
        touched.unlink()
        touched.write_bytes(data)

    _, warnings = run(request_, do=change)

    assert warnings[-1].endswith("down/000.png (changed: its content is not what it was when it was scanned)")
    assert [name for name, part in parts(request_.output).items() if part == "lost"] == ["down/000.png"]


def test_an_image_that_vanishes_between_epochs_is_left_out_of_those_that_follow(request_, base, monkeypatch):
    monkeypatch.setattr("modeling.training.data.MAX_TENSOR_BYTES", 1000)
    name = one_of(base, "train")

    _, warnings = run(request_, when="epoch", do=(request_.data / name).unlink)

    assert [text for text in warnings if name in text and "left out" in text] != []
    assert parts(request_.output)[name] == "lost"


def test_what_a_changed_file_shows_is_not_cached_as_what_it_showed_before(request_, base, tmp_path):
    request = replace(request_, weights=str(base), epochs=None, cache=tmp_path / "cache")
    path = request.data / "down/000.png"
    before = path.read_bytes()

    run(request, do=lambda: path.write_bytes(encode(glyph(0, 999))))
    path.write_bytes(before)
    run(request)
    run(replace(request, cache=None, output=tmp_path / "uncached"))

    assert files_of(request.output) == files_of(tmp_path / "uncached")


def test_more_than_one_per_cent_end_the_training(request_):
    def remove_two():
        (request_.data / "down/000.png").unlink()
        (request_.data / "across/000.png").unlink()

    with pytest.raises(
        DataError,
        match=r"^2 of 140 images are gone or have changed since they were scanned, more than "
        r"1%: .*; leave the images as they are and train again$",
    ):
        run(request_, do=remove_two)
    assert not request_.output.exists()


def test_the_last_training_image_of_a_class_ends_the_training(request_):
    (request_.data / "rare").mkdir()
    (request_.data / "rare/1.png").write_bytes(encode(glyph(1, 999)))

    with pytest.raises(DataError, match=r"^the last training image of class rare is gone or has changed .*rare/1.png"):
        run(request_, do=(request_.data / "rare/1.png").unlink)


def test_a_training_with_int8_leaves_it_out_too(request_, base):
    request = replace(request_, int8=True)

    card, warnings = run(request, when="epoch", do=(request.data / one_of(base, "validation")).unlink)

    assert card.training["int8"]["num_validation"] == card.metrics["num_validation"] - len(
        [text for text in warnings if "left out" in text]
    )


def test_what_one_process_of_a_training_loses_all_leave_out(tmp_path):
    dataset = Dataset("folders", tmp_path, ("a", "b"), np.array([0, 0, 1, 1]), files=(tmp_path / "x.png",) * 4)
    split = Split(train=np.arange(4), validation=np.empty(0, dtype=np.int64), test=np.empty(0, dtype=np.int64))
    lost = LostImages(dataset, split, ("",) * 4, most=3)
    lost.add(1, "missing: No such file or directory")
    others = torch.tensor([0, 1, 1, 0], dtype=torch.int32)
    ranks = SimpleNamespace(size=2, sum=lambda counts: counts + others)

    _share_lost(SimpleNamespace(ranks=ranks, device=torch.device("cpu")), SimpleNamespace(dataset=dataset, lost=lost))

    assert lost.left().train.tolist() == [0, 3]
    assert [image.reason for image in lost.images()] == [
        "missing: No such file or directory",
        "another process of this training could not read it again",
    ]


class KilledError(Exception):
    pass


def kill(event):
    if event["event"] == "epoch" and event["epoch"] == 1:
        raise KilledError


@pytest.mark.parametrize("form", ["folders", "list"])
def test_a_resumed_training_goes_on_without_an_image_that_vanished_meanwhile(request_, tmp_path, form):
    request = replace(request_, work=tmp_path / "work", epochs=3)
    if form == "list":
        rows = [f"{path.relative_to(tmp_path)},{path.parent.name}" for path in sorted(request.data.rglob("*.png"))]
        (tmp_path / "labels.csv").write_text("\n".join(["path,label", *rows, ""]))
        request = replace(request, data=tmp_path / "labels.csv")
    with pytest.raises(KilledError):
        train(request, kill)
    (tmp_path / "data/down/000.png").unlink()
    (tmp_path / "data/down/new.png").write_bytes(encode(glyph(1, 999)))
    events = []

    train(request, events.append)

    assert [event["epoch"] for event in events if event["event"] in ("resumed", "epoch")] == [1, 2, 3]
    name = "data/down/000.png" if form == "list" else "down/000.png"
    warnings = [event["text"] for event in events if event["event"] == "warning"]
    assert f"1 image was left out, gone or changed since the scan: {name} (missing: No such file or directory)" in (
        warnings
    )
    found = parts(request.output)
    assert (found[name], len(found)) == ("lost", 140)


def test_a_resumed_training_that_nothing_has_disturbed_gives_the_same_files(request_, tmp_path):
    (request_.data / "down/broken.png").write_bytes(b"no image")
    run(replace(request_, output=tmp_path / "whole"))
    request = replace(request_, work=tmp_path / "work")
    with pytest.raises(KilledError):
        train(request, kill)

    train(request, lambda event: None)

    assert files_of(request.output) == files_of(tmp_path / "whole")


@pytest.mark.parametrize("damage", ["split.csv", "dataset.json"])
def test_a_damaged_list_of_images_is_told_and_the_training_starts_over(request_, tmp_path, damage):
    request = replace(request_, work=tmp_path / "work")
    with pytest.raises(KilledError):
        train(request, kill)
    (tmp_path / "work" / damage).write_text("{")
    events = []

    train(request, events.append)

    assert any("is damaged" in event["text"] for event in events if event["event"] == "note")
    assert request.output.exists()


def test_a_lost_training_image_is_stood_in_for_by_another_training_image_of_its_class(tmp_path):
    names = ["a/1.png", "a/2.png", "a/3.png", "b/1.png"]
    for number, name in enumerate(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(grey_png(10 * number))
    files = tuple(tmp_path / name for name in names)
    dataset = Dataset("folders", tmp_path, ("a", "b"), np.array([0, 0, 0, 1]), files=files)
    split = Split(train=np.array([0, 2, 3]), validation=np.array([1]), test=np.empty(0, dtype=np.int64))
    lost = LostImages(dataset, split, tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in files), most=3)

    files[0].unlink()
    files[1].unlink()

    assert [int(lost.pixels(index, GREY_4).max()) for index in range(4)] == [20, 0, 20, 30]
    assert lost.mask(np.arange(4)).tolist() == [True, True, False, False]
