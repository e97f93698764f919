import os
import shutil
from pathlib import Path

import pytest

import modeling
from modeling.errors import ModelFormatError, ModelingError, ModelNotFoundError
from modeling.inference.classify_files import classify_files, load_model
from modeling.inference.prediction import Prediction
from modeling.registry.store import ModelStore
from tests.support.fakes import FakeClassifier, predict_brightness
from tests.support.images import grey_png, make_class_folders
from tests.support.published_models import LABELS, publish_model


def test_paths_and_bytes_have_predictions_in_their_order(tmp_path):
    for value in (1, 3):
        (tmp_path / f"{value}.png").write_bytes(grey_png(value))
    images = [tmp_path / "1.png", grey_png(2), str(tmp_path / "3.png"), *map(grey_png, range(4, 30))]

    found = list(classify_files(images, FakeClassifier(), top_k=1))

    assert found == [predict_brightness(value, 1) for value in range(1, 30)]


def test_no_images_have_no_predictions():
    assert list(classify_files([], FakeClassifier())) == []


def test_an_image_that_cannot_be_read_has_its_error_and_costs_the_others_nothing(tmp_path):
    pipe, folder, closed = tmp_path / "pipe.png", tmp_path / "folder.png", tmp_path / "closed.png"
    os.mkfifo(pipe)
    folder.mkdir()
    closed.write_bytes(b"")

    images = [grey_png(1), tmp_path / "lost.png", pipe, folder, closed / "inner.png", "nul\0.png", b"", grey_png(2)]
    found = list(classify_files(images, FakeClassifier()))

    assert [prediction.error_code for prediction in found] == [
        None, "missing", "not_a_file", "not_a_file", "missing", "missing", "empty", None,
    ]  # fmt: skip
    assert found[1] == Prediction(error_code="missing", error=f"there is no file {tmp_path / 'lost.png'}")
    assert [found[0], found[-1]] == [predict_brightness(1), predict_brightness(2)]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_has_its_error(tmp_path):
    (tmp_path / "a.png").write_bytes(grey_png(1))
    (tmp_path / "a.png").chmod(0)

    (found,) = classify_files([tmp_path / "a.png"], FakeClassifier())

    assert found.error_code == "permission"


def test_images_are_pulled_as_they_are_needed():
    num_pulled = 0

    def images():
        nonlocal num_pulled
        while True:
            num_pulled += 1
            yield grey_png(1)

    found = classify_files(images(), FakeClassifier(), decode_threads=2)

    assert [next(found) for _ in range(100)] == [predict_brightness(1)] * 100
    assert num_pulled < 150
    found.close()


@pytest.mark.parametrize("one", ["photo.png", Path("photo.png"), b"bytes"])
def test_one_image_instead_of_several_is_a_mistake(one):
    with pytest.raises(TypeError, match="images must be a list or another iterable of paths or bytes, not one"):
        classify_files(one, FakeClassifier())


def test_what_is_neither_a_path_nor_bytes_is_a_mistake():
    with pytest.raises(TypeError, match=r"an image must be a path \(str or Path\) or bytes, not int"):
        list(classify_files([grey_png(1), 7], FakeClassifier()))
    with pytest.raises(ValueError, match="top_k must be at least 1, not 0"):
        classify_files([grey_png(1)], FakeClassifier(), top_k=0)


def test_a_published_model_is_loaded_by_its_folder_name_version_or_alias(tmp_path, monkeypatch):
    version = publish_model(tmp_path / "models", "digits")
    ModelStore(tmp_path / "models").set_alias(version, "champion")
    monkeypatch.setenv("HOME", str(tmp_path))

    folder = tmp_path / "models" / "digits"
    for path in (version.path, str(version.path), folder, f"{folder}@1", f"{folder}@champion", "~/models/digits"):
        assert load_model(path).card.labels == LABELS
    with pytest.raises(ModelNotFoundError, match=r"nor a published model: .*digits@2"):
        load_model(tmp_path / "models/digits@2")


def test_a_model_that_is_not_published_is_loaded_from_its_folder(tmp_path, monkeypatch):
    version = publish_model(tmp_path / "models", "digits")
    shutil.copytree(version.path, tmp_path / "trained")
    monkeypatch.chdir(tmp_path)
    image = grey_png(9, (28, 28))

    (found,) = classify_files([image], load_model("trained"), top_k=3)

    (published,) = classify_files([image], load_model(version.path), top_k=3)

    assert found.labels == published.labels
    assert found.scores == pytest.approx(published.scores, abs=0.01)  # each load may choose another engine and batch
    assert len(found.labels) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == [".engines", "models", "staged-digits", "trained"]


@pytest.mark.parametrize("name", ["nowhere", "No Name", "digits@champion"])
def test_a_model_that_is_not_there_is_an_error_that_says_what_was_looked_for(tmp_path, name):
    with pytest.raises(ModelNotFoundError, match=r"neither a folder with a model\.json nor a published model"):
        load_model(tmp_path / name)


def test_a_damaged_model_a_wrong_device_and_a_wrong_precision_are_errors(tmp_path):
    version = publish_model(tmp_path / "models", "digits")

    with pytest.raises(ModelingError, match="device"):
        load_model(version.path, device="toaster")
    with pytest.raises(ModelingError, match="int8 cannot be used"):
        load_model(version.path, precision="int8")
    (version.path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelFormatError, match="sha256"):
        load_model(version.path)


def test_the_library_trains_loads_and_classifies(tmp_path):
    data = make_class_folders(tmp_path / "data")
    events = []

    card = modeling.train(data, tmp_path / "trained", epochs=6, batch_size=8, learning_rate=5e-3, emit=events.append)

    model = modeling.load_model(tmp_path / "trained")
    files = sorted(data.rglob("*.png"))
    found = list(modeling.classify_files(files, model, top_k=1))
    assert (model.card, card.labels) == (card, ("across", "down"))
    assert events[-1]["event"] == "model"
    assert len(found) == len(files)
    assert {prediction.labels[0] for prediction in found} <= {"across", "down"}
    with pytest.raises(ModelingError, match="epoch: the key is unknown"):
        modeling.train(data, tmp_path / "other", epoch=6)
