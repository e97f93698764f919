"""Names that move: what a model's aliases stand for, and how that changes."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from modeling.errors import ModelFormatError, ModelNameError, ModelNotFoundError
from modeling.images.preprocessing import Preprocessing
from modeling.registry.aliases import read_aliases
from modeling.registry.card import ModelCard
from modeling.registry.store import ModelStore


@pytest.fixture
def store(tmp_path) -> ModelStore:
    """A store with `birds@1` to `birds@3`."""
    store = ModelStore(tmp_path / "models")
    for number in range(3):
        weights = bytes([number])
        card = ModelCard("cnn", ("a", "b"), Preprocessing("L", 28, 28), hashlib.sha256(weights).hexdigest())
        staged = tmp_path / str(number)
        staged.mkdir()
        (staged / "model.safetensors").write_bytes(weights)
        (staged / "model.json").write_bytes(card.to_bytes())
        store.publish(staged, "birds")
    return store


def test_an_alias_stands_for_its_version_until_it_is_moved(store):
    before = [store.set_alias(store.resolve(f"birds@{number}"), "champion") for number in (2, 2, 3)]

    assert before == [None, 2, 2]
    assert store.resolve("birds@champion") == store.resolve("birds@3")
    assert store.card("birds@champion") == store.card("birds@3")


def test_a_version_may_have_several_aliases_and_an_alias_may_be_given_by_another(store):
    store.set_alias(store.resolve("birds@1"), "stable")
    store.set_alias(store.resolve("birds@stable"), "champion")

    assert store.aliases("birds") == {"champion": 1, "stable": 1}
    assert list(store.aliases("birds")) == ["champion", "stable"]
    assert store.aliases("fish") == {}
    assert [version.ref for version in store.list()] == ["birds@1", "birds@2", "birds@3"]


def test_a_dropped_alias_stands_for_nothing_and_the_others_stay(store):
    for number, alias in ((1, "champion"), (2, "challenger")):
        store.set_alias(store.resolve(f"birds@{number}"), alias)

    assert store.drop_alias("birds", "champion") == 1

    assert store.aliases("birds") == {"challenger": 2}
    known = r"model 'birds' has no alias 'champion'; aliases: challenger \(2\); versions: 1, 2, 3"
    with pytest.raises(ModelNotFoundError, match=known):
        store.resolve("birds@champion")
    with pytest.raises(ModelNotFoundError, match=known):
        store.drop_alias("birds", "champion")
    with pytest.raises(ModelNotFoundError, match="no model 'fish'"):
        store.drop_alias("fish", "champion")


@pytest.mark.parametrize(
    "alias", ["", "latest", "1", "1st", "Champion", "a b", "a.b", "-a", "a@b", "../a", "a" * 51, "a\n"]
)
def test_an_alias_is_a_lower_case_word_and_never_latest(store, alias):
    with pytest.raises(ModelNameError, match="alias"):
        store.set_alias(store.resolve("birds@1"), alias)

    assert store.aliases("birds") == {}


def test_a_removed_version_gets_no_alias(store):
    version = store.resolve("birds@2")
    store.remove(version)

    with pytest.raises(ModelNotFoundError, match="'birds@2' was removed"):
        store.set_alias(version, "champion")

    assert store.aliases("birds") == {}


def test_an_alias_of_a_version_that_was_deleted_by_hand_says_which(store):
    store.set_alias(store.resolve("birds@2"), "champion")
    (store.root / "birds" / "2" / "model.json").unlink()

    with pytest.raises(ModelNotFoundError, match=r"no model 'birds@champion \(version 2\)'; versions of 'birds': 1, 3"):
        store.resolve("birds@champion")


def test_aliases_set_in_a_race_are_all_kept(store):
    names = [f"alias-{number}" for number in range(16)]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: store.set_alias(store.resolve("birds@1"), name), names))

    assert store.aliases("birds") == dict.fromkeys(names, 1)
    assert [path.name for path in (store.root / "birds").iterdir() if path.name.startswith(".aliases")] == []


@pytest.mark.parametrize(
    "content",
    [
        b"{", b"[]", b"{}", b'{"format_version": 2, "aliases": {}}', b'{"format_version": 1, "aliases": []}',
        b'{"format_version": 1, "aliases": {"a": "1"}}', b'{"format_version": 1, "aliases": {"a": true}}',
        b'{"format_version": 1, "aliases": {"a": 0}}', b'{"format_version": 1, "aliases": {"latest": 1}}',
    ],
)  # fmt: skip
def test_damaged_aliases_are_told_and_numbers_still_resolve(store, content):
    (store.root / "birds" / "aliases.json").write_bytes(content)

    with pytest.raises(ModelFormatError, match=r"aliases\.json: "):
        store.resolve("birds@champion")
    with pytest.raises(ModelFormatError, match=r"aliases\.json: "):
        store.remove(store.resolve("birds@2"))
    assert store.resolve("birds@2").version == 2


def test_a_model_without_the_file_has_no_aliases(tmp_path):
    assert read_aliases(tmp_path / "nowhere") == {}
