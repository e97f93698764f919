"""Models that leave and come: the same answers in ONNX Runtime, the same model back from a folder."""

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch

from modeling.errors import ArchitectureError, ModelFormatError, ModelingError
from modeling.exchange.export import MAX_DIFFERENCE, export_folder, export_onnx
from modeling.exchange.import_weights import WeightsImport, stage_folder, stage_weights
from modeling.images.preprocessing import Preprocessing
from modeling.inference.classifier import Classifier
from modeling.metrics.calibration import Calibration
from modeling.networks import torchvision_networks
from modeling.networks.architectures import get_architecture
from modeling.networks.build import build_network
from modeling.networks.onnxruntime_library import onnxruntime
from modeling.registry.card import CARD_FILE, INT8_FILE, WEIGHTS_FILE
from tests.support.small_models import CALIBRATION, GREY_8, TREES, make_random_model, random_images

HEAD = get_architecture("mlp").head


def labels_file(folder: Path, value: object = TREES) -> Path:
    (folder / "labels.json").write_text(json.dumps(value))
    return folder / "labels.json"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A model and its ONNX file."""
    root = tmp_path_factory.mktemp("exported")
    model = make_random_model(root / "model")
    return model, export_onnx(model, root / "model.onnx")


def test_an_onnx_file_answers_as_the_model_does_in_batches_of_any_size(exported):
    model, export = exported
    session = onnxruntime.InferenceSession(export.path, providers=["CPUExecutionProvider"])

    for count in (1, 4, 7):
        images = random_images(count)
        logits, scores = session.run(["logits", "scores"], {"images": images})
        expected = Classifier.load(model).logits(images)
        np.testing.assert_allclose(logits, expected, atol=1e-5)
        at_temperature = torch.from_numpy(expected / CALIBRATION.temperature).softmax(dim=1).numpy()
        np.testing.assert_allclose(scores, at_temperature, atol=1e-6)
    assert export.largest_difference < MAX_DIFFERENCE
    assert (export.size_bytes, os.listdir(export.path.parent)) == (export.path.stat().st_size, ["model", "model.onnx"])


def small_mobilenet(weights, **options):
    from torchvision.models.mobilenetv3 import InvertedResidualConfig, MobileNetV3

    blocks = [
        InvertedResidualConfig(16, 3, 16, 16, True, "RE", 2, 1, 1),
        InvertedResidualConfig(16, 5, 48, 24, True, "HS", 2, 1, 1),
    ]
    return MobileNetV3(blocks, last_channel=64, **options)


def small_transformer(weights, **options):
    from torchvision.models import VisionTransformer

    size = {"patch_size": 32, "num_layers": 2, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64}
    return VisionTransformer(**size, **options)


# Of several views of an image there is a test below: one output with two labels, by speednet.
@pytest.mark.parametrize(
    ("architecture", "builder", "side"),
    [("mobilenet_v3_small", small_mobilenet, 64), ("vit_b_32", small_transformer, 32)],
)
def test_networks_of_other_kinds_answer_the_same_as_onnx_files(architecture, builder, side, tmp_path, monkeypatch):
    """Torchvision's classes with two blocks: the same operators as with twelve, exported in a tenth of the time."""
    monkeypatch.setitem(torchvision_networks.models._api.BUILTIN_MODELS, architecture, builder)
    preprocessing = Preprocessing("RGB", side, side)
    model = make_random_model(tmp_path / "model", architecture, preprocessing)

    export = export_onnx(model, tmp_path / "model.onnx")

    session = onnxruntime.InferenceSession(export.path, providers=["CPUExecutionProvider"])
    images = random_images(3, preprocessing)
    (logits,) = session.run(["logits"], {"images": images})
    assert np.abs(logits - Classifier.load(model).logits(images)).max() < MAX_DIFFERENCE


def test_an_onnx_file_says_its_labels_preprocessing_and_calibration(exported):
    _, export = exported
    file = onnx.load(export.path)

    onnx.checker.check_model(file)
    metadata = {entry.key: json.loads(entry.value) for entry in file.metadata_props}
    assert metadata["labels"] == list(TREES)
    assert Preprocessing.from_json(metadata["preprocessing"]) == GREY_8
    assert Calibration.from_json(metadata["calibration"], 3) == CALIBRATION
    assert (metadata["architecture"], metadata["format_version"]) == ("cnn_pyramid", 2)
    assert {entry.domain: entry.version for entry in file.opset_import}[""] == export.opset
    (images,) = file.graph.input
    assert images.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [axis.dim_param or axis.dim_value for axis in images.type.tensor_type.shape.dim] == ["batch", 8, 8, 1]


