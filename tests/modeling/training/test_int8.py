"""int8 is published where it answers as the network does, and refused with its figures where it does not."""

import json
import shutil

import numpy as np
import pytest

from modeling.errors import ModelingError
from modeling.inference import find_engine
from modeling.inference.choose_engine import load_fastest
from modeling.inference.classifier import Classifier
from modeling.registry.card import INT8_FILE
from modeling.registry.store import ModelStore
from modeling.training import int8
from modeling.training.request import TrainRequest
from modeling.training.train import train
from tests.support.images import glyph, make_class_folders


def train_with_int8(root, events, *, epochs):
    make_class_folders(root / "data", per_class=40)
    request = TrainRequest(
        root / "data", "cnn", root / "model", epochs=epochs, image_size=12, validation=0.3, int8=True
    )
    return train(request, events.append)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model that was trained with int8, as a version of a store, and the events of its training."""
    root = tmp_path_factory.mktemp("int8")
    events = []
    # So many epochs that no image is near a tie, which processors would break each by its own rounding to int8.
    train_with_int8(root, events, epochs=20)
    return ModelStore(root / "models").publish(root / "model", "bars"), events


def test_the_quantised_network_is_part_of_the_version_and_its_figures_of_the_card(trained):
    version, events = trained

    facts = Classifier.load(version.path).card.training["int8"]

    assert (version.path / INT8_FILE).is_file()
    assert facts["kept"] is True
    assert facts["agreement"] >= int8.MIN_AGREEMENT
    assert facts["accuracy"] >= facts["accuracy_full"] - int8.MAX_FALL
    assert facts["num_validation"] > 0
    assert any("published with the model" in event.get("text", "") for event in events)


def test_int8_answers_as_the_network_does_but_for_rounding(trained):
    version, _ = trained
    images = np.stack([np.asarray(glyph(variant % 2, variant))[..., None] for variant in range(40)])

    small, whole = load_fastest(version, precision="int8"), Classifier.load(version.path)

    difference = (small.engine.logits(images) - whole.engine.logits(images)).abs()
    assert small.engine.name == "openvino int8"
    assert 0 < float(difference.max()) < 0.2 * float(whole.engine.logits(images).abs().max())


def test_auto_measures_int8_among_the_others(trained, monkeypatch):
    monkeypatch.setattr(find_engine, "FAST_ENOUGH", float("inf"))
    version, _ = trained

    load_fastest(version)

    (path,) = version.artifacts.glob("auto-*.json")
    assert "openvino int8" in json.loads(path.read_text())["images_per_sec"]


@pytest.mark.parametrize(("bound", "value"), [("MIN_AGREEMENT", 1.01), ("MAX_FALL", -2.0)])
def test_what_does_not_keep_the_bound_is_refused_with_its_figures(tmp_path, monkeypatch, bound, value):
    monkeypatch.setattr(int8, bound, value)
    events = []

    card = train_with_int8(tmp_path, events, epochs=1)

    (text,) = [event["text"] for event in events if "int8" in event.get("text", "")]
    assert "refused" in text
    assert f"{card.training['int8']['agreement']:.2%}" in text
    assert card.training["int8"]["kept"] is False
    assert not (tmp_path / "model" / INT8_FILE).exists()
    assert f"was refused int8 weights: {card.training['int8']['agreement']:.2%} of" in card.why_no_int8()


def test_a_quantised_network_that_is_not_the_cards_is_not_used(trained, tmp_path):
    version, _ = trained
    folder = tmp_path / "models" / "bars" / "1"
    shutil.copytree(version.path, folder)
    (folder / INT8_FILE).write_bytes((folder / INT8_FILE).read_bytes() + b"\0")

    with pytest.raises(ModelingError, match="the card says"):
        load_fastest(ModelStore(tmp_path / "models").resolve("bars"), precision="int8")
