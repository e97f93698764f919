"""`pigeonhole models explain`: its output and its errors."""

import json
from pathlib import Path

import pytest
from click.testing import Result

from tests.support.invoke import invoke
from tests.support.published_models import make_pngs, publish_model


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An image, beside a published perceptron `digits` and another, `others`."""
    monkeypatch.setenv("PIGEONHOLE_HOME", str(tmp_path / "home"))
    publish_model(tmp_path / "home" / "models", "digits")
    publish_model(tmp_path / "home" / "models", "others", seed=1)
    make_pngs(tmp_path / "images", 1)
    return next((tmp_path / "images").rglob("*.png"))


def run(*arguments: object) -> Result:
    return invoke("models", "explain", *arguments)


def test_pictures_are_written_and_their_paths_printed(image, tmp_path):
    out = tmp_path / "out"

    result = run("digits", image, "-o", out, "--show", "weights", "--show", "robustness", "--second-model", "others")

    assert result.exit_code == 0
    assert result.stdout.splitlines() == [str(out / "weights.png"), str(out / "robustness.png")]
    assert "grey levels of 255 flips the answer" in result.stderr
    assert sorted(path.name for path in out.iterdir()) == ["robustness.png", "weights.png"]


def test_json_describes_each_picture(image, tmp_path):
    result = run("digits", image, "-o", tmp_path, "--show", "robustness", "--second-model", "others", "--json")

    (picture,) = json.loads(result.stdout)
    assert (picture["show"], picture["path"]) == ("robustness", str(tmp_path / "robustness.png"))
    (row,) = picture["images"]
    assert row["image"] == str(image)
    assert row["epsilon"] == picture["median_epsilon"] > 0
    assert row["noise_flips"] <= row["noises"] == 10
    assert {"flipped_to", "survives_saving", "second_model_fooled", "second_model_fooled_at"} <= set(row)


def test_by_default_what_is_quick_and_possible_is_shown_and_the_others_are_named(image, tmp_path):
    result = run("digits", "-o", tmp_path / "out")

    assert result.exit_code == 0
    assert [Path(line).name for line in result.stdout.splitlines()] == ["weights.png"]
    assert "gradcam is left out: no image was given" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("nobody",), 4, "no model 'nobody'"),
        (("digits", "--show", "filters"), 2, "filters: a perceptron has no convolution"),
        (("digits", "--label", "ten"), 2, "digits@1 has no label 'ten'"),
        (("digits", "--second-model", "nobody"), 4, "no model 'nobody'"),
        (("digits", "nothing.png"), 2, "nothing.png cannot be read (No such file or directory)"),
    ],
)
def test_an_error_is_one_line_and_nothing_is_written(image, tmp_path, arguments, code, message):
    result = run(*arguments, "-o", tmp_path / "out")

    assert result.exit_code == code
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_picture_is_not_overwritten_unasked(image, tmp_path):
    first, second, third = (
        run("digits", "-o", tmp_path / "out", "--show", "weights", *more) for more in ((), (), ("--overwrite",))
    )

    assert [first.exit_code, second.exit_code, third.exit_code] == [0, 2, 0]
    assert "weights.png exists; give another folder, or --overwrite" in second.stderr
