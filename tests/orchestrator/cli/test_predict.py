"""`pigeonhole predict`: rows as jobs have them, what cannot be read, and the picture."""

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
from click.testing import Result
from PIL import Image

from modeling.inference.choose_engine import load_fastest
from modeling.inference.engines.choice import Choice, choice_path
from modeling.inference.engines.graphs import NetworkGraph
from modeling.inference.engines.hardware import hardware_key
from modeling.inference.graph_classifier import load_graph
from modeling.inference.pipeline import predict_units
from modeling.registry.store import ModelStore, ModelVersion
from orchestrator.contract.jobs.rows import JsonlFormat, Row
from tests.support.invoke import invoke
from tests.support.published_models import make_pngs, publish_model
from tests.support.small_models import make_random_model


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Three images, beside a published perceptron `digits`."""
    monkeypatch.setenv("PIGEONHOLE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    publish_model(tmp_path / "home" / "models", "digits")
    make_pngs(tmp_path / "images", 3)
    return sorted((tmp_path / "images").rglob("*.png"))


def run(*arguments: object, given: bytes | None = None) -> Result:
    return invoke("predict", *arguments, given=given)


def rows_of_a_job(version: ModelVersion, images: list[Path]) -> list[dict]:
    """As a worker makes them: on the engine that it remembers, or measures now."""
    sources = [[path.read_bytes for path in images]]
    found = predict_units(sources, load_fastest(version), top_k=5)
    rows = [
        Row(str(path), each)
        for path, each in zip(images, (one for result in found for one in result.predictions), strict=True)
    ]
    return [json.loads(line) for line in JsonlFormat().encode(rows).splitlines()]


def remember(version: ModelVersion, engine: str, batch_size: int) -> None:
    """Store a choice of engine, as measuring would."""
    from modeling.inference.classifier import Classifier

    classifier = Classifier.load(version.path)
    version.artifacts.mkdir(parents=True)
    graph = NetworkGraph(classifier.network, classifier.card, version.artifacts, ())
    if engine.startswith("openvino"):
        graph.read()
    choice = Choice(engine, batch_size, "here", batch_sizes={str(batch_size): 100.0}, graph_sha256=graph.sha256)
    path = choice_path(version.artifacts, "auto", hardware_key())
    path.write_text(json.dumps(asdict(choice)))


def test_without_a_remembered_engine_the_plain_one_answers_and_says_so(images):
    result = run(*images, "--model", "digits")

    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["IMAGE", *map(str, images)]
    assert "no engine of digits@1 is remembered on this machine: torch fp32 answers" in result.stderr


def test_nothing_is_measured_or_written(images, tmp_path):
    before = sorted((tmp_path / "home").rglob("*"))

    run(*images, "--model", "digits", "--json")

    assert sorted((tmp_path / "home").rglob("*")) == before


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> ModelVersion:
    """A model `trees`, for which an engine of OpenVINO is remembered."""
    folder = tmp_path_factory.mktemp("trees")
    version = ModelStore(folder / "home" / "models").publish(make_random_model(folder / "made"), "trees")
    remember(version, "openvino fp32", 2)
    return version


def test_rows_are_those_of_a_job_to_the_byte_on_the_remembered_engine(trees, images, monkeypatch):
    monkeypatch.setenv("PIGEONHOLE_HOME", str(trees.path.parents[2]))

    result = run(*images, "--model", "trees", "--json")

    assert "no engine" not in result.stderr
    assert [json.loads(line) for line in result.stdout.splitlines()] == rows_of_a_job(trees, images)
    assert all(row["decision"] for row in map(json.loads, result.stdout.splitlines()))


def test_rows_are_those_of_a_job_where_torch_is_remembered(images, tmp_path):
    version = ModelStore(tmp_path / "home" / "models").publish(make_random_model(tmp_path / "made"), "trees")
    remember(version, "torch fp32", 4)

    result = run(*images, "--model", "trees", "--json")

    assert "no engine" not in result.stderr
    assert [json.loads(line) for line in result.stdout.splitlines()] == rows_of_a_job(version, images)


def test_a_graph_that_was_changed_is_not_used(trees, tmp_path):
    copied = tmp_path / "models" / "trees"
    shutil.copytree(trees.path.parent, copied)
    version = ModelStore(tmp_path / "models").resolve("trees")
    assert load_graph(version) is not None

    (version.artifacts / "network.onnx").write_bytes(b"another")

    assert load_graph(version) is None


def test_an_image_that_cannot_be_read_is_a_row_and_the_others_are_answered(images, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(images[0].read_bytes()[:60])
    os.mkfifo(tmp_path / "pipe.png")

    result = run(images[0], "broken.jpg", "lost.png", "pipe.png", images[1], "--model", "digits", "--json")

    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 0
    assert [row["status"] for row in rows] == ["ok", "error", "error", "error", "ok"]
    assert [row["error_code"] for row in rows] == [None, "truncated", "missing", "not_a_file", None]


def test_only_unreadable_images_end_with_the_code_of_a_failed_job(images):
    result = run("lost.png", "--model", "digits")

    assert result.exit_code == 3
    assert "lost.png: No such file" in result.stderr


def test_an_image_comes_on_standard_input(images):
    from_file = json.loads(run(images[0], "--model", "digits", "--json").stdout)

    from_pipe = json.loads(run("-", "--model", "digits", "--json", given=images[0].read_bytes()).stdout)

    assert from_pipe == {**from_file, "path": "-"}


def test_more_than_the_limit_on_standard_input_is_an_error_row(images, monkeypatch):
    monkeypatch.setenv("PIGEONHOLE_MAX_FILE_BYTES", "100")

    result = run("-", "--model", "digits", "--json", given=b"x" * 101)

    assert json.loads(result.stdout)["error_code"] == "too_large"


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["images", "--model", "digits"], 2, "'images' is a folder; `pigeonhole classify images --model digits -o"),
        (["-", "-", "--model", "digits"], 2, "more than once"),
        (["a.png", "--model", "letters"], 4, "no model 'letters'"),
        (["a.png", "--model", "digits", "--picture", "a.jpg"], 2, "does not end in .png"),
        (["a.png", "--model", "digits", "--picture", "no/a.png"], 2, "there is no 'no'"),
        (["a.png", "--model", "digits", "--picture", "there.png"], 2, "exists"),
        (["there.png", "--model", "digits", "--picture", "there.png", "--overwrite"], 2, "is the input itself"),
        (["a.png", "--model", "digits", "--device", "tpu"], 2, "tpu"),
    ],
)
def test_what_cannot_be_done_is_one_line(images, tmp_path, arguments, code, told):
    (tmp_path / "there.png").write_bytes(images[0].read_bytes())

    result = run(*arguments)

    assert result.exit_code == code
    assert result.stdout == ""
    assert told in result.stderr
    assert (tmp_path / "there.png").read_bytes() == images[0].read_bytes()


def test_a_name_that_is_not_utf8_is_answered(images, tmp_path):
    name = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n.png")
    Path(name).write_bytes(images[0].read_bytes())

    result = run(name, "--model", "digits", "--picture", "answers.png")

    assert result.exit_code == 0
    assert "\\xff" in result.stdout


@pytest.mark.parametrize("num_images", [1, 2, 7, 401])
def test_the_picture_shows_every_image_up_to_a_bound(images, tmp_path, num_images):
    some = [*images, tmp_path / "strip.png", tmp_path / ("long" * 50 + ".png"), tmp_path / "broken.png"]
    Image.new("RGBA", (3000, 1), (9, 9, 9, 9)).save(some[3])
    Image.new("P", (5, 40)).save(some[4])
    some[5].write_bytes(b"no image")

    result = run(*(some * 70)[:num_images], "--model", "digits", "--picture", "answers.png")

    assert result.exit_code == 0
    with Image.open("answers.png") as picture:
        assert picture.format == "PNG"
        assert picture.width < 6000
        assert picture.height < 6000
        colours = picture.getcolors(1 << 24)
    assert colours is not None
    assert len(colours) > 10
    assert ("of the first 400 of 401" in result.stderr) == (num_images == 401)
