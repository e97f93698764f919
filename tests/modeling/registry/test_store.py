import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from modeling.errors import ModelFormatError, ModelInUseError, ModelNameError, ModelNotFoundError
from modeling.images.preprocessing import Preprocessing
from modeling.metrics.calibration import Calibration
from modeling.registry.card import ModelCard
from modeling.registry.store import ModelStore, ModelVersion, check_model_name


def card(weights: bytes = b"weights", **changes) -> ModelCard:
    facts = {
        "architecture": "cnn",
        "labels": ("a", "b"),
        "preprocessing": Preprocessing("L", 28, 28),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "metrics": {"test_accuracy": 0.5},
        "training": {"seed": 0},
    }
    return ModelCard(**(facts | changes))


def stage(folder, weights: bytes = b"weights"):
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "model.json").write_bytes(card(weights).to_bytes())
    return folder


def test_published_versions_count_up_and_are_found_by_number_and_as_latest(tmp_path):
    store = ModelStore(tmp_path / "models")

    first = store.publish(stage(tmp_path / "a", b"1"), "digits")
    second = store.publish(stage(tmp_path / "b", b"2"), "digits")

    digest = hashlib.sha256(card(b"1").to_bytes()).hexdigest()
    assert first == ModelVersion("digits", 1, digest, tmp_path / "models" / "digits" / "1")
    assert (first.ref, second.ref) == ("digits@1", "digits@2")
    assert store.resolve("digits@1") == first
    assert store.resolve("digits") == store.resolve("digits@latest") == store.resolve("digits@2") == second
    assert store.list() == [first, second]
    assert store.card("digits@1") == card(b"1")
    assert sorted(path.name for path in first.path.iterdir()) == [".sha256", "model.json", "model.safetensors"]


def test_a_report_is_called_by_the_name_and_number_that_its_model_is_published_under(tmp_path):
    store, staged = ModelStore(tmp_path / "models"), stage(tmp_path / "a", b"1")
    page = "<title>{} – Pigeonhole report</title><h1>{}</h1><h1>cnn</h1>"
    (staged / "report.html").write_text(page.format("cnn, 2 classes", "cnn, 2 classes"))

    first = store.publish(staged, "digits")
    (stage(tmp_path / "b", b"2") / "report.html").write_text("<title>another's</title><h1>page</h1>")
    other = store.publish(tmp_path / "b", "digits")

    assert (first.path / "report.html").read_text() == page.format("digits@1", "digits@1")
    assert (other.path / "report.html").read_text() == "<title>another's</title><h1>page</h1>"


def test_publishing_the_same_model_again_keeps_its_version(tmp_path):
    store = ModelStore(tmp_path / "models")
    staged = stage(tmp_path / "a")

    assert store.publish(staged, "digits") == store.publish(staged, "digits")
    assert store.publish(staged, "letters").ref == "letters@1"
    assert [version.ref for version in store.list()] == ["digits@1", "letters@1"]


def test_publishers_in_a_race_each_get_a_version_of_their_own(tmp_path):
    store = ModelStore(tmp_path / "models")
    staged = [stage(tmp_path / str(number), bytes([number])) for number in range(8)]

    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(lambda folder: store.publish(folder, "digits"), staged * 2))

    assert sorted({version.version for version in versions}) == list(range(1, 9))
    assert len(store.list()) == 8


def test_a_number_taken_by_something_else_is_passed_over(tmp_path):
    (tmp_path / "digits" / "3").mkdir(parents=True)
    (tmp_path / "digits" / "3" / "junk").touch()

    assert ModelStore(tmp_path).publish(stage(tmp_path / "staged"), "digits").version == 4


def test_listing_passes_over_what_is_no_model(tmp_path):
    store = ModelStore(tmp_path / "models")
    assert store.list() == []
    version = store.publish(stage(tmp_path / "a"), "digits")
    for junk in ("digits/.publishing-x", "digits/7", "digits/notes", "Upper/1", ".hidden/1", "empty"):
        (tmp_path / "models" / junk).mkdir(parents=True)
    (tmp_path / "models" / "file").touch()

    assert store.list() == [version]


