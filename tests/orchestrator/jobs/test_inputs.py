"""What a training starts from: weights by name, a published model, a file or a folder."""

import pytest

from modeling.errors import ModelNotFoundError
from modeling.registry.store import ModelStore
from orchestrator.jobs.inputs import choose_weights
from tests.support.published_models import make_pngs, publish_model


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder; it holds a file and a folder `digits`."""
    folder = tmp_path / "here"
    make_pngs(folder / "digits" / "0", 1)
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
def test_names_and_missing_paths_are_kept(settings, here, version, name):
    assert choose_weights(settings, name) == (name, "cnn")


def test_files_and_folders_get_their_absolute_path(settings, here, version):
    assert choose_weights(settings, "weights.safetensors") == (str(here / "weights.safetensors"), "cnn")
    assert choose_weights(settings, "./digits") == (str(here / "digits"), "cnn")


def test_a_missing_version_is_an_error(settings, here, version):
    with pytest.raises(ModelNotFoundError, match="no model 'digits@9'; versions of 'digits': 1"):
        choose_weights(settings, "digits@9")
