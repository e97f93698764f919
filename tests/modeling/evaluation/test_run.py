"""An evaluation from request to folder, with a model whose answers are known."""

import csv
import io
import json
import math
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from modeling.errors import DataError, ModelFormatError, ModelingError
from modeling.evaluation.request import EvaluateRequest
from modeling.evaluation.run import evaluate, evaluate_model
from modeling.evaluation.write import documents
from modeling.exchange.export import export_folder
from modeling.exchange.import_weights import stage_folder
from modeling.images.progress import QUIET_S
from modeling.metrics.calibration import NEVER, Calibration
from modeling.metrics.evaluation import Evaluation
from tests.support.images import grey_png, make_idx
from tests.support.small_models import make_data, make_model, write_split

CALIBRATION = Calibration(2.0, 0.1, (0.9, NEVER), 0.5, 100, 0.1, 0.0, 0.05)


@pytest.fixture
def events():
    return []


@dataclass
class Result:
    """An evaluation, and the documents it would leave."""

    evaluation: Evaluation
    document: dict
    predictions: list[list[str]]


@pytest.fixture
def run(tmp_path, events):
    """Evaluates a model on data; the report, which takes its time, is left out."""

    def run(model, data, **options):
        evaluated, evaluation = evaluate_model(EvaluateRequest(model, data, tmp_path / "out", **options), events.append)
        written = documents(evaluated, evaluation)
        rows = list(csv.reader(io.StringIO(written["predictions.csv"], newline="")))
        return Result(evaluation, json.loads(written["evaluation.json"]), rows)

    return run


def texts(events, kind):
    return [event["text"] for event in events if event["event"] == kind]


def test_an_evaluation_leaves_figures_predictions_and_a_report_and_the_next_one_replaces_them(tmp_path, events, run):
    model = make_model(tmp_path / "model", slope=0.05, calibration=CALIBRATION)
    data = make_data(tmp_path / "data", dark=[8, 100, 140], light=[200, 228])
    out = tmp_path / "out"
    out.mkdir()
    (out / "evaluation.json").write_text("an earlier one")

    evaluation = evaluate(EvaluateRequest(model, data, out, model_ref="lamps@1"), events.append)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "model", "out"]
    assert sorted(path.name for path in out.iterdir()) == ["evaluation.json", "plots", "predictions.csv", "report.html"]
    assert (evaluation.num_images, evaluation.num_right, evaluation.temperature) == (5, 4, 2.0)
    assert [mistake.name for mistake in evaluation.mistakes] == ["dark/140.png"]
    assert (out / "predictions.csv").read_text().count("\n") == 6
    assert json.loads((out / "evaluation.json").read_text()) == {
        "version": 2,
        "model": "lamps@1",
        "weights_sha256": json.loads((model / "model.json").read_text())["weights_sha256"],
        "data": str(data),
        "part": "all",
        "engine": "torch fp32",
        "precision": "fp32",
        "reference": {"engine": "torch fp32", "difference": None},
        "num_unreadable": 0,
        "unreadable": [],
        "num_left_out": 0,
        "labels_left_out": [],
        "num_trained_on": None,
        "nothing_accepted": None,
        **json.loads(json.dumps(evaluation.to_json())),
    }
    assert events == [
        {"event": "phase", "text": "looking for images", "quiet_s": QUIET_S},
        {"event": "evaluate", "num_done": 5, "num_images": 5},
        {"event": "phase", "text": "writing the report", "quiet_s": QUIET_S},
    ]
    assert "lamps@1" in (out / "report.html").read_text()
    assert "the reference itself" in (out / "report.html").read_text()


def test_a_name_with_a_carriage_return_is_one_cell_of_the_predictions(tmp_path, run):
    model = make_model(tmp_path / "model")
    data = make_data(tmp_path / "data", dark=[8], light=[200])
    (data / "dark" / "008.png").rename(data / "dark" / "a\rb.png")

    assert [cells[0] for cells in run(model, data).predictions] == ["name", "dark/a\rb.png", "light/200.png"]