def test_an_unknown_model_names_what_there_is(tmp_path):
    store = ModelStore(tmp_path / "models")
    with pytest.raises(ModelNotFoundError, match="no model 'digits': none is published yet"):
        store.resolve("digits")
    store.publish(stage(tmp_path / "a"), "digits")
    store.publish(stage(tmp_path / "b"), "postcards")

    with pytest.raises(ModelNotFoundError, match=r"did you mean 'digits'\? published: digits, postcards"):
        store.resolve("digit")
    with pytest.raises(ModelNotFoundError, match="no model 'digits@7'; versions of 'digits': 1"):
        store.resolve("digits@7")


@pytest.mark.parametrize("ref", ["", "@1", "../x", "a/b", "Upper", "digits@", "digits@0", "digits@X", "digits@1@2"])
def test_malformed_references_are_refused(tmp_path, ref):
    with pytest.raises(ModelNameError):
        ModelStore(tmp_path).resolve(ref)


@pytest.mark.parametrize("name", ["", ".", "..", "../a", "a/b", "A", "-a", "a b", "a\n", "é", "a" * 101])
def test_names_that_are_no_plain_folder_names_are_refused(name):
    with pytest.raises(ModelNameError, match="model name"):
        check_model_name(name)


def test_a_staged_folder_that_is_not_whole_is_refused_and_leaves_nothing(tmp_path):
    store = ModelStore(tmp_path / "models")
    damaged = stage(tmp_path / "a")
    (damaged / "model.safetensors").write_bytes(b"other")

    with pytest.raises(ModelFormatError, match="sha256"):
        store.publish(damaged, "digits")
    with pytest.raises(ModelFormatError, match=r"missing/model\.json: cannot be read"):
        store.publish(tmp_path / "missing", "digits")

    assert store.list() == []


def test_a_version_holds_all_that_was_staged_and_knows_its_files_size_and_age(tmp_path):
    staged = stage(tmp_path / "a")
    (staged / "plots").mkdir()
    (staged / "report.html").write_text("report")
    (staged / "plots" / "curves.png").write_bytes(b"png")
    for path in staged.rglob("*"):
        path.chmod(0o700)

    version = ModelStore(tmp_path / "models").publish(staged, "digits")

    names = ["model.json", "model.safetensors", "plots/curves.png", "report.html"]
    assert [str(file) for file in version.files()] == names
    assert [(version.path / name).read_bytes() for name in names] == [(staged / name).read_bytes() for name in names]
    assert version.size_bytes() == sum((staged / name).stat().st_size for name in names)
    assert abs(version.created().timestamp() - version.path.stat().st_mtime) < 60
    assert {path.stat().st_mode & 0o044 for path in version.path.rglob("*")} == {0o044}


@pytest.mark.parametrize("place", ["report.html", "plots/curves.png", "plots"])
def test_links_in_a_staged_folder_are_refused_and_never_followed(tmp_path, place):
    secret = tmp_path / "secret"
    secret.mkdir()
    link = stage(tmp_path / "a") / place
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(secret)

    with pytest.raises(ModelFormatError, match=f"{place} is a link; only plain files and folders are published"):
        ModelStore(tmp_path / "models").publish(tmp_path / "a", "digits")

    assert not (tmp_path / "models").exists()


def test_a_pipe_in_a_staged_folder_is_refused_and_never_read(tmp_path):
    os.mkfifo(stage(tmp_path / "a") / "events")

    with pytest.raises(ModelFormatError, match="events is not a regular file"):
        ModelStore(tmp_path / "models").publish(tmp_path / "a", "digits")


def test_a_removed_version_is_gone_and_its_number_is_never_used_again(tmp_path):
    store = ModelStore(tmp_path / "models")
    staged = [stage(tmp_path / name, name.encode()) for name in "abc"]
    first, second = (store.publish(folder, "digits") for folder in staged[:2])

    store.remove(second)

    assert (store.list(), store.resolve("digits")) == ([first], first)
    with pytest.raises(ModelNotFoundError, match="model 'digits@2' was removed; versions of 'digits': 1"):
        store.resolve("digits@2")
    assert [store.publish(folder, "digits").version for folder in (staged[2], staged[1])] == [3, 4]
    assert [path for path in first.path.parent.rglob("*") if ".removed" in str(path)] == [
        first.path.parent / ".removed-2"
    ]


