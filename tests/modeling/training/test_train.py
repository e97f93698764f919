import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import torch

from modeling.data.splits import read_split
from modeling.errors import ArchitectureError, DataError, ModelFormatError, ModelingError
from modeling.images.decode import decode_image
from modeling.images.preprocessing import Preprocessing
from modeling.inference import find_engine
from modeling.inference.choose_engine import load_remembered
from modeling.inference.classifier import Classifier
from modeling.inference.classify_files import classify_files
from modeling.inference.engines.choice import copy_artifacts
from modeling.inference.graph_classifier import load_graph
from modeling.networks.architectures import get_architecture
from modeling.networks.build import build_network, select_device
from modeling.registry.card import ModelCard
from modeling.registry.store import ModelStore, ModelVersion
from modeling.training.request import TrainRequest
from modeling.training.train import train
from tests.support.images import encode, glyph, grey_png, idx_bytes, make_class_folders, make_idx

ROOT = Path(__file__).resolve().parents[3]


FILES = [
    "data_report.json", "evaluation.json", "history.csv", "model.json", "model.safetensors", "plots",
    "quarantine.csv", "report.html", "split.csv",
]  # fmt: skip


def ignore(event):
    pass


def request(data: Path, output: Path, **changes) -> TrainRequest:
    options = {"architecture": "cnn", "epochs": 3, "batch_size": 8} | changes
    return TrainRequest(data=data, output=output, **options)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small model, the events of its training, and its data."""
    root = tmp_path_factory.mktemp("trained")
    data = make_class_folders(root / "data")
    (data / "down" / "broken.png").write_bytes(grey_png(0)[:40])
    before, events = snapshot(data), []
    card = train(request(data, root / "model", epochs=6, learning_rate=5e-3, work=root / "work"), events.append)
    assert snapshot(data) == before  # input folders are never written to
    return root / "model", card, events, data


def test_training_leaves_a_model_that_says_how_it_was_made(trained):
    folder, card, _, data = trained

    assert sorted(os.listdir(folder)) == FILES
    assert sorted(os.listdir(folder.parent)) == ["data", "model", "work"]
    assert ModelCard.from_json(json.loads((folder / "model.json").read_bytes())) == card
    assert (card.labels, card.architecture) == (("across", "down"), "cnn")
    assert card.preprocessing.shape == (12, 12, 1)
    counts = {"num_train": 32, "num_validation": 4, "num_test": 4}
    accuracies = {"validation_accuracy": 1.0, "test_accuracy": 1.0, "test_macro_f1": 1.0}
    assert counts | accuracies == {name: card.metrics[name] for name in counts | accuracies}
    assert card.training["data"]["path"] == str(data)
    assert card.training["plan"]["recipe"]["epochs"] == 6
    assert card.calibration.num_images == 4
    assert "broken.png" in (folder / "quarantine.csv").read_text()
    assert len((folder / "split.csv").read_text().splitlines()) == 42
    assert len((folder / "history.csv").read_text().splitlines()) == 7
    assert json.loads((folder / "evaluation.json").read_bytes())["num_images"] == 4
    assert b"across" in (folder / "report.html").read_bytes()
    assert {"history.csv", "curves.png", "tensorboard"} <= set(os.listdir(folder.parent / "work"))


def test_training_tells_its_progress_in_events(trained):
    folder, card, told, _ = trained
    events = [event for event in told if event["event"] not in ("warning", "phase")]
    phases = [event["text"] for event in told if event["event"] == "phase"]

    assert {"looking for images", "comparing the images", "writing the model and its report"} <= set(phases)
    assert any("broken" in event["text"] for event in told if event["event"] == "warning")
    kinds = [kind for kind, _ in groupby(event["event"] for event in events)]  # slow stages tell more than once
    assert kinds == ["scan", "data", "decode", "epoch", "model"]
    epochs = [event for event in events if event["event"] == "epoch"]
    data, model = next(event for event in events if event["event"] == "data"), events[-1]
    assert data["classes"] == {"across": 20, "down": 20}
    assert data["num_skipped"] == 1
    assert [event["epoch"] for event in epochs] == [1, 2, 3, 4, 5, 6]
    assert epochs[0].keys() >= {"stage", "epoch", "epochs", "loss", "accuracy", "images_per_sec"}
    digest = hashlib.sha256((folder / "model.json").read_bytes()).hexdigest()
    assert model == {"event": "model", "digest": digest, "metrics": card.metrics}


def test_the_classifier_gives_scores_best_first_and_the_same_ones_again(trained):
    folder, card, _, _ = trained
    classifier = Classifier.load(folder)
    images = np.stack([decode_image(encode(glyph(label, 3)), card.preprocessing) for label in (0, 1, 0)])

    predictions = classifier.predict(images, top_k=5)

    assert [prediction.labels for prediction in predictions] == [
        ("across", "down"),
        ("down", "across"),
        ("across", "down"),
    ]
    assert all(first >= second for first, second in (prediction.scores for prediction in predictions))
    assert all(sum(prediction.scores) == pytest.approx(1) for prediction in predictions)
    assert predictions == Classifier.load(folder).predict(images, top_k=5)
    assert [len(prediction.labels) for prediction in classifier.predict(images, top_k=1)] == [1, 1, 1]
    with pytest.raises(ValueError, match="expected uint8 images"):
        classifier.predict(images.astype(np.float32), 1)


@pytest.mark.parametrize("architecture", ["cnn", "cnn_pyramid", "mlp", "perceptron"])
def test_the_same_seed_gives_the_same_model_bit_for_bit_and_another_seed_another(tmp_path, architecture):
    data = make_idx(tmp_path / "data")
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.rand(3)  # what others draw from the global generator must not matter
        options = {"architecture": architecture, "seed": seed, "epochs": 2}
        train(request(data, tmp_path / name, cache=tmp_path / "cache", **options), ignore)

    a, b, c = (snapshot_names(tmp_path / name) for name in "abc")
    assert a == b
    assert a["model.safetensors"] != c["model.safetensors"]


def snapshot_names(folder: Path) -> dict[str, bytes]:
    names = ("model.json", "model.safetensors", "split.csv", "data_report.json", "evaluation.json")
    return {name: (folder / name).read_bytes() for name in names}


def test_the_official_test_part_of_idx_files_is_the_test_part(tmp_path):
    data = make_idx(tmp_path / "data", 44, 10)
    images = np.random.default_rng(1).integers(0, 200, (50, 12, 12))
    images[40:42] = images[0:2]  # two of them are test images, too, ...
    images = np.concatenate([images[10:], images[2:6] + 9, images[:10]])  # ... and four, but brighter
    for part, chosen in (("train", images[:44]), ("t10k", images[44:])):
        (data / f"{part}-images-idx3-ubyte").write_bytes(idx_bytes(chosen))

    card = train(request(data, tmp_path / "model", epochs=1), ignore)

    counts = {name: card.metrics[name] for name in ("num_train", "num_validation", "num_test")}
    assert counts == {"num_train": 34, "num_validation": 4, "num_test": 10}


def test_training_without_held_out_parts_keeps_the_last_epoch(tmp_path):
    data = make_class_folders(tmp_path / "data", 4)

    card = train(request(data, tmp_path / "model", validation=0.0, test=0.0, image_size=16), ignore)

    assert card.metrics == {"num_train": 8, "num_validation": 0, "num_test": 0}
    assert card.training["best_epoch"] == 3
    assert card.preprocessing.shape == (16, 16, 1)


def test_a_class_of_which_nothing_can_be_read_ends_training(tmp_path):
    data = make_class_folders(tmp_path / "data", 2)
    (data / "third").mkdir()
    (data / "third" / "x.jpg").write_bytes(b"nothing")

    with pytest.raises(DataError, match=r"third"):
        train(request(data, tmp_path / "model"), ignore)
    assert not (tmp_path / "model").exists()


def test_training_again_replaces_its_own_output_and_never_other_files(tmp_path):
    data = make_idx(tmp_path / "data")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious").touch()

    train(request(data, tmp_path / "model", epochs=1), ignore)
    train(request(data, tmp_path / "model", epochs=1, seed=5), ignore)

    assert sorted(os.listdir(tmp_path / "model")) == FILES
    with pytest.raises(ModelingError, match="exists and is not a model"):
        train(request(data, tmp_path / "other"), ignore)


def test_a_learning_rate_that_diverges_is_a_mistake_and_leaves_no_model(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "modeling.training.fit.loop.normalise", lambda images, _: images.permute(0, 3, 1, 2) * float("nan")
    )

    with pytest.raises(ModelingError, match=r"training diverged: the loss is nan at step 1 \(epoch 1\)"):
        train(request(make_idx(tmp_path / "data"), tmp_path / "model"), ignore)
    assert not (tmp_path / "model").exists()


def test_a_damaged_model_is_refused(trained, tmp_path):
    folder, card, _, _ = trained
    weights = (folder / "model.safetensors").read_bytes()

    def load(card_bytes: bytes, weights: bytes):
        (tmp_path / "model.json").write_bytes(card_bytes)
        (tmp_path / "model.safetensors").write_bytes(weights)
        return Classifier.load(tmp_path)

    with pytest.raises(ModelFormatError, match="cannot be read"):
        Classifier.load(tmp_path / "absent")
    with pytest.raises(ModelFormatError, match="sha256"):
        load(card.to_bytes(), weights[:-1] + b"x")
    for change in ({"architecture": "mlp"}, {"labels": ["only"], "calibration": None}):
        changed = json.dumps(card.to_json() | change).encode()
        with pytest.raises(ModelFormatError, match="not the weights of a"):
            load(changed, weights)
    junk = json.dumps(card.to_json() | {"weights_sha256": hashlib.sha256(b"junk").hexdigest()}).encode()
    with pytest.raises(ModelFormatError, match="not the weights of a"):
        load(junk, b"junk")


@pytest.mark.parametrize("architecture", ["cnn", "cnn_pyramid", "mlp", "perceptron"])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (28, 28), (64, 48), (224, 224)])
def test_every_architecture_takes_every_size_and_mode(architecture, height, width):
    for mode in ("L", "RGB"):
        preprocessing = Preprocessing(mode, height, width)
        network = build_network(architecture, preprocessing, 7)
        assert network(torch.zeros(2, preprocessing.channels, height, width)).shape == (2, 7)


def test_an_unknown_architecture_names_the_choices():
    with pytest.raises(
        ArchitectureError, match=r"unknown architecture 'cn'; did you mean 'cnn'\? choose one of .*mlp, cnn"
    ):
        get_architecture("cn")


def test_an_absent_device_is_a_mistake():
    with pytest.raises(ModelingError, match="device 'gpu9'"):
        select_device("gpu9")
    with pytest.raises(ModelingError, match="cuda:99"):
        select_device("cuda:99")


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 0},
        {"epochs": True},
        {"batch_size": 1.5},
        {"learning_rate": 0},
        {"learning_rate": float("nan")},
        {"learning_rate": "fast"},
        {"budget_s": 0},
        {"max_error": 1},
        {"deterministic": 1},
        {"deterministic": True, "budget_s": 60},
        {"weights": 3},
        {"work": 3},
        {"image_size": 7},
        {"seed": -1},
        {"validation": 0.6, "test": 0.5},
        {"validation": -0.1},
        {"architecture": "resnet"},
        {"device": 3},
        {"surprise": 1},
        {"data": None},
    ],
)
def test_requests_out_of_range_are_refused(change):
    value = TrainRequest(Path("data"), "cnn", Path("out")).to_json()

    assert TrainRequest.from_json(json.loads(json.dumps(value))).to_json() == value
    with pytest.raises(ModelingError):
        TrainRequest.from_json(value | change)


def start(request_path: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "modeling.training.process", str(request_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )


def write_request(tmp_path: Path, **changes) -> Path:
    path = tmp_path / "request.json"
    data = make_idx(tmp_path / "data")
    path.write_text(json.dumps(request(data, tmp_path / "model", **changes).to_json()))
    return path


@pytest.mark.integration
def test_a_training_process_speaks_in_json_lines_and_leaves_a_model(tmp_path):
    with start(write_request(tmp_path, epochs=2)) as process:
        events = [json.loads(line)["event"] for line in process.stdout]
        assert process.wait(60) == 0

    kinds = [kind for kind, _ in groupby(event for event in events if event not in ("warning", "phase"))]
    assert (kinds, events.count("epoch")) == (["scan", "data", "epoch", "model"], 2)
    assert Classifier.load(tmp_path / "model").labels == ("0", "1")


@pytest.mark.integration
def test_an_operators_mistake_is_an_error_event_and_exit_code_1(tmp_path):
    path = write_request(tmp_path)
    (tmp_path / "data" / "train-images-idx3-ubyte").write_bytes(b"")

    with start(path) as process:
        events = [json.loads(line) for line in process.stdout]
        assert process.wait(60) == 1

    assert [event["event"] for event in events] == ["phase", "error"]
    assert "not an idx file" in events[1]["error"]


@pytest.mark.integration
@pytest.mark.parametrize(("ending", "code"), [("stdin", 75), ("sigterm", -signal.SIGTERM)])
def test_a_training_process_ends_with_its_parent_and_at_sigterm(tmp_path, ending, code):
    with start(write_request(tmp_path, epochs=10_000)) as process:
        process.stdout.readline()  # training has begun
        if ending == "stdin":
            process.stdin.close()
        else:
            process.terminate()
        assert process.wait(20) == code
    assert not (tmp_path / "model").exists()


def test_a_disk_that_is_full_when_the_model_is_saved_costs_no_earlier_model(tmp_path, monkeypatch):
    data = make_idx(tmp_path / "data")
    train(request(data, tmp_path / "model", epochs=1), ignore)
    before = snapshot(tmp_path / "model")

    def full(folder):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("modeling.durable.sync_tree", full)
    with pytest.raises(ModelingError, match=r"cannot be written to .*model: No space left on device; check the disk"):
        train(request(data, tmp_path / "model", epochs=1, seed=5), ignore)

    assert snapshot(tmp_path / "model") == before
    assert sorted(os.listdir(tmp_path)) == ["data", "model"]


def test_images_that_do_not_fit_in_memory_are_read_in_every_epoch_and_give_the_same_model(tmp_path, monkeypatch):
    data, events = make_class_folders(tmp_path / "data"), []
    options = {"epochs": 2, "cache": tmp_path / "cache"}
    train(request(data, tmp_path / "in memory", **options), ignore)
    monkeypatch.setattr("modeling.training.data.MAX_TENSOR_BYTES", 1000)

    train(request(data, tmp_path / "from disk", **options), events.append)

    assert "decoding again in every epoch" in next(event["text"] for event in events if event["event"] == "note")
    assert not [event for event in events if event["event"] == "decode"]
    assert snapshot_names(tmp_path / "from disk") == snapshot_names(tmp_path / "in memory")


def test_a_training_that_was_killed_goes_on_and_ends_with_the_same_model(tmp_path):
    data = make_idx(tmp_path / "data")
    options = {"epochs": 4, "architecture": "cnn_pyramid", "cache": tmp_path / "cache"}
    train(request(data, tmp_path / "whole", **options), ignore)

    class KilledError(Exception):
        pass

    def die_in_the_third_epoch(event):
        if event["event"] == "epoch" and event["epoch"] == 2:
            raise KilledError

    with pytest.raises(KilledError):
        train(request(data, tmp_path / "resumed", work=tmp_path / "work", **options), die_in_the_third_epoch)
    events = []
    train(request(data, tmp_path / "resumed", work=tmp_path / "work", **options), events.append)

    assert [event["epoch"] for event in events if event["event"] in ("resumed", "epoch")] == [2, 3, 4]
    assert snapshot_names(tmp_path / "resumed") == snapshot_names(tmp_path / "whole")
    history = (tmp_path / "resumed" / "history.csv").read_text().splitlines()
    assert [line.split(",")[1] for line in history] == ["epoch", "1", "2", "3", "4"]


def evaluation_of(folder: Path) -> dict:
    return json.loads((folder / "evaluation.json").read_bytes())


def test_the_counts_on_the_test_part_are_the_same_in_the_card_the_evaluation_and_the_report(tmp_path):
    data = make_class_folders(tmp_path / "data", 60)

    card = train(request(data, tmp_path / "model", test=0.5, validation=0.3, max_error=0.2), ignore)

    figures = evaluation_of(tmp_path / "model")
    decisions = figures["decisions"]
    assert (figures["part"], figures["num_images"], figures["nothing_accepted"]) == ("test", 60, None)
    assert card.metrics["num_test"] == figures["num_images"]
    assert card.metrics["test_num_right"] == figures["num_right"]
    assert card.metrics["test_num_accepted"] == decisions["num_accepted"] > 0
    assert card.metrics["test_num_accepted_wrong"] == decisions["num_accepted_wrong"]
    page = (tmp_path / "model" / "report.html").read_text()
    assert f"{decisions['num_accepted_wrong']} of {decisions['num_accepted']}\u00a0accepted images" in page


def test_without_a_test_part_the_figures_are_those_of_the_validation_images(tmp_path):
    data = make_class_folders(tmp_path / "data", 10)

    card = train(request(data, tmp_path / "model", test=0.0, validation=0.5, epochs=1), ignore)

    assert (evaluation_of(tmp_path / "model")["part"], card.metrics["num_test"]) == ("validation", 0)
    assert not any(name.startswith("test_") for name in card.metrics)


def test_few_validation_images_accept_nothing_and_the_card_says_how_many_it_takes(tmp_path):
    data = make_class_folders(tmp_path / "data", 10)

    card = train(request(data, tmp_path / "model", epochs=1), ignore)

    nothing = evaluation_of(tmp_path / "model")["nothing_accepted"]
    assert (nothing["num_images"], nothing["num_needed"]) == (2, 99)
    assert card.training["nothing_accepted"] == nothing
    assert card.metrics["test_num_accepted"] == 0


def test_a_class_without_test_images_is_named(tmp_path):
    data = make_class_folders(tmp_path / "source", 8)
    for part, labels in (("train", ("across", "down")), ("test", ("across",))):
        for label in labels:
            (tmp_path / "data" / part / label).mkdir(parents=True)
            for path in (data / label).glob("*[0-5].png" if part == "train" else "*[67].png"):
                path.rename(tmp_path / "data" / part / label / path.name)
    events = []

    train(request(tmp_path / "data", tmp_path / "model", epochs=1), events.append)

    assert evaluation_of(tmp_path / "model")["classes_without_images"] == ["down"]
    assert "class down has no test images: nothing is measured for it" in [event.get("text") for event in events]


def test_the_test_part_is_answered_by_the_engine_that_jobs_use_and_counted_as_its_answers_are(tmp_path, monkeypatch):
    monkeypatch.setattr(find_engine, "FAST_ENOUGH", float("inf"))
    monkeypatch.setattr(find_engine, "MIN_SPEEDUP", 0.0)  # the last engine is chosen, one of OpenVINO's
    data = make_class_folders(tmp_path / "data", 60)
    (tmp_path / "job").mkdir()
    store = ModelStore(tmp_path / "models")
    wanted = request(data, tmp_path / "job" / "model", test=0.5, validation=0.3, max_error=0.2, engines=store.engines)

    card = train(wanted, ignore)

    version = store.publish(tmp_path / "job" / "model", "bars")
    copy_artifacts(ModelVersion.at(tmp_path / "job" / "model").artifacts, version.artifacts)
    at_once = load_graph(version)  # the graph came with the choice
    model = load_remembered(version)
    rows = [row for row in read_split(version.path / "split.csv") if row.part == "test"]
    answers = list(classify_files([data / row.name for row in rows], model))
    accepted = [(answer, row) for answer, row in zip(answers, rows, strict=True) if answer.decision == "accept"]
    figures = evaluation_of(version.path)
    assert at_once is not None
    assert figures["engine"] == model.engine_name == at_once.engine_name
    assert (version.digest, card) == (card.digest, store.card("bars@1"))
    assert card.metrics["test_num_right"] == figures["num_right"]
    assert card.metrics["test_num_accepted"] == figures["decisions"]["num_accepted"] == len(accepted) > 0
    wrong = sum(answer.labels[0] != row.label for answer, row in accepted)
    assert card.metrics["test_num_accepted_wrong"] == figures["decisions"]["num_accepted_wrong"] == wrong
    assert sorted(os.listdir(tmp_path / "job")) == [".engines", "model"]


@pytest.mark.parametrize("failing", ["load_fastest", "copy_artifacts"])
def test_a_training_is_not_lost_for_an_engine_that_fails(failing, tmp_path, monkeypatch):
    data, events = make_class_folders(tmp_path / "data", 10), []

    def fail(*_, **__):
        raise RuntimeError("the compiler has crashed")

    monkeypatch.setattr(f"modeling.training.engine_answers.{failing}", fail)

    train(request(data, tmp_path / "model", epochs=1, engines=tmp_path / "engines"), events.append)

    assert evaluation_of(tmp_path / "model")["engine"] == "torch fp32"
    warnings = [event["text"] for event in events if event["event"] == "warning"]
    assert warnings[-1] == (
        "torch answered the test images, and not the engine that jobs use: RuntimeError: the compiler has crashed"
    )


def test_a_deterministic_training_chooses_no_engine(tmp_path):
    data = make_class_folders(tmp_path / "data", 10)

    train(request(data, tmp_path / "model", epochs=1, deterministic=True, engines=tmp_path / "engines"), ignore)

    assert evaluation_of(tmp_path / "model")["engine"] == "torch fp32"
    assert not (tmp_path / "engines").exists()
