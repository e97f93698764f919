"""`models compare` as an operator sees it."""

import json
from pathlib import Path

import pytest
from click.testing import Result

from modeling.metrics.calibration import Calibration
from modeling.registry.store import ModelStore
from orchestrator.contract.settings import get_settings
from tests.support.invoke import invoke
from tests.support.small_models import make_data, make_model, make_random_model, write_split

CALIBRATION = Calibration(1.0, 0.01, (0.9, 0.9), 0.5, 100, 0.1, 0.0, 0.0)


@pytest.fixture
def publish(tmp_path, monkeypatch):
    """Publishes a model that predicts light from a brightness on, as the next version of `lamps`."""
    monkeypatch.setenv("PIGEONHOLE_HOME", str(tmp_path / "home"))
    get_settings.cache_clear()
    store = ModelStore(get_settings().models)

    def publish(threshold: int, *, trained_on: tuple[Path, ...] = (), **facts: object) -> str:
        staged = make_model(tmp_path / f"staged-{threshold}", threshold=threshold, **facts)
        if trained_on:
            write_split(staged, dict.fromkeys(trained_on, "train"))
        return store.publish(staged, "lamps").ref

    yield publish
    get_settings.cache_clear()


@pytest.fixture
def data(tmp_path):
    return make_data(tmp_path / "data", dark=list(range(80, 128)), light=list(range(129, 180)))


def run(*arguments: object) -> Result:
    return invoke("models", "compare", *arguments, "--device", "cpu")


def test_two_models_are_compared_in_figures_flips_and_one_sentence(publish, data):
    worse, better = publish(100, calibration=CALIBRATION), publish(126)

    done = run(worse, better, data)

    assert done.exit_code == 0
    assert done.stderr.splitlines() == ["lamps@1: 99/99 images", "lamps@2: 99/99 images"]
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["99", "IMAGES", "LAMPS@1", "LAMPS@2"]
    assert lines[1].split() == ["right", "71", "97"]
    assert lines[4].split()[:2] == ["review", "rate"]
    assert "26 IMAGES BETTER WITH LAMPS@2" in done.stdout
    assert "dark/100.png" in done.stdout
    assert "... and 16 more images; --json has all" in done.stdout
    assert lines[-3].startswith("lamps@1 by ")
    assert lines[-2].startswith("lamps@2 by ")
    assert lines[-1] == "lamps@2 is better: 26 more right of 99, p < 0.0001"


def test_the_json_has_every_flipped_image_and_the_file_the_same(publish, data, tmp_path):
    worse, better = publish(100), publish(126)

    done = run(worse, better, data, "--precision", "fp32", "--json", "-o", tmp_path / "comparison.json")

    document = json.loads(done.stdout)
    assert json.loads((tmp_path / "comparison.json").read_text()) == document
    assert (document["model_a"], document["model_b"], document["part"]) == ("lamps@1", "lamps@2", "all")
    assert [(each["precision"], each["reference"]["engine"]) for each in document["engines"]] == [
        ("fp32", "torch fp32"),
        ("fp32", "torch fp32"),
    ]
    assert [flip["name"] for flip in document["better"]] == [f"dark/{value:03}.png" for value in range(100, 126)]
    assert (document["worse"], document["review_change"], document["num_trained_on"]) == ([], None, [None, None])
    assert document["conclusion"] == "lamps@2 is better: 26 more right of 99, p < 0.0001"


def test_images_that_a_model_was_trained_on_and_unreadable_ones_are_warned_about(publish, data):
    one = publish(100, trained_on=(data / "dark" / "080.png", data / "light" / "170.png"))
    other = publish(126)
    (data / "dark" / "081.png").write_bytes(b"")

    done = run(one, other, data)

    assert (
        "lamps@1 was trained on 2 of these 98 images, so its figures are too good; --part test leaves out those of A"
        in done.stderr
    )
    assert "1 image cannot be read and is left out" in done.stderr


def test_a_model_without_a_record_of_its_training_images_is_warned_about(publish, data):
    one, other = publish(100, training={"data": {"num_train": 4}}), publish(126)

    done = run(one, other, data)

    assert done.stderr.count("has no record of its training images") == 1
    assert "lamps@1 has no record of its training images (an export carries none): if some" in done.stderr


def test_the_same_model_twice_shows_no_difference(publish, data):
    ref = publish(126)

    assert run(ref, ref, data).stdout.splitlines()[-1] == "lamps@1 and lamps@1 are right on the same images"


