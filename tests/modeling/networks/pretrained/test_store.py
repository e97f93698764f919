"""The store of imported weights: names, records, removal, and what is damaged."""

import pytest

from modeling.errors import ModelFormatError, ModelInUseError, ModelNameError, ModelNotFoundError
from modeling.networks.pretrained.store import WeightsStore, check_weights_name
from tests.support.pretrained import store_weights


@pytest.fixture
def store(tmp_path):
    return WeightsStore(tmp_path / "weights")


def test_weights_are_kept_by_name_and_removed(store):
    file = store_weights(store.root, "ours", "resnet18", 7)

    assert store.names() == ["ours"]
    assert (store.record("ours").architecture, store.record("ours").num_classes) == ("resnet18", 7)
    assert file.read_bytes() == b"ours"

    store.remove("ours")

    assert (store.names(), list(store.root.iterdir())) == ([], [])


def test_the_same_weights_twice_are_one_and_others_need_another_name(store):
    store_weights(store.root, "ours")
    record = store.record("ours")

    assert not store.add("ours", record, b"ours")
    with pytest.raises(ModelInUseError, match=r"is taken, by other weights of mobilenet_v2 \(from ours"):
        store_weights(store.root, "ours", content=b"others")
    assert store.record("ours") == record
    assert [entry.name for entry in store.root.iterdir()] == ["ours"]


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"architecture": "resnet18"}'])
def test_a_damaged_record_is_told_and_costs_the_others_nothing(store, damage):
    store_weights(store.root, "a")
    store_weights(store.root, "b")
    (store.root / "a" / "weights.json").write_bytes(damage)

    found = dict(store.records())

    assert isinstance(found["a"], ModelFormatError)
    assert found["b"] == store.record("b")
    with pytest.raises(ModelInUseError, match="by damaged weights; remove them first"):
        store_weights(store.root, "a", content=b"new")
    store.remove("a")
    assert store.names() == ["b"]


def test_weights_without_their_file_are_not_complete(store):
    store_weights(store.root, "a").unlink()

    with pytest.raises(ModelFormatError, match="is not complete"):
        store.record("a")


def test_unknown_weights_are_answered_with_those_that_exist(store):
    store_weights(store.root, "a")

    for act in (store.record, store.remove):
        with pytest.raises(ModelNotFoundError, match="no imported weights 'b'; there are: a"):
            act("b")


@pytest.mark.parametrize("name", ["", "No Name", "../x", "a/b", "imagenet", "-a", "a" * 101, "\udcff"])
def test_names_that_are_no_folder_or_mean_something_else_are_refused(name):
    with pytest.raises(ModelNameError):
        check_weights_name(name)
