"""`models export`, `import`, `summary` and `architectures`."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from modeling.images.preprocessing import Preprocessing
from modeling.networks.architectures import ARCHITECTURES
from modeling.networks.build import build_network
from modeling.registry.store import ModelStore
from orchestrator.cli import main

LABELS = ["ash", "birch", "cedar"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PIGEONHOLE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    torch.save(build_network("mlp", Preprocessing("L", 12, 12), 3).state_dict(), tmp_path / "mlp.pt")
    (tmp_path / "labels.json").write_text(json.dumps(LABELS))
    (tmp_path / "labels.csv").write_text("ash\nbirch\n")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").write_text("{")
    (tmp_path / "net.onnx").touch()
    (tmp_path / "net.pb").write_bytes(b"\x08\x0a\x12\x07pytorch")  # as torch's exporter begins
    return tmp_path / "home"


def run(*words: str) -> Result:
    return CliRunner().invoke(main, ["models", *words])


def import_mlp(name: str = "trees") -> Result:
    return run("import", "mlp.pt", "--name", name, "--arch", "mlp", "--labels", "labels.json", "--image-size", "12")


def test_imported_weights_are_a_published_model(home):
    result = import_mlp()

    assert (result.exit_code, result.stdout) == (0, "trees@1\n")
    card = ModelStore(home / "models").card("trees@1")
    assert (card.architecture, list(card.labels), card.preprocessing) == ("mlp", LABELS, Preprocessing("L", 12, 12))
    assert import_mlp().stdout == "trees@1\n"  # the same weights are the same version
    assert [entry for entry in os.listdir(home / "models") if entry.startswith(".importing")] == []


def test_an_import_says_what_it_recognised_and_shows_its_labels(home):
    Path("labels.txt").write_text("1\n10\n2\n")

    result = run("import", "mlp.pt", "--name", "trees", "--labels", "labels.txt", "--image-size", "12")

    assert (result.exit_code, result.stdout) == (0, "trees@1\n")
    assert result.stderr.splitlines() == [
        "recognised as mlp by its tensors",
        "the labels are numbers in the order of text: output 1 is '10', not '2'; if the network was trained with "
        "labels in the order of numbers, sort the file so and import it again",
        "labels by output: 0 1, 1 10, 2 2",
        "published trees@1; use it with `pigeonhole classify SOURCE --model trees@1`",
    ]


def test_a_folder_with_a_config_needs_no_labels_and_a_key_chooses_its_weights(home):
    state = torch.load("mlp.pt")
    Path("hub").mkdir()
    torch.save({"raw": state, "ema": {name: 2 * one for name, one in state.items()}}, "hub/model.pth")
    Path("hub/config.json").write_text(json.dumps({"label_names": LABELS}))

    averaged = run("import", "hub", "--name", "a", "--image-size", "12")
    raw = run("import", "hub", "--name", "b", "--image-size", "12", "--weights-key", "raw")

    assert (averaged.exit_code, raw.exit_code) == (0, 0)
    assert "the averaged weights (EMA) under 'ema' are taken; --weights-key raw takes the raw" in averaged.stderr
    assert "EMA" not in raw.stderr
    assert list(ModelStore(home / "models").card("b").labels) == LABELS


def test_an_import_that_is_terminated_leaves_nothing(home, monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(ModelStore, "publish", lambda *_: signal.raise_signal(signal.SIGTERM))

    result = import_mlp()

    assert result.exit_code == 128 + signal.SIGTERM
    assert os.listdir(home / "models") == []
    assert signal.getsignal(signal.SIGTERM) == before


def test_an_exported_folder_is_imported_under_another_name_with_the_same_digest(home):
    import_mlp()

    exported = json.loads(run("export", "trees", "-o", "out", "--format", "folder", "--json").stdout)
    imported = json.loads(run("import", "out", "--name", "wood", "--json").stdout)

    assert (exported["model"], exported["format"], exported["path"]) == ("trees@1", "folder", "out")
    assert imported == {
        "model": "wood@1",
        "digest": exported["digest"],
        "path": str(home / "models" / "wood" / "1"),
    }


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["import", "nowhere", "--name", "x"], 4, "there is no 'nowhere'; give a file of weights"),
        (["import", "mlp.pt", "--name", "x"], 2, "'mlp.pt' is a file of weights; --labels is required"),
        (["import", "mlp.pt", "--name", "x", "--arch", "mlp"], 2, "--labels is required"),
        (["import", "mlp.pt", "--name", "X y"], 2, "model name 'X y' must be"),
        (["import", "model", "--name", "x", "--arch", "mlp"], 2, "which holds what --arch would set"),
        (["import", "model", "--name", "x"], 1, "model/model.json: not JSON"),
        (["import", ".", "--name", "x"], 2, "'.' is not an exported model, as it has no model.json; --labels is"),
        (
            ["import", "mlp.pt", "--name", "x", "--arch", "mlp", "--labels", "labels.json"], 2,
            "mlp takes images of any size; give the image size in px",
        ),
        (
            ["import", "mlp.pt", "--name", "x", "--arch", "lenet", "--labels", "labels.json"], 2,
            "mlp.pt does not fit lenet: ",
        ),
        (
            ["import", "mlp.pt", "--name", "x", "--arch", "mlp", "--labels", "labels.csv", "--image-size", "12"], 2,
            "mlp.pt answers with 3 labels, but labels.csv names 2; give the labels that it was trained with",
        ),
        (["import", "net.onnx", "--name", "x"], 2, "'net.onnx' is an ONNX file, which cannot be imported; export"),
        (["import", "net.pb", "--name", "x"], 2, "'net.pb' is an ONNX file"),
        (["export", "trees", "-o", "out"], 2, "'out' does not end in .onnx; give it that suffix, or add --format f"),
        (["export", "trees@7", "-o", "out"], 4, "no model 'trees@7'"),
        (["export", "trees", "-o", "labels.json"], 2, "output 'labels.json' exists; name one that does not"),
        (["summary", "nothing"], 4, "no model 'nothing'"),
        (["summary", "trees", "--num-classes", "3"], 2, "--num-classes and --image-size are for architectures"),
    ],
)  # fmt: skip
def test_errors_are_one_line_and_their_exit_code(home, words, code, told):
    import_mlp()

    result = run(*words)

    assert (result.exit_code, result.stdout) == (code, "")
    assert told in result.stderr
    assert result.stderr.count("\n") == 1
    assert not Path("out").exists()


def test_a_summary_shows_layers_and_sums_of_a_model_and_of_an_architecture(home):
    import_mlp()

    model = json.loads(run("summary", "trees", "--json").stdout)
    architecture = run("summary", "perceptron", "--image-size", "12", "--num-classes", "3")

    assert (model["name"], model["architecture"], model["num_labels"], model["image"]) == (
        "trees",
        "mlp",
        3,
        [12, 12, 1],
    )
    assert model["parameters"] == sum(tensor.numel() for tensor in torch.load("mlp.pt").values())
    assert [layer["output"] for layer in model["layers"]][-1] == [3]
    assert architecture.stdout.splitlines() == [
        "LAYER  TYPE     OUTPUT  PARAMETERS  MULTIPLY-ADDS",
        "0      Flatten  144     -           -",
        "1      Linear   3       435         432",
        "image          12 x 12 px, grey",
        "parameters     435 (435 trainable)",
        "multiply-adds  432 for one image",
        "size           0.0 MiB",
    ]


def test_a_summary_counts_trainable_and_frozen_parameters(home):
    facts = json.loads(run("summary", "speednet", "--json").stdout)
    shown = run("summary", "speednet").stdout

    assert facts["parameters"] > facts["trainable"]
    assert f"parameters     {facts['parameters']:,} ({facts['trainable']:,} trainable)\n" in shown


def test_every_architecture_is_listed_with_its_size_and_weights():
    rows = {row["name"]: row for row in json.loads(run("architectures", "--json").stdout)}

    assert list(rows) == list(ARCHITECTURES)
    assert rows["resnet50"] == {
        "name": "resnet50",
        "summary": "torchvision's resnet50, for photographs of 224 px",
        "image_size": 224,
        "weights": "IMAGENET1K_V2",
    }
    assert len(run("architectures").stdout.splitlines()) == len(ARCHITECTURES) + 1
