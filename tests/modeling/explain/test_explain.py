import io
from pathlib import Path

import pytest
import torch
from PIL import Image

from modeling.errors import ModelingError
from modeling.explain.explain import plan, write
from modeling.explain.kinds import KINDS
from modeling.explain.renderer import ExplainedModel
from modeling.explain.request import ExplainRequest, Picture, read_pictures
from modeling.images.preprocessing import Preprocessing
from modeling.inference.classifier import Classifier
from modeling.networks.build import build_network
from modeling.registry.card import ModelCard
from tests.support.images import encode, glyph
from tests.support.planted import GREY, square_picture, state

SIDE = 12
LABELS = ("across", "down")
SMALL = Preprocessing("L", SIDE, SIDE)
PICTURES = (
    Picture(Path("a/bar.png"), square_picture()[:SIDE, :SIDE]),
    Picture(Path("b/bar.png"), square_picture()[-SIDE:, -SIDE:]),
)


def explained(architecture: str = "cnn", labels: tuple[str, ...] = LABELS, **more: object) -> ExplainedModel:
    torch.manual_seed(0)
    card = ModelCard(architecture, labels, SMALL, "0" * 64)
    network = build_network(architecture, SMALL, len(labels))
    return ExplainedModel("bars@1", Classifier(network, card, torch.device("cpu")), **more)


def names(planned) -> list[str]:
    return [panel.file_name for panel in planned.panels]


def test_all_that_suits_is_planned_and_the_rest_is_left_out_with_a_reason():
    conv, dense = plan(explained(), ExplainRequest(PICTURES)), plan(explained("perceptron"), ExplainRequest())

    assert names(conv) == [
        "filters.png",
        "filters-bar.png",
        "filters-bar-2.png",
        "features-bar.png",
        "features-bar-2.png",
        "gradcam-bar.png",
        "gradcam-bar-2.png",
        "robustness.png",
    ]
    assert list(conv.left_out) == ["weights"]
    assert names(dense) == ["weights.png"]
    assert dense.left_out == {
        "filters": "a perceptron has no convolution, so it has no filters",
        "features": "no image was given",
        "gradcam": "no image was given",
        "robustness": "no image was given",
    }


@pytest.mark.parametrize(
    ("architecture", "request_", "message"),
    [
        ("cnn", ExplainRequest(show=("weights",)), "weights: only a perceptron .* this model is a cnn"),
        ("perceptron", ExplainRequest(PICTURES, show=("gradcam",)), "gradcam: a perceptron has no last layer .* cnn"),
        ("cnn", ExplainRequest(show=("gradcam",)), "gradcam: no image was given"),
        ("mlp", ExplainRequest(PICTURES, show=("features",)), "features: a mlp keeps no places apart"),
        ("cnn", ExplainRequest(labels=("acros",)), "bars@1 has no label 'acros'; choose one of its own: across"),
        ("cnn", ExplainRequest(PICTURES, layer="00"), "no layer '00'"),
    ],
)
def test_what_does_not_suit_fails_before_anything_is_computed(architecture, request_, message):
    with pytest.raises(ModelingError, match=message):
        plan(explained(architecture), request_)


def test_a_model_of_one_label_has_no_robustness():
    left_out = plan(explained(labels=("only",)), ExplainRequest(PICTURES)).left_out

    assert left_out["robustness"] == "a model of one label has no other answer"


def test_ideal_images_of_many_labels_are_made_only_of_those_chosen_or_predicted():
    labels = tuple(f"label {i}" for i in range(13))
    many = explained(labels=labels)

    with pytest.raises(ModelingError, match="13 labels are too many"):
        plan(many, ExplainRequest(show=("ideal",)))
    for request in (ExplainRequest(show=("ideal",), labels=labels[:1]), ExplainRequest(PICTURES, ("ideal",))):
        assert names(plan(many, request)) == ["ideal.png"]


def test_every_kind_is_written_as_a_png_and_says_in_data_what_stands_on_it(tmp_path):
    chosen = explained(second_name="bars@2", second=explained("perceptron").classifier)
    suitable = tuple(kind for kind in KINDS if kind != "weights")
    everything = plan(chosen, ExplainRequest(PICTURES[:1], suitable, labels=LABELS, seed=1))
    before, reported = state(chosen.network), []

    written = list(write(everything, tmp_path / "out", overwrite=False, report=reported.append))

    assert reported[-1] == f"drawing robustness.png, {len(reported)} of {len(written)}"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(names(everything))
    for picture in written:
        with Image.open(io.BytesIO(picture.path.read_bytes())) as image:
            assert image.format == "PNG"
            image.load()
    facts = {picture.path.stem: picture.facts for picture in written}
    assert set(facts["gradcam-bar"]["scores"]) == set(LABELS)
    assert facts["gradcam-bar"]["image"] == "a/bar.png"
    assert facts["ideal"]["seed"] == 1
    (row,) = facts["robustness"]["images"]
    assert facts["robustness"]["median_epsilon"] == row["epsilon"]
    assert row["flipped_to"] in LABELS
    assert row["flipped_to"] != row["label"]
    assert isinstance(row["second_model_fooled"], bool)
    assert state(chosen.network) == before


def test_the_same_request_writes_the_same_bytes(tmp_path):
    contents = []
    for folder in ("first", "second"):
        planned = plan(explained(), ExplainRequest(PICTURES[:1], ("gradcam", "ideal"), labels=LABELS[:1], seed=2))
        contents.append([picture.path.read_bytes() for picture in write(planned, tmp_path / folder, overwrite=False)])

    assert contents[0] == contents[1]


def test_a_picture_that_exists_is_kept_unless_overwriting_is_asked_for(tmp_path):
    (tmp_path / "weights.png").write_bytes(b"mine")
    weights = plan(explained("perceptron"), ExplainRequest(show=("weights",)))

    with pytest.raises(ModelingError, match=r"weights\.png exists; .* --overwrite"):
        write(weights, tmp_path, overwrite=False)

    assert (tmp_path / "weights.png").read_bytes() == b"mine"
    assert [picture.path.name for picture in write(weights, tmp_path, overwrite=True)] == ["weights.png"]
    assert (tmp_path / "weights.png").read_bytes() != b"mine"
    assert [path.name for path in tmp_path.iterdir()] == ["weights.png"]


def test_a_perceptron_that_sees_colour_has_weight_images_too(tmp_path):
    preprocessing = Preprocessing("RGB", 6, 5)
    network = build_network("perceptron", preprocessing, 2)
    card = ModelCard("perceptron", LABELS, preprocessing, "0" * 64)
    colourful = ExplainedModel("c@1", Classifier(network, card, torch.device("cpu")))

    (written,) = write(plan(colourful, ExplainRequest(show=("weights",))), tmp_path, overwrite=False)

    assert written.facts == {"labels": ["across", "down"]}


def test_images_are_read_by_the_models_preprocessing_and_a_bad_one_is_named(tmp_path):
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    good.write_bytes(encode(glyph(0, 0)))
    bad.write_bytes(good.read_bytes()[:50])

    (picture,) = read_pictures([good], GREY)

    assert (picture.path, picture.pixels_HWC.shape) == (good, GREY.shape)
    for path, message in (
        (bad, r"bad\.png cannot be read as an image \(truncated"),
        (tmp_path, "is a folder"),
        (tmp_path / "none.png", "cannot be read .No such file"),
    ):
        with pytest.raises(ModelingError, match=message):
            read_pictures([good, path], GREY)
