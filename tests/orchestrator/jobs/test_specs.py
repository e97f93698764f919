"""What a training starts from, weights by name, a published model, a file or a folder; and what suits a job."""

from dataclasses import replace

import pytest

from modeling.errors import DataError, ModelingError, ModelNotFoundError
from modeling.registry.card import CARD_FILE
from modeling.registry.store import ModelStore
from orchestrator.contract.errors import UsageError
from orchestrator.jobs import specs as specs
from orchestrator.jobs.shard_size import SMALLEST
from orchestrator.jobs.sources import SourceOptions, open_source
from orchestrator.jobs.specs import (
    ClassifySpec,
    TrainSpec,
    check_precision,
    check_train,
    choose_weights,
    first_paths,
    pin_model,
    shard_size_of,
    train_request,
)
from tests.support.published_models import make_pngs, publish_model


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The folder that the operator stands in; it holds a file and a folder with labelled images, `digits`."""
    folder = tmp_path / "here"
    for label in "01":
        make_pngs(folder / "digits" / label, 1)
    (folder / "weights.safetensors").touch()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def version(settings):
    """A published perceptron of the same name."""
    return publish_model(settings.models, "digits")


def test_a_published_model_becomes_the_folder_of_its_version_and_gives_its_architecture(settings, here, version):
    store = ModelStore(settings.models)
    store.set_alias(version, "champion")

    found = {choose_weights(settings, ref) for ref in ("digits", "digits@1", "digits@champion", str(version.path))}

    assert found == {(str(version.path), "perceptron")}


@pytest.mark.parametrize("name", ["imagenet", "IMAGENET1K_V1", "ResNet18_Weights.IMAGENET1K_V1", "nowhere.pt"])
def test_names_and_what_is_not_there_stay_what_they_are(settings, here, version, name):
    assert choose_weights(settings, name) == (name, "cnn")


def test_files_and_folders_get_their_absolute_path(settings, here, version):
    assert choose_weights(settings, "weights.safetensors") == (str(here / "weights.safetensors"), "cnn")
    assert choose_weights(settings, "./digits") == (str(here / "digits"), "cnn")


def test_a_version_that_is_not_there_is_told(settings, here, version):
    with pytest.raises(ModelNotFoundError, match="no model 'digits@9'; versions of 'digits': 1"):
        choose_weights(settings, "digits@9")


@pytest.mark.parametrize(
    ("options", "architecture", "starts_from_version"),
    [({}, "cnn", False), ({"architecture": "mlp"}, "mlp", False), ({"weights": "digits@1"}, "perceptron", True)],
)
def test_a_training_request_has_an_architecture_whether_or_not_one_is_named(
    settings, here, version, options, architecture, starts_from_version
):
    request = train_request(settings, TrainSpec(here / "digits", "mine", options))

    assert request.architecture == architecture
    assert request.weights == (str(version.path) if starts_from_version else None)
    assert request.data == here / "digits"


def test_weights_of_another_architecture_are_told_before_anything_is_trained(settings, here, version):
    with pytest.raises(ModelingError, match="perceptron"):
        train_request(settings, TrainSpec(here / "digits", "mine", {"weights": "digits", "architecture": "mlp"}))
    with pytest.raises(ModelingError, match="no weights 'imagenet' for cnn"):
        train_request(settings, TrainSpec(here / "digits", "mine", {"weights": "imagenet"}))


def test_data_of_one_image_a_class_are_refused_before_anything_is_submitted(settings, here):
    with pytest.raises(DataError, match=r"every class of .*digits has one image only"):
        check_train(settings, TrainSpec(here / "digits", "mine", {}))


def shard_size(settings, version, source, *, wanted=None):
    """The shard size of a job that classifies `source`, and what its source still yields."""
    opened = open_source(source, SourceOptions())
    spec = ClassifySpec(source, version.ref, shard_size=wanted)
    found = shard_size_of(settings, spec, opened, first_paths(spec, opened), pin_model(settings, version.ref)[0])
    return found, list(opened.paths)


def test_the_shard_size_that_the_operator_names_is_taken(settings, here, version):
    assert shard_size(settings, version, "digits", wanted=7)[0] == 7


@pytest.mark.parametrize(("num_images", "measured"), [(1, []), (SMALLEST, []), (SMALLEST + 1, ["8 images"])])
def test_a_source_that_is_one_shard_in_any_case_is_not_measured(
    settings, tmp_path, version, monkeypatch, num_images, measured
):
    calls = []
    monkeypatch.setattr(
        specs, "choose_shard_size", lambda artifacts, precision, images, batch_size: calls.append(images) or 128
    )
    make_pngs(tmp_path / "in", num_images)

    size, paths = shard_size(settings, version, str(tmp_path / "in"))

    assert [f"{len(images)} images" for images in calls] == measured
    assert size == (128 if measured else SMALLEST)
    assert len(paths) == num_images
    assert all(image.startswith(str(tmp_path / "in")) for images in calls for image in images)


def test_of_a_pipe_only_one_path_is_waited_for(settings, here, version):
    class SlowPipe:
        given = False

        def read(self, _):
            assert not self.given, "a second path was waited for"
            self.given = True
            return b"digits/0/00000.png\n"

    opened = open_source("-", SourceOptions(), stdin=SlowPipe())

    pin, _ = pin_model(settings, version.ref)
    spec = ClassifySpec("-", version.ref)
    assert shard_size_of(settings, spec, opened, first_paths(spec, opened), pin) >= SMALLEST


@pytest.mark.parametrize(
    ("training", "why"),
    [
        ({}, "has no int8 weights; train it with --int8"),
        (
            {
                "int8": {
                    "kept": False,
                    "agreement": 0.9871,
                    "num_validation": 700,
                    "accuracy_full": 0.98,
                    "accuracy": 0.961,
                }
            },
            r"was refused int8 weights: 98.71% of 700 .* accuracy went from 0.9800 to 0.9610; leave the precision",
        ),
    ],
)
def test_int8_that_a_model_does_not_have_is_refused_with_what_training_found(settings, here, version, training, why):
    card = ModelStore(settings.models).card("digits")
    (version.path / CARD_FILE).write_bytes(replace(card, training=training).to_bytes())

    with pytest.raises(UsageError, match=f"--precision int8: digits@1 {why}"):
        check_precision(settings, ClassifySpec("digits", "digits", precision="int8"))

    check_precision(settings, ClassifySpec("digits", "digits"))