def test_predictions_hold_scores_and_decisions_as_the_calibration_makes_them(tmp_path, run):
    model = make_model(tmp_path / "model", slope=0.05, calibration=CALIBRATION)
    data = make_data(tmp_path / "data", dark=[8, 100, 140], light=[200, 228])

    header, *rows = run(model, data).predictions

    def score(path):
        brightness = int(path[-7:-4])
        return 1 / (1 + math.exp(-abs(brightness - 127.5) * 0.05 / 2))  # 2: the temperature

    assert header == ["name", "label", "predicted", "score", "decision"]
    assert [(*row[:3], row[4]) for row in rows] == [
        ("dark/008.png", "dark", "dark", "accept"),
        ("dark/100.png", "dark", "dark", "review"),
        ("dark/140.png", "dark", "light", "review"),
        ("light/200.png", "light", "light", "review"),
        ("light/228.png", "light", "light", "review"),
    ]
    assert [float(row[3]) for row in rows] == pytest.approx([score(row[0]) for row in rows], abs=0.005)


def test_a_model_without_calibration_decides_nothing(tmp_path, run):
    model = make_model(tmp_path / "model")
    data = make_data(tmp_path / "data", dark=[0], light=[255])

    result = run(model, data)

    assert (result.evaluation.decisions, result.evaluation.temperature) == (None, 1.0)
    assert [row[4] for row in result.predictions[1:]] == ["", ""]


def test_unreadable_images_are_counted_and_listed_and_cost_their_neighbours_nothing(tmp_path, run, events):
    model = make_model(tmp_path / "model")
    data = make_data(tmp_path / "data", dark=[1, 2], light=[254])
    (data / "dark" / "001.png").write_bytes(b"")
    (data / "dark" / "000.png").write_bytes(b"no image at all")

    found = run(model, data).document

    assert (found["num_images"], found["accuracy"], found["num_unreadable"]) == (2, 1.0, 2)
    assert [(each["name"], each["error_code"]) for each in found["unreadable"]] == [
        ("dark/000.png", "not_an_image"),
        ("dark/001.png", "empty"),
    ]
    assert texts(events, "warning") == ["2 of 4 images cannot be read; no figure has them"]


def test_data_of_which_nothing_can_be_read_are_refused(tmp_path, run):
    model = make_model(tmp_path / "model")
    data = make_data(tmp_path / "data", dark=[1], light=[254])
    for path in data.rglob("*.png"):
        path.write_bytes(b"")

    with pytest.raises(DataError, match=r"none of 2 images can be read; dark/001\.png: the file is empty"):
        run(model, data)


def test_labels_are_matched_by_name_and_those_missing_in_the_data_are_named(tmp_path, run, events):
    model = make_model(tmp_path / "model", labels=("light", "neon", "dark"))
    data = make_data(tmp_path / "data", dark=[0, 1], light=[255])

    evaluation = run(model, data).evaluation

    assert evaluation.labels == ("light", "neon", "dark")
    assert evaluation.confusion == ((0, 0, 1), (2, 2, 2))
    assert evaluation.classes_without_images == ("neon",)
    assert texts(events, "warning") == ["class neon has no images: nothing is measured for it"]


@pytest.mark.parametrize("how", ["empty folder", "unreadable", "no folder", "empty test folder"])
def test_an_evaluation_goes_on_without_images_of_a_class_and_names_it(tmp_path, run, events, how):
    model = make_model(tmp_path / "model")
    data = make_data(tmp_path / "data", dark=[0, 200])
    if how != "no folder":
        (data / "light").mkdir()
    if how == "unreadable":
        (data / "light" / "1.png").write_bytes(b"")
    if how == "empty test folder":
        (tmp_path / "parts").mkdir()
        data = data.rename(tmp_path / "parts" / "test").parent

    found = run(model, data)

    assert found.document["classes_without_images"] == ["light"]
    assert found.document["classes"][1] == {
        "label": "light", "num_images": 0, "num_predicted": 1, "num_right": 0,
        "precision": None, "recall": None, "recall_interval": None, "f1": None,
    }  # fmt: skip
    assert (found.document["num_images"], found.document["accuracy"]) == (2, 0.5)
    assert texts(events, "warning")[-1] == "class light has no images: nothing is measured for it"