def test_a_model_whose_versions_were_all_removed_says_so_and_goes_on_counting(tmp_path):
    store = ModelStore(tmp_path / "models")
    staged = stage(tmp_path / "a")
    store.remove(store.publish(staged, "digits"))

    with pytest.raises(ModelNotFoundError, match="no model 'digits': all its versions were removed"):
        store.resolve("digits")
    assert store.list() == []
    assert store.publish(staged, "digits").ref == "digits@2"


def test_a_version_is_removed_once_and_only_if_it_is_the_one_that_was_looked_at(tmp_path):
    store = ModelStore(tmp_path / "models")
    version = store.publish(stage(tmp_path / "a"), "digits")
    store.publish(stage(tmp_path / "b", b"2"), "digits")

    with pytest.raises(ModelFormatError, match="is another now"):
        store.remove(replace(version, digest="0" * 64))
    store.remove(version)
    with pytest.raises(ModelNotFoundError, match="was removed"):
        store.remove(version)


def test_what_a_removal_that_died_has_left_goes_with_the_next_one(tmp_path):
    store = ModelStore(tmp_path / "models")
    died = store.publish(stage(tmp_path / "a"), "digits")
    version = store.publish(stage(tmp_path / "b", b"2"), "digits")
    died.path.rename(died.path.with_name(".removed-1"))  # and there it was killed

    store.remove(version)

    left = sorted(path.name for path in died.path.parent.rglob("*"))
    assert left == [".lock", ".removed-1", ".removed-2"]


def test_publishing_and_removing_in_a_race_never_gives_a_number_twice(tmp_path):
    store = ModelStore(tmp_path / "models")
    staged = [stage(tmp_path / str(number), bytes([number])) for number in range(12)]
    published: list[ModelVersion] = []

    def publish_and_remove(folder: Path) -> None:
        version = store.publish(folder, "digits")
        published.append(version)
        store.remove(version)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(publish_and_remove, staged))

    assert sorted(version.version for version in published) == list(range(1, 13))
    assert store.list() == []


def test_a_pinned_version_is_told_apart_from_another_of_its_number(tmp_path):
    store = ModelStore(tmp_path / "models")
    version = store.publish(stage(tmp_path / "a"), "digits")

    assert store.resolve_pinned("digits@1", version.digest) == version
    with pytest.raises(ModelFormatError, match="digits@1 was 000000000000 when the job was submitted"):
        store.resolve_pinned("digits@1", "0" * 64)


def change_card(version: ModelVersion) -> None:
    (version.path / "model.json").write_bytes(card(labels=("b", "a")).to_bytes())


def test_a_card_that_was_changed_after_it_was_published_is_told(tmp_path):
    store = ModelStore(tmp_path / "models")
    version = store.publish(stage(tmp_path / "a"), "digits")
    change_card(version)

    told = (
        r"digits@1: model.json was changed after it was published \(its sha256 was .*, now .*\); put the original back"
    )
    for use in (
        lambda: store.resolve("digits"),
        lambda: store.card("digits@1"),
        lambda: store.set_alias(version, "champion"),
        lambda: ModelVersion.at(version.path),
    ):
        with pytest.raises(ModelFormatError, match=told):
            use()


def test_a_changed_version_is_listed_and_can_be_removed_or_put_right(tmp_path):
    store = ModelStore(tmp_path / "models")
    version = store.publish(stage(tmp_path / "a"), "digits")
    original = (version.path / "model.json").read_bytes()
    change_card(version)

    assert [one.ref for one in store.list()] == ["digits@1"]
    (version.path / "model.json").write_bytes(original)
    assert store.resolve("digits") == version
    change_card(version)
    store.remove(store.find("digits@1"))
    assert store.list() == []


def test_a_version_from_before_digests_were_recorded_is_used_as_it_is(tmp_path):
    store = ModelStore(tmp_path / "models")
    version = store.publish(stage(tmp_path / "a"), "digits")
    (version.path / ".sha256").unlink()

    assert store.resolve("digits") == version


