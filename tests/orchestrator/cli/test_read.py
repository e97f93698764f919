"""`pigeonhole read`: text, JSON, the picture, and pages that cannot be read. The model's answers mean nothing."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from click.testing import Result
from PIL import Image

from modeling.images.preprocessing import Preprocessing
from modeling.metrics.calibration import Calibration
from modeling.registry.card import ModelCard
from modeling.registry.store import ModelStore
from orchestrator.demo.fonts import ROMAN
from orchestrator.demo.page import Line, render_page
from orchestrator.demo.scan import Scanner
from orchestrator.drawing.style import DOUBTFUL
from tests.support.images import encode
from tests.support.invoke import invoke
from tests.support.published_models import SIDE, write_model

PAGE = render_page(0, (Line("Sort it well", ROMAN, 44, 70), Line("at 6:40", ROMAN, 40, 80)), Scanner(1.5)).image

GREY = Preprocessing("L", SIDE, SIDE)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with `page.png` beside it, in the present folder."""
    monkeypatch.setenv("PIGEONHOLE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    PAGE.save("page.png")
    return tmp_path / "home"


def publish(
    home: Path, *labels: str, calibration: Calibration | None = None, preprocessing: Preprocessing = GREY
) -> None:
    """A perceptron `letters` with small random weights: all labels score about the same."""
    num_inputs = preprocessing.channels * preprocessing.height * preprocessing.width
    weights = np.random.default_rng(0).normal(0, 0.01, (len(labels), num_inputs)).astype(np.float32)
    state = {"1.weight": weights, "1.bias": np.zeros(len(labels), np.float32)}
    card = ModelCard("perceptron", labels, preprocessing, "", calibration=calibration)
    staged = write_model(home.parent / "staged", card, safetensors.numpy.save(state))
    ModelStore(home / "models").publish(staged, "letters")


def run(*arguments: object, given: bytes | None = None) -> Result:
    return invoke("read", *arguments, "--model", "letters", given=given)


def test_a_page_becomes_its_lines_and_words(home):
    publish(home, "upper_a", "7")

    result = run("page.png")

    assert result.exit_code == 0
    assert [[len(word) for word in line.split(" ")] for line in result.stdout.splitlines()] == [[4, 2, 4], [2, 4]]
    assert set(result.stdout) <= set("A7 \n")
    assert "16 characters in 2 lines" in result.stderr


def test_json_has_every_character_with_its_box_and_score(home):
    publish(home, "upper_a", "7", calibration=Calibration(1.0, 0.01, (0.9, 0.9), 0.5, 100, 0.2, 0.1, 0.005))

    result = run("page.png", "--json")

    found = json.loads(result.stdout)
    words = [word for line in found["lines"] for word in line["words"]]
    characters = [character for word in words for character in word["characters"]]
    assert found["model"] == "letters@1"
    assert found["text"] == "\n".join(line["text"] for line in found["lines"])
    assert [word["text"] for word in words] == found["text"].split()
    assert "".join(character["text"] for character in characters) == "".join(found["text"].split())
    assert found["num_characters"] == len(characters)
    assert found["num_doubtful"] == sum(character["decision"] != "accept" for character in characters)
    for line in found["lines"]:
        left, top, right, bottom = line["box"]
        assert 0 <= left < right <= PAGE.width
        assert 0 <= top < bottom <= PAGE.height
        assert all(left <= word["box"][0] and word["box"][2] <= right for word in line["words"])


def test_boxes_are_pixels_of_the_image_whatever_size_it_is_cut_at(home):
    publish(home, "a", "b")
    PAGE.resize((PAGE.width * 5, PAGE.height * 5)).save("large.png")

    boxes = [json.loads(run(name, "--json").stdout)["lines"][0]["box"] for name in ("page.png", "large.png")]

    assert np.abs(np.array(boxes[0]) * 5 - boxes[1]).max() < 40


def test_the_text_goes_into_a_file_and_the_doubtful_into_a_picture(home):
    publish(home, "a", "b", "c", "d", "e")

    result = run("page.png", "-o", "text.txt", "--picture", "read.png")

    assert (result.exit_code, result.stdout) == (0, "")
    assert len(Path("text.txt").read_text().splitlines()) == 2
    with Image.open("read.png") as picture:
        assert int((np.asarray(picture) == DOUBTFUL).all(axis=2).sum()) > 500


def test_labels_of_any_alphabet_are_written_and_others_are_in_brackets(home):
    publish(home, "я", "字", "e\u0301", "cat", "\u202e")

    result = run("page.png", "--picture", "read.png")

    assert result.exit_code == 0
    assert "1 of 5 labels" in result.stderr or "2 of 5 labels" in result.stderr
    assert "written in brackets: cat" in result.stderr
    assert "\u202e" not in result.stdout


def test_a_model_of_another_size_and_in_colour_reads(home):
    publish(home, "a", "b", preprocessing=Preprocessing("RGB", 20, 24))

    assert len("".join(run("page.png").stdout.split())) == 16


def test_a_page_on_standard_input_is_read(home):
    publish(home, "a", "b")

    assert run("-", given=encode(PAGE)).stdout == run("page.png").stdout


def test_an_empty_page_is_an_empty_text(home):
    publish(home, "a", "b")
    Image.new("L", (300, 200), 240).save("empty.png")

    result = run("empty.png", "-o", "text.txt", "--picture", "read.png")

    assert result.exit_code == 0
    assert Path("text.txt").read_bytes() == b""
    assert "no print was found on empty.png" in result.stderr
    assert json.loads(run("empty.png", "--json").stdout)["lines"] == []


@pytest.mark.parametrize(
    ("page", "code", "told"),
    [
        ("lost.png", 4, "'lost.png' cannot be read (missing"),
        ("text.pdf", 1, "'text.pdf' cannot be read"),
        ("empty.png", 1, "empty: the file is empty"),
        ("folder", 2, "'folder' is a folder"),
        ("pipe", 1, "not_a_file"),
    ],
)
def test_what_is_no_page_is_one_line(home, page, code, told):
    publish(home, "a", "b")
    Path("text.pdf").write_bytes(b"%PDF-1.7 ")
    Path("empty.png").touch()
    Path("folder").mkdir()
    os.mkfifo("pipe")

    result = run(page)

    assert (result.exit_code, result.stdout) == (code, "")
    assert told in result.stderr


def test_a_page_with_more_pixels_than_the_limit_is_refused(home, monkeypatch):
    publish(home, "a", "b")
    monkeypatch.setenv("PIGEONHOLE_MAX_PIXELS", "1000")

    result = run("page.png")

    assert result.exit_code == 1
    assert "too_large" in result.stderr


def test_outputs_are_never_the_page_or_replaced_unasked(home):
    publish(home, "a", "b")
    before = Path("page.png").read_bytes()
    Path("there.txt").write_text("mine")

    refused = [run("page.png", "-o", "there.txt"), run("page.png", "-o", "page.png", "--overwrite")]
    replaced = run("page.png", "-o", "there.txt", "--overwrite")

    assert [result.exit_code for result in refused] == [2, 2]
    assert replaced.exit_code == 0
    assert Path("page.png").read_bytes() == before