def test_an_onnx_file_holds_no_path_or_module_of_the_machine_that_wrote_it(tmp_path):
    export_onnx(make_random_model(tmp_path / "model"), tmp_path / "model.onnx")

    data = (tmp_path / "model.onnx").read_bytes()
    assert [text for text in (b"stack_trace", b".py", b"site-packages", b"modeling.") if text in data] == []


def test_an_onnx_file_that_answers_otherwise_is_not_kept(tmp_path, monkeypatch):
    model = make_random_model(tmp_path / "model")
    monkeypatch.setattr(
        "modeling.exchange.export.write_graph", lambda network, card, path: path.write_bytes(b"x") and 20
    )
    monkeypatch.setattr("modeling.exchange.export._largest_difference", lambda classifier, path: float("nan"))

    with pytest.raises(
        ModelingError, match=r"logits differ from the model's by up to nan, 0\.001 is allowed; nothing was written"
    ):
        export_onnx(model, tmp_path / "model.onnx")
    assert os.listdir(tmp_path) == ["model"]


def test_an_exported_folder_comes_back_as_the_same_model_bit_for_bit(tmp_path):
    model = make_random_model(tmp_path / "model")
    (tmp_path / "staged").mkdir()

    export = export_folder(model, tmp_path / "out" / "folder")
    card = stage_folder(export.path, tmp_path / "staged").card

    assert sorted(os.listdir(export.path)) == ["README.md", "model.json", "model.safetensors"]
    assert export.size_bytes == sum(path.stat().st_size for path in export.path.iterdir())
    assert card == Classifier.load(model).card
    for name in (CARD_FILE, WEIGHTS_FILE):
        assert (tmp_path / "staged" / name).read_bytes() == (model / name).read_bytes()
    images = random_images()
    before, after = (Classifier.load(folder) for folder in (model, tmp_path / "staged"))
    assert np.array_equal(before.logits(images), after.logits(images))
    assert before.predict(images, 3) == after.predict(images, 3)


def test_the_quantised_network_goes_with_the_folder_and_is_checked_when_it_comes_back(tmp_path):
    model = make_random_model(tmp_path / "model")
    (model / INT8_FILE).write_bytes(b"quantised")
    card = Classifier.load(model).card
    quality = {"int8": {"sha256": hashlib.sha256(b"quantised").hexdigest()}}
    (model / CARD_FILE).write_bytes(replace(card, training=quality).to_bytes())
    (tmp_path / "staged").mkdir()

    export = export_folder(model, tmp_path / "folder")
    stage_folder(export.path, tmp_path / "staged")

    assert (tmp_path / "staged" / INT8_FILE).read_bytes() == b"quantised"
    (export.path / INT8_FILE).write_bytes(b"another")
    with pytest.raises(ModelFormatError, match=r"int8\.onnx: sha256 is .* the card says"):
        stage_folder(export.path, tmp_path / "staged")


def test_a_folder_without_its_quantised_network_is_the_model_in_full_precision(tmp_path):
    model = make_random_model(tmp_path / "model")
    card = Classifier.load(model).card
    (model / CARD_FILE).write_bytes(replace(card, training={"int8": {"sha256": "0" * 64}}).to_bytes())
    (tmp_path / "staged").mkdir()

    stage_folder(export_folder(model, tmp_path / "folder").path, tmp_path / "staged")

    assert sorted(os.listdir(tmp_path / "staged")) == ["model.json", "model.safetensors"]