def test_a_version_that_is_published_again_elsewhere_has_its_own_digest(tmp_path):
    store = ModelStore(tmp_path / "models")
    version = store.publish(stage(tmp_path / "a"), "digits")
    change_card(version)

    copied = store.publish(version.path, "letters")

    assert store.resolve("letters") == copied
    assert [str(file) for file in copied.files()] == ["model.json", "model.safetensors"]


def test_a_version_that_an_alias_stands_for_is_not_removed(tmp_path):
    store = ModelStore(tmp_path / "models")
    version = store.publish(stage(tmp_path / "a"), "digits")
    store.set_alias(version, "champion")

    with pytest.raises(ModelInUseError, match="digits@1 is @champion; move that first with `pigeonhole models alias"):
        store.remove(version)

    assert store.list() == [version]
    store.drop_alias("digits", "champion")
    store.remove(version)
    assert store.list() == []


def test_a_card_survives_its_json_and_odd_ones_are_refused(tmp_path):
    value = json.loads(card().to_bytes())

    assert ModelCard.from_json(value) == card()
    for change, message in (
        ({"format_version": 3}, "model format 3 is unknown"),
        ({"format_version": None}, "model format None is unknown"),
        ({"surprise": 1}, "surprise"),
        ({"labels": []}, "labels"),
        ({"labels": [1]}, "labels"),
        ({"metrics": 3}, "metrics"),
        ({"preprocessing": {}}, "preprocessing"),
    ):
        with pytest.raises(ModelFormatError, match=message):
            ModelCard.from_json(value | change)
    with pytest.raises(ModelFormatError, match="not JSON"):
        ModelCard.from_bytes(b"{", tmp_path)


def test_preprocessing_survives_its_json_and_has_a_digest_of_its_own():
    plain = Preprocessing("RGB", 64, 48)
    cut = Preprocessing("RGB", 64, 48, resize=80, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0), background=(0, 0, 0))

    for preprocessing in (plain, cut):
        assert Preprocessing.from_json(json.loads(json.dumps(preprocessing.to_json()))) == preprocessing
    assert plain.digest == Preprocessing("RGB", 64, 48).digest != cut.digest
    assert plain.shape == (64, 48, 3)


@pytest.mark.parametrize(
    "change",
    [
        {"mode": "CMYK"},
        {"height": 0},
        {"width": 1_000_000},
        {"height": 2.5},
        {"resize": 20},
        {"mean": [0.5]},
        {"std": [0.0, 1.0, 1.0]},
        {"std": [float("nan"), 1.0, 1.0]},
        {"mean": "abc"},
        {"background": [0, 0]},
        {"background": [0, 0, 256]},
        {"surprise": 1},
    ],
)
def test_preprocessing_that_makes_no_sense_is_refused(change):
    with pytest.raises(ModelFormatError):
        Preprocessing.from_json(Preprocessing("RGB", 64, 48).to_json() | change)


def test_a_calibration_survives_the_card_and_a_card_from_before_calibration_still_loads():
    calibrated = replace(card(), calibration=Calibration(1.5, 0.01, (0.9, 1.1), 0.5, 40, 0.1, 0.05, 0.01))
    old = {key: value for key, value in card().to_json().items() if key != "calibration"} | {"format_version": 1}

    assert ModelCard.from_bytes(calibrated.to_bytes(), Path("model.json")) == calibrated
    assert ModelCard.from_json(old).calibration is None
    assert ModelCard.from_json(old).to_json() == old
    for calibration in ({}, calibrated.calibration.to_json() | {"accept": [0.5]}, {"temperature": "1"}):
        with pytest.raises(ModelFormatError, match="calibration"):
            ModelCard.from_json(card().to_json() | {"calibration": calibration})


def test_a_decision_compares_the_score_with_the_labels_own_threshold():
    calibration = Calibration(1.0, 0.01, (0.9, 0.4), 0.5, 40, 0.1, 0.05, 0.01)

    decisions = [calibration.decide(label, score) for label in (0, 1) for score in (0.95, 0.9, 0.6, 0.49, 0.3)]

    assert decisions == ["accept", "accept", "review", "reject", "reject"] + ["accept"] * 4 + ["reject"]