def test_data_without_any_image_are_refused(tmp_path, run):
    model = make_model(tmp_path / "model")
    (tmp_path / "data" / "dark").mkdir(parents=True)

    with pytest.raises(DataError, match="holds no images"):
        run(model, tmp_path / "data")


def test_a_label_that_the_model_does_not_know_is_named_with_those_it_knows(tmp_path, run):
    model = make_model(tmp_path / "model")
    data = make_data(tmp_path / "data", neon=[200], red=[100])

    with pytest.raises(
        DataError, match="has images of 'neon', 'red', which the model does not know; it knows 'dark', 'light'"
    ):
        run(model, data)


def test_images_of_labels_that_the_model_does_not_know_are_left_out_and_counted(tmp_path, run, events):
    model = make_model(tmp_path / "model")
    data = make_data(tmp_path / "data", dark=[0], neon=[200, 201], red=[7], light=[255])

    result = run(model, data)

    assert (result.evaluation.num_images, result.evaluation.accuracy) == (2, 1.0)
    assert [row[0] for row in result.predictions[1:]] == ["dark/000.png", "light/255.png"]
    assert (result.document["num_left_out"], result.document["labels_left_out"]) == (3, ["neon", "red"])
    said = "3 images are left out, of labels that the model does not know: neon, red"
    assert texts(events, "warning") == [said]

    evaluate(EvaluateRequest(model, data, tmp_path / "out"), events.append)

    head, _, _ = (tmp_path / "out" / "report.html").read_text().partition("<table")
    assert f"{said}." in head


def test_images_that_the_model_was_trained_on_are_told(tmp_path, run, events):
    model = make_model(tmp_path / "model")
    data = make_data(tmp_path / "data", dark=[0, 1, 2], light=[254, 255])
    parts = ["train", "train", "test", "validation", "train"]
    write_split(model, dict(zip(sorted(data.rglob("*.png")), parts, strict=True)))

    result = run(model, data)

    assert result.document["num_trained_on"] == 3
    assert texts(events, "warning") == [
        "the model was trained on 3 of these 5 images: the figures flatter it; --part test leaves them out"
    ]


@pytest.mark.parametrize(
    ("part", "names"),
    [("train", ["dark/000.png", "dark/001.png"]), ("validation", ["light/254.png"]), ("test", ["dark/002.png"])],
)
def test_a_part_is_that_of_the_models_own_split_wherever_the_files_lie_now(tmp_path, run, part, names):
    model = make_model(tmp_path / "model")
    data = make_data(tmp_path / "data", dark=[0, 1, 2], light=[254])
    parts = ["train", "train", "test", "validation"]
    write_split(model, dict(zip(sorted(data.rglob("*.png")), parts, strict=True)))
    (data / "light" / "255.png").write_bytes(grey_png(255))  # new since

    result = run(model, data, part=part)

    assert [row[0] for row in result.predictions[1:]] == names
    assert result.document["num_trained_on"] == (len(names) if part == "train" else 0)


def test_a_copy_that_training_left_out_does_not_hide_the_test_image(tmp_path, run):
    model = make_model(tmp_path / "model")
    data = make_data(tmp_path / "data", dark=[0, 1], light=[254])
    test, leaked = data / "dark" / "000.png", data / "dark" / "copy.png"
    leaked.write_bytes(test.read_bytes())
    write_split(model, {test: "test", leaked: "leaked", data / "dark" / "001.png": "train"})

    assert run(model, data, part="test").evaluation.num_images == 2


def test_without_a_split_a_part_is_the_official_one(tmp_path, run):
    data = make_idx(tmp_path / "idx", num_train=6, num_test=4)
    model = make_model(tmp_path / "model", labels=("0", "light", "1", "dark"))

    result = run(model, data, part="test")

    assert result.evaluation.num_images == 4
    assert [row[0] for row in result.predictions[1:]] == [f"test/{index}" for index in range(4)]


def test_a_part_that_nobody_knows_is_refused(tmp_path, run):
    model = make_model(tmp_path / "model")
    data = make_data(tmp_path / "data", dark=[0], light=[255])
    other = make_data(tmp_path / "other", dark=[1], light=[254])
    write_split(model, dict.fromkeys(other.rglob("*.png"), "train"))

    with pytest.raises(DataError, match="has no test part: the model's training has seen none of its images"):
        run(model, data, part="test")