@pytest.mark.parametrize(("architecture", "mode"), [("squeezenet1_1", "RGB"), ("resnet18", "L"), ("googlenet", "RGB")])
def test_the_page_in_an_exported_folder_loads_torchvisions_networks_without_us(
    tmp_path, architecture, mode, monkeypatch
):
    monkeypatch.setattr(torch.nn.init, "trunc_normal_", lambda tensor, **_: torch.nn.init.normal_(tensor, std=0.01))
    preprocessing = Preprocessing(mode, 32, 32)
    model = make_random_model(tmp_path / "model", architecture, preprocessing)
    page = (export_folder(model, tmp_path / "folder").path / "README.md").read_text()
    code = page.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path / "folder")
    names: dict = {}

    exec(code, names)  # noqa: S102  # the page's own lines

    images = random_images(2, preprocessing)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    with torch.inference_mode():
        logits = names["network"]((torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - mean) / std)
    np.testing.assert_allclose(logits.numpy(), Classifier.load(model).logits(images), atol=1e-5)
    assert "modeling" not in code


def test_an_output_that_exists_is_never_written_over(tmp_path):
    model = make_random_model(tmp_path / "model")
    (tmp_path / "out").write_text("mine")

    for export in (export_folder, export_onnx):
        with pytest.raises(ModelingError, match=r"out exists; name one that does not"):
            export(model, tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_small_network_is_imported_and_its_mode_found_out(tmp_path, mode):
    preprocessing = Preprocessing(mode, 12, 12)
    network = build_network("mlp", preprocessing, 3).eval()
    torch.save({name: tensor.half() for name, tensor in network.state_dict().items()}, tmp_path / "weights.pt")
    (tmp_path / "staged").mkdir()

    asked = WeightsImport(tmp_path / "weights.pt", "mlp", labels_file(tmp_path), image_size=12)
    card = stage_weights(asked, tmp_path / "staged").card

    digest = hashlib.sha256((tmp_path / "weights.pt").read_bytes()).hexdigest()
    assert (card.preprocessing, card.labels, card.calibration) == (preprocessing, TREES, None)
    assert card.training == {"imported": {"file": "weights.pt", "sha256": digest}}
    classifier = Classifier.load(tmp_path / "staged")
    assert {tensor.dtype for tensor in classifier.network.parameters()} == {torch.float32}
    images = random_images(2, preprocessing)
    pixels = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    np.testing.assert_allclose(classifier.logits(images), network(pixels).detach().numpy(), atol=2e-3)


def test_a_preprocessing_file_overrides_the_architectures(tmp_path):
    torch.save(build_network("mlp", GREY_8, 3).state_dict(), tmp_path / "weights.pt")
    (tmp_path / "preprocessing.json").write_text(json.dumps(GREY_8.to_json()))
    (tmp_path / "staged").mkdir()
    asked = WeightsImport(
        tmp_path / "weights.pt", "mlp", labels_file(tmp_path), preprocessing=tmp_path / "preprocessing.json"
    )

    assert stage_weights(asked, tmp_path / "staged").card.preprocessing == GREY_8


@pytest.mark.parametrize(
    ("change", "kind", "told"),
    [
        (lambda state: state.pop("1.bias"), ArchitectureError, r"weights.pt does not fit mlp: 1 missing: 1\.bias$"),
        (lambda state: state["1.weight"].fill_(float("nan")), ModelFormatError, "answers are not finite numbers"),
        (
            lambda state: state.update({f"{HEAD}.weight": torch.zeros(9, 128), f"{HEAD}.bias": torch.zeros(9)}),
            ArchitectureError,
            r"weights.pt answers with 9 labels, but .*labels.json names 3",
        ),
    ],
    ids=["a tensor missing", "not a number", "other labels"],
)
def test_weights_that_do_not_fit_are_not_imported(tmp_path, change, kind, told):
    state = build_network("mlp", Preprocessing("L", 28, 28), 3).state_dict()
    change(state)
    torch.save(state, tmp_path / "weights.pt")
    (tmp_path / "staged").mkdir()

    with pytest.raises(kind, match=told):
        stage_weights(WeightsImport(tmp_path / "weights.pt", "mlp", labels_file(tmp_path), 28), tmp_path / "staged")
    assert os.listdir(tmp_path / "staged") == []


def test_a_folder_that_holds_no_whole_model_is_not_imported(tmp_path):
    model = make_random_model(tmp_path / "model")
    (tmp_path / "staged").mkdir()
    (model / WEIGHTS_FILE).write_bytes(b"other")

    with pytest.raises(ModelFormatError, match="sha256"):
        stage_folder(model, tmp_path / "staged")
    (model / WEIGHTS_FILE).unlink()
    with pytest.raises(ModelFormatError, match=r"not an exported model: .*model.safetensors: cannot be read"):
        stage_folder(model, tmp_path / "staged")


# Weights from elsewhere


def test_the_architecture_is_recognised_and_what_was_done_is_told(tmp_path):
    state = build_network("mlp", Preprocessing("L", 12, 12), 3).state_dict()
    nested = {"state_dict": {f"module.net.{name}": tensor.bfloat16() for name, tensor in state.items()}, "epoch": 3}
    torch.save(nested, tmp_path / "weights.ckpt")
    (tmp_path / "staged").mkdir()

    asked = WeightsImport(tmp_path / "weights.ckpt", None, labels_file(tmp_path), image_size=12)
    model = stage_weights(asked, tmp_path / "staged")

    assert model.card.architecture == "mlp"
    assert model.notes == (
        "recognised as mlp by its tensors",
        "numbers of the weights become float32; in the file they are bfloat16",
    )
    found = Classifier.load(tmp_path / "staged").network.state_dict()
    assert all(torch.equal(found[name], state[name].bfloat16().float()) for name in state)


def test_views_of_a_few_numbers_are_imported_as_tensors_of_their_own(tmp_path):
    state = build_network("perceptron", GREY_8, 3).state_dict()
    torch.save({name: torch.zeros(1).expand(tensor.shape) for name, tensor in state.items()}, tmp_path / "weights.pt")
    (tmp_path / "staged").mkdir()

    stage_weights(WeightsImport(tmp_path / "weights.pt", None, labels_file(tmp_path), 8), tmp_path / "staged")

    assert not Classifier.load(tmp_path / "staged").logits(random_images(2)).any()


@pytest.mark.parametrize("architecture", ["perceptron", "speednet", "squeezenet1_1"])
def test_one_output_with_two_labels_becomes_zero_and_the_output_in_every_export(tmp_path, architecture):
    torch.manual_seed(0)
    preprocessing = Preprocessing("RGB", 32, 32)
    one = build_network(architecture, preprocessing, 1).eval()
    torch.save(one.state_dict(), tmp_path / "one.pt")
    (tmp_path / "preprocessing.json").write_text(json.dumps(preprocessing.to_json()))
    labels = labels_file(tmp_path, ["good", "defect"])
    (tmp_path / "staged").mkdir()

    weights = WeightsImport(tmp_path / "one.pt", None, labels, preprocessing=tmp_path / "preprocessing.json")
    model = stage_weights(weights, tmp_path / "staged")
    export = export_onnx(tmp_path / "staged", tmp_path / "model.onnx")

    images = random_images(5, preprocessing)
    with torch.inference_mode():
        pixels = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
        x = one(pixels)[:, 0]
    classifier = Classifier.load(tmp_path / "staged")
    session = onnxruntime.InferenceSession(export.path, providers=["CPUExecutionProvider"])
    logits, scores = session.run(["logits", "scores"], {"images": images})
    for found in (classifier.logits(images), logits):
        assert not found[:, 0].any()  # exactly 0
        np.testing.assert_allclose(found[:, 1], x.numpy(), atol=1e-5)
    np.testing.assert_allclose(scores[:, 1], x.sigmoid().numpy(), atol=1e-6)
    assert model.card.labels == ("good", "defect")
    assert "its one output is made two, (0, x): 'defect' has the score sigmoid(x), 'good' the rest" in model.notes


def test_one_output_with_one_label_is_refused_and_says_how_to_make_two(tmp_path):
    network = build_network("perceptron", GREY_8, 1)
    torch.save(network.state_dict(), tmp_path / "one.pt")
    (tmp_path / "staged").mkdir()
    asked = WeightsImport(tmp_path / "one.pt", None, labels_file(tmp_path, ["defect"]), 8)

    with pytest.raises(ArchitectureError, match=r'has one output and one label, .*such as \["not defect", "defect"\]$'):
        stage_weights(asked, tmp_path / "staged")
    with pytest.raises(ArchitectureError, match=r"one.pt answers with 1 labels, but .*labels.json names 3"):
        stage_weights(replace(asked, labels=labels_file(tmp_path)), tmp_path / "staged")
    assert os.listdir(tmp_path / "staged") == []


def test_a_folder_in_the_form_of_others_holds_weights_and_labels(tmp_path):
    folder = tmp_path / "hub"
    folder.mkdir()
    state = build_network("mlp", Preprocessing("L", 12, 12), 3).state_dict()
    safetensors.torch.save_file(state, folder / "model.safetensors")
    torch.save(state, folder / "pytorch_model.bin")
    config = {"id2label": {"0": "ash", "1": "birch", "2": "cedar"}}
    (folder / "config.json").write_text(json.dumps(config))
    (tmp_path / "staged").mkdir()

    card = stage_weights(WeightsImport(folder, None, folder / "config.json", 12), tmp_path / "staged").card

    assert (card.architecture, card.labels) == ("mlp", TREES)
    assert card.training["imported"]["file"] == "model.safetensors"


@pytest.mark.parametrize(("mean", "warned"), [([0.5, 0.5, 0.5], False), ([0.485, 0.456, 0.406], True)])
def test_a_config_of_another_normalisation_is_warned_of(tmp_path, mean, warned):
    torch.save(build_network("speednet", Preprocessing("RGB", 32, 32), 3).state_dict(), tmp_path / "weights.pt")
    config = labels_file(tmp_path, {"label_names": TREES, "pretrained_cfg": {"mean": mean, "std": [0.5, 0.5, 0.5]}})
    (tmp_path / "staged").mkdir()

    model = stage_weights(WeightsImport(tmp_path / "weights.pt", None, config), tmp_path / "staged")

    told = (
        "labels.json says that the network was trained with mean [0.485, 0.456, 0.406], the architecture's default is"
    )
    assert [told in warning for warning in model.warnings] == [True] * warned


# Folders from elsewhere


@pytest.mark.parametrize("name", [CARD_FILE, WEIGHTS_FILE, INT8_FILE])
@pytest.mark.parametrize("target", ["/dev/zero", "{root}/outside", "pipe"])
def test_a_folder_is_imported_without_following_links_or_opening_pipes_and_devices(tmp_path, name, target):
    model = make_random_model(tmp_path / "model")
    (tmp_path / "outside").write_bytes((model / name).read_bytes() if (model / name).exists() else b"")
    (model / name).unlink(missing_ok=True)
    if target == "pipe":
        os.mkfifo(model / name)
    else:
        (model / name).symlink_to(target.format(root=tmp_path))
    (tmp_path / "staged").mkdir()

    with pytest.raises(ModelFormatError, match=r"is not an exported model: .*(leads out of the folder|is a pipe)"):
        stage_folder(model, tmp_path / "staged")


def test_a_link_that_stays_in_the_folder_is_followed(tmp_path):
    model = make_random_model(tmp_path / "model")
    (model / WEIGHTS_FILE).rename(model / "blob")
    (model / WEIGHTS_FILE).symlink_to("blob")
    (tmp_path / "staged").mkdir()

    stage_folder(model, tmp_path / "staged")

    assert not (tmp_path / "staged" / WEIGHTS_FILE).is_symlink()


@pytest.mark.parametrize("name", [CARD_FILE, WEIGHTS_FILE])
def test_a_file_larger_than_the_model_can_be_is_not_copied(tmp_path, name):
    model = make_random_model(tmp_path / "model")
    os.truncate(model / name, 10**12)  # a hole: it takes no space here
    (tmp_path / "staged").mkdir()

    with pytest.raises(ModelFormatError, match=r"1,000,000\.0 MB; at most 64\.\d MB belong to such a model"):
        stage_folder(model, tmp_path / "staged")


@pytest.mark.parametrize(
    ("labels", "told"), [(("one",), "has one output and one label"), (("a\x1b[2J", "b"), "U\\+001B")]
)
def test_a_folder_whose_labels_are_none_is_refused(tmp_path, labels, told):
    model = make_random_model(tmp_path / "model")
    card = Classifier.load(model).card
    (model / CARD_FILE).write_bytes(replace(card, labels=labels, calibration=None).to_bytes())
    (tmp_path / "staged").mkdir()

    with pytest.raises(ModelingError, match=told):
        stage_folder(model, tmp_path / "staged")


def test_an_onnx_file_has_the_lowest_version_of_the_format_that_its_operators_have(exported):
    _, export = exported
    file = onnx.load(export.path)

    assert file.ir_version == onnx.helper.find_min_ir_version_for(file.opset_import) <= 9