def test_models_without_a_common_label_are_refused_before_any_work(publish, data, tmp_path):
    one = publish(100)
    other = ModelStore(get_settings().models).publish(make_random_model(tmp_path / "trees"), "trees").ref

    done = run(one, other, data)

    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == "error: the models have no label in common: A knows dark, light, B knows ash, birch, cedar\n"


def test_models_are_compared_on_the_labels_that_both_know_and_the_headline_counts_the_other_images(publish, tmp_path):
    data = make_data(tmp_path / "more", dark=list(range(80, 128)), light=[200], neon=[130, 131], red=[9])
    one, other = publish(100), publish(126, labels=("neon", "light", "dark"))

    done, document = run(one, other, data), json.loads(run(one, other, data, "--json").stdout)

    lines = done.stdout.splitlines()
    assert lines[0].split()[0] == "49"
    assert lines[-1] == (
        "lamps@2 is better: 26 more right of 49, p < 0.0001; 3 images are left out, of labels that not both know: "
        "neon, red"
    )
    assert "only lamps@2 knows 'neon': no image of these labels is compared" in done.stderr
    assert document["conclusion"] == lines[-1]
    assert (document["num_images"], document["num_left_out"]) == (49, 3)
    assert (document["labels_left_out"], document["only_a"], document["only_b"]) == (["neon", "red"], [], ["neon"])


def test_data_of_labels_that_not_both_models_know_are_refused(publish, tmp_path):
    data = make_data(tmp_path / "more", neon=[130, 131])
    one, other = publish(100), publish(126, labels=("neon", "light", "dark"))

    done = run(one, other, data)

    assert (done.exit_code, done.stdout) == (2, "")
    assert "has images of 'neon', which not both models know; both know 'dark', 'light'" in done.stderr


def test_a_precision_that_a_model_lacks_is_refused_before_any_work(publish, data):
    one, other = publish(100), publish(126)

    done = run(one, other, data, "--precision", "int8")

    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("error: --precision int8: lamps@1 ")
    assert done.stderr.count("\n") == 1


def test_an_output_in_a_folder_that_is_not_there_is_refused_before_any_work(publish, data, tmp_path):
    ref = publish(126)

    done = run(ref, ref, data, "-o", tmp_path / "nowhere" / "out.json")

    assert done.exit_code == 2
    assert "nowhere'; name a file in a folder that exists" in done.stderr


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("there.json", "there.json' exists; name a file that does not, or add --overwrite"),
        ("list.csv --overwrite", "list.csv' is the input itself"),
        ("picture.png --overwrite", "picture.png' would replace an image"),
        ("link.json --overwrite", "link.json' would replace an image"),
    ],
)
def test_a_file_is_replaced_only_where_asked_and_an_input_never(publish, data, tmp_path, output, said):
    ref = publish(126)
    (tmp_path / "list.csv").write_text("path,label\npicture.png,dark\n")
    (tmp_path / "there.json").write_text("mine")
    (tmp_path / "picture.png").write_bytes(b"an image")
    (tmp_path / "link.json").symlink_to("picture.png")
    before = {path: path.read_bytes() for path in tmp_path.glob("*.*")}
    name, *options = output.split()

    done = run(ref, ref, tmp_path / "list.csv", "-o", tmp_path / name, *options)

    assert (done.exit_code, done.stdout) == (2, "")
    assert said in done.stderr
    assert {path: path.read_bytes() for path in tmp_path.glob("*.*")} == before


def test_nothing_is_written_into_the_data(publish, data, tmp_path):
    ref = publish(126)
    (tmp_path / "linked").symlink_to(data)
    before = sorted(data.rglob("*"))

    for output in (data / "dark" / "080.png", data / "new.json", tmp_path / "linked" / "new.json"):
        done = run(ref, ref, data, "-o", output, "--overwrite")

        assert done.exit_code == 2
        assert "which is only read; name a file elsewhere" in done.stderr
    assert sorted(data.rglob("*")) == before


def test_a_comparison_takes_the_place_of_an_earlier_one_where_asked(publish, data, tmp_path):
    ref, output = publish(126), tmp_path / "comparison.json"
    output.write_text("an earlier one")

    assert run(ref, ref, data, "-o", output, "--overwrite").exit_code == 0

    assert json.loads(output.read_text())["model_a"] == ref
