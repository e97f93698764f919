"""The weights at hand: imported, in the operator's folder, in torchvision's cache."""

import hashlib
import os
from dataclasses import replace

import pytest
import torch

from modeling.errors import ModelFormatError
from modeling.images.preprocessing import Preprocessing
from modeling.networks.build import build_network
from modeling.networks.pretrained import at_hand
from modeling.networks.pretrained.at_hand import (
    UnusableWeights,
    WeightsAtHand,
    WeightsPlaces,
    find_weights,
    torchvision_cache,
    usable,
)
from modeling.networks.pretrained.torchvision_files import BY_FILE
from tests.support.pretrained import CACHED, store_weights

LENET = Preprocessing("RGB", 32, 32)


@pytest.fixture
def places(tmp_path):
    for name in ("folder", "torch", "home"):
        (tmp_path / name).mkdir()
    home = tmp_path / "home"
    return WeightsPlaces(home / "weights", tmp_path / "folder", tmp_path / "torch", home / "cache")


def cached(places, monkeypatch, content=b"squeezed", *, damaged=False):
    """A file of torchvision's cache whose content has the digest that its name says, unless it is damaged."""
    sha256 = hashlib.sha256(content).hexdigest()
    start = "0" * 8 if damaged else sha256[:8]
    facts = BY_FILE[CACHED]._replace(file=f"squeezenet1_1-{start}.pth")
    monkeypatch.setattr(at_hand, "BY_FILE", {facts.file: facts})
    path = places.torchvision / facts.file
    path.write_bytes(content)
    return path, sha256


def test_all_three_places_are_looked_at_and_each_name_counts_once(places, monkeypatch):
    imported = store_weights(places.imported, "mobilenet_v2")
    path, sha256 = cached(places, monkeypatch)
    torch.save(build_network("lenet", LENET, 3).state_dict(), places.folder / "mobilenet_v2.pth")
    torch.save(build_network("lenet", LENET, 3).state_dict(), places.folder / "ours.pt")

    found = {weights.name: weights for weights in usable(find_weights(places))}

    assert list(found) == ["mobilenet_v2", "ours", path.stem]
    assert (found["mobilenet_v2"].path, found["mobilenet_v2"].origin) == (imported, "imported")
    assert (found["ours"].architecture, found["ours"].num_classes, found["ours"].origin) == ("lenet", 3, "folder")
    assert found[path.stem] == WeightsAtHand(
        path.stem, "squeezenet1_1", path, sha256, 1000, "torchvision", "torchvision's cache"
    )


def test_imported_weights_of_an_architecture_to_come_are_not_used(places):
    path = store_weights(places.imported, "ours", "newnet")

    why = "this release knows no architecture 'newnet'"
    assert find_weights(places) == [UnusableWeights("ours", path, "imported", why)]


def test_a_file_is_read_once_and_again_when_it_has_changed(places):
    places.memo.mkdir()
    file = places.folder / "ours.pt"
    torch.save(build_network("lenet", LENET, 3).state_dict(), file)
    read = []

    first = find_weights(places, read.append)
    assert find_weights(places, read.append) == first
    assert read == [file]

    os.utime(file, ns=(1, 1))
    find_weights(places, read.append)
    assert read == [file, file]


@pytest.mark.parametrize("memo", [b"", b"[]", b'{"x": {}}', b"\xff"])
def test_a_memo_that_cannot_be_read_costs_only_time(places, memo):
    places.memo.mkdir()
    (places.memo / "weights-1.json").write_bytes(memo)
    torch.save(build_network("lenet", LENET, 3).state_dict(), places.folder / "ours.pt")

    assert [weights.architecture for weights in usable(find_weights(places))] == ["lenet"]


def test_a_cached_file_that_is_not_what_its_name_says_is_not_used(places, monkeypatch):
    path, sha256 = cached(places, monkeypatch, damaged=True)

    (found,) = find_weights(places)

    assert found == UnusableWeights(
        path.stem, path, "torchvision",
        f"{path} is damaged: its sha256 begins with {sha256[:8]}, its name says 00000000",
    )  # fmt: skip


def test_other_files_of_the_cache_are_nobodys_business(places):
    (places.torchvision / "bert.pth").write_bytes(b"no weights")
    (places.torchvision / "squeezenet1_1-b8a52dc0.pth.partial").touch()

    assert find_weights(places) == []
    assert find_weights(replace(places, torchvision=places.torchvision / "nowhere", folder=None)) == []


def test_files_of_the_folder_that_are_no_weights_say_why(places):
    (places.folder / "empty.pth").touch()
    (places.folder / "imagenet.pth").write_bytes(b"x")
    (places.folder / "notes.txt").write_text("no weights")
    (places.folder / ".hidden.pth").touch()
    (places.folder / "unknown.pt").symlink_to("nowhere")
    os.mkfifo(places.folder / "pipe.bin")
    torch.save({"layer.weight": torch.zeros(3)}, places.folder / "odd.pt")
    torch.save(build_network("cnn", Preprocessing("L", 12, 12), 3).state_dict(), places.folder / "small.pt")

    found = {weights.name: weights.why for weights in find_weights(places)}

    assert sorted(found) == ["empty", "imagenet", "odd", "pipe", "small", "unknown"]
    assert found["imagenet"] == "its name stands for torchvision's weights; rename it"
    assert "No such file" in found["unknown"]
    assert "is a pipe, not a regular file" in found["pipe"]
    assert "those of no architecture that is known here" in found["odd"]
    assert "fit images of one size and kind alone" in found["small"]


def test_only_one_name_can_be_asked_for_and_nothing_else_is_read(places):
    torch.save(build_network("lenet", LENET, 3).state_dict(), places.folder / "ours.pt")
    (places.folder / "other.pt").write_bytes(b"x")
    read = []

    found = find_weights(places, read.append, only="ours")

    assert [weights.name for weights in found] == ["ours"]
    assert read == [places.folder / "ours.pt"]
    assert find_weights(places, only="nobody") == []


def test_a_folder_that_is_missing_or_a_model_is_a_mistake(places):
    (places.folder / "model.json").touch()

    with pytest.raises(ModelFormatError, match="is a model; name it with --from-weights"):
        find_weights(places)
    with pytest.raises(ModelFormatError, match="nowhere cannot be listed"):
        find_weights(replace(places, folder=places.folder / "nowhere"))


def test_the_cache_is_where_torch_has_it(monkeypatch, tmp_path):
    for variables in ({"TORCH_HOME": f"{tmp_path}/t"}, {"XDG_CACHE_HOME": f"{tmp_path}/x"}, {}):
        for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

        assert str(torchvision_cache()) == f"{torch.hub.get_dir()}/checkpoints"