@pytest.fixture
def again(tmp_path):
    """A model that was trained, exported and imported again, and the images that it was trained on."""
    data = make_data(tmp_path / "data", dark=[0, 1], light=[254, 255])
    model = make_model(tmp_path / "trained", training={"data": {"num_train": 4}})
    write_split(model, dict.fromkeys(data.rglob("*.png"), "train"))
    export_folder(model, tmp_path / "exported")
    (tmp_path / "again").mkdir()
    stage_folder(tmp_path / "exported", tmp_path / "again")
    return tmp_path / "again", data


def test_a_model_without_a_record_of_its_training_images_is_refused_a_part_for_that_reason(run, again):
    with pytest.raises(DataError, match="has no test part: the model has no record of its training images"):
        run(*again, part="test")


def test_a_model_without_a_record_of_its_training_images_says_that_its_figures_may_flatter_it(run, again, events):
    assert run(*again).document["num_trained_on"] is None

    assert texts(events, "warning") == [
        "the model has no record of its training images (an export carries none): "
        "if some of these are among them, the figures flatter it"
    ]


def test_a_part_without_images_is_refused(tmp_path, run):
    model = make_model(tmp_path / "model")
    data = make_data(tmp_path / "data", dark=[0], light=[255])
    write_split(model, dict.fromkeys(data.rglob("*.png"), "train"))

    with pytest.raises(DataError, match="has no images in the test part; evaluate all of them"):
        run(model, data, part="test")


def test_a_damaged_split_is_told(tmp_path, run):
    model = make_model(tmp_path / "model")
    (model / "split.csv").write_text("a,b\n1,2\n")

    with pytest.raises(ModelFormatError, match=r"split\.csv is not a split"):
        run(model, make_data(tmp_path / "data", dark=[0], light=[255]))


def test_two_runs_give_the_same_documents(tmp_path, run):
    model = make_model(tmp_path / "model", slope=0.02, calibration=CALIBRATION)
    data = make_data(tmp_path / "data", dark=list(range(0, 140, 2)), light=list(range(120, 255, 3)))

    assert run(model, data) == run(model, data)


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path, events):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.doc").write_text("precious")

    with pytest.raises(ModelingError, match="out exists and holds something else than an evaluation"):
        evaluate(EvaluateRequest(tmp_path / "no model", tmp_path / "no data", tmp_path / "out"), events.append)

    assert (tmp_path / "out" / "thesis.doc").read_text() == "precious"


def test_images_of_other_sizes_and_colours_are_read_as_the_model_wants_them(tmp_path, run):
    model = make_model(tmp_path / "model")
    data = make_data(tmp_path / "data", dark=[0], light=[255])
    Image.fromarray(np.full((90, 60, 3), 250, np.uint8)).save(data / "light" / "large.jpg")

    assert run(model, data).evaluation.accuracy == 1.0


# The request


def test_a_request_survives_json(tmp_path):
    request = EvaluateRequest(tmp_path / "m", tmp_path / "d", tmp_path / "o", "cuda:1", "test", "birds@2", "int8")

    assert EvaluateRequest.from_json(json.loads(json.dumps(request.to_json()))) == request


def test_a_request_needs_little(tmp_path):
    request = EvaluateRequest.from_json({"model": "store/birds/2", "data": "d", "output": "o"})

    assert (request.device, request.part, request.model_ref, request.precision) == ("cpu", "all", "2", "auto")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"part": "best"}, "part: Input should be 'all', 'train', 'validation' or 'test', not 'best'"),
        ({"precision": "fp8"}, "precision: Input should be 'auto', 'fp32', 'bf16' or 'int8', not 'fp8'"),
        ({"epochs": "3"}, "epochs: the key is unknown"),
        ({"data": 3}, "data: Input should be a valid string, not 3"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(change, told):
    with pytest.raises(ModelingError, match=told):
        EvaluateRequest.from_json({"model": "m", "data": "d", "output": "o"} | change)


def test_a_request_without_data_is_refused():
    with pytest.raises(ModelingError, match="data: the key is missing"):
        EvaluateRequest.from_json({"model": "m", "output": "o"})
