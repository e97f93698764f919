"""The engine that answers must answer as the model does, be chosen once, and be chosen again the same way."""

import errno
import hashlib
import json
import os
import re
import shutil
import threading
from typing import Self

import numpy as np
import pytest
import torch

from modeling.errors import ModelingError
from modeling.inference import choose_engine, find_engine
from modeling.inference.choose_engine import load_fastest, load_remembered
from modeling.inference.classifier import Classifier
from modeling.inference.engines import hardware
from modeling.inference.engines.choice import copy_artifacts
from modeling.inference.engines.graphs import GRAPH_FILE
from modeling.inference.find_engine import MEASURING
from modeling.networks import onnx_graph
from modeling.networks.onnx_graph import write_graph
from modeling.registry.store import ModelStore
from tests.support.published_models import LABELS, publish_model
from tests.support.small_models import TREES, make_random_model, random_images


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store with a small convolutional network, whose engines are built once for all tests here."""
    root = tmp_path_factory.mktemp("engines")
    store = ModelStore(root / "models")
    store.publish(make_random_model(root / "staged"), "shapes")
    return store


@pytest.fixture(scope="module")
def built_once(tmp_path_factory):
    """A store with `digits`, whose engine is chosen, and `shapes`, whose remembered engine is OpenVINO's."""
    root = tmp_path_factory.mktemp("built")
    store = ModelStore(root / "models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(find_engine, "FAST_ENOUGH", float("inf"))
        load_fastest(publish_model(store.root, "digits"))
        patch.setattr(find_engine, "MIN_SPEEDUP", 0.0)  # the last engine is chosen
        load_fastest(store.publish(make_random_model(root / "staged"), "shapes"), precision="fp32")
    return store.root


@pytest.fixture
def copied(built_once, tmp_path):
    """A copy of that store, to be damaged."""
    shutil.copytree(built_once, tmp_path / "models")
    return ModelStore(tmp_path / "models")


@pytest.fixture
def built(copied, monkeypatch):
    """A version whose remembered engine is OpenVINO's, and its graph."""
    monkeypatch.setattr(find_engine, "MIN_SPEEDUP", 0.0)
    version = copied.resolve("shapes")
    return version, version.artifacts / GRAPH_FILE


@pytest.fixture(autouse=True)
def _measure_all_engines(monkeypatch):
    monkeypatch.setattr(find_engine, "FAST_ENOUGH", float("inf"))


class Backwards:
    """An engine that is fast and wrong."""

    name = "torch bf16"
    num_streams = 1

    def __init__(self, num_labels: int) -> None:
        self._num_labels = num_labels

    def logits(self, images: np.ndarray) -> torch.Tensor:
        return -torch.arange(self._num_labels).float().repeat(len(images), 1)

    def for_batch_size(self, batch_size: int) -> Self:
        return self


def torch_and_a_wrong_one(name: str, num_labels: int):
    """Options of which the second answers otherwise than torch."""

    def options(classifier, *_):
        right = find_engine.Option("torch fp32", "fp32", lambda: classifier.reference)
        return [right, find_engine.Option(name, "fp32", lambda: Backwards(num_labels))]

    return options


def remembered(version, precision="auto"):
    (path,) = version.artifacts.glob(f"{precision}-*.json")
    return json.loads(path.read_text())


def test_every_engine_answers_as_torch_does_in_batches_of_any_size(store):
    version = store.resolve("shapes")
    reference = Classifier.load(version.path)

    found = dict(choose_engine.measure_engines(version))

    assert {"torch fp32", "openvino fp32"} <= set(found)
    for name, engine in found.items():
        for size in (1, 3, 32):
            images = random_images(size)
            tolerance = 1e-4 if name.endswith("fp32") else 0.05
            np.testing.assert_allclose(engine.logits(images), reference.logits(images), atol=tolerance)


def test_the_choice_is_remembered_with_the_hardware_and_not_measured_again(store, monkeypatch):
    version = store.resolve("shapes")
    first = load_fastest(version)
    monkeypatch.setattr(choose_engine, "find", lambda *_: pytest.fail("measured again"))

    second = load_fastest(version)

    facts = remembered(version)
    assert facts["engine"] == first.engine.name == second.engine.name
    assert "cores" in facts["hardware"]
    assert facts["images_per_sec"]["openvino fp32"] > 0


def published_again(store, version, name="again"):
    """The same network as another model: nothing beside it."""
    return store.publish(version.path, name)


def without_shared_choices(store):
    shutil.rmtree(store.root / ".engines")


def test_a_second_version_of_an_architecture_is_not_measured(built, monkeypatch):
    first, _ = built
    store = ModelStore(first.path.parent.parent)
    second = published_again(store, first)
    monkeypatch.setattr(choose_engine, "find", lambda *_: pytest.fail("measured again"))

    classifier = load_fastest(second, precision="fp32")

    assert classifier.engine.name == "openvino fp32"
    assert remembered(second, "fp32") == remembered(first, "fp32")  # with the digest of its own graph, which is equal
    assert (second.artifacts / GRAPH_FILE).exists()


def test_a_second_version_with_which_the_engine_answers_otherwise_is_measured(built, monkeypatch, caplog):
    first, _ = built
    second = published_again(ModelStore(first.path.parent.parent), first)

    monkeypatch.setattr(choose_engine, "_options", torch_and_a_wrong_one("openvino fp32", len(TREES)))

    classifier = load_fastest(second, precision="fp32")

    assert classifier.engine.name == "torch fp32"
    assert "again@1: openvino fp32 cannot be used as before: OtherAnswersError" in caplog.text
    assert "logits differ" in remembered(second, "fp32")["refused"]["openvino fp32"]


def test_a_choice_for_which_an_engine_was_refused_by_its_answers_counts_for_that_version_only(tmp_path, monkeypatch):
    store = ModelStore(tmp_path / "models")
    monkeypatch.setattr(choose_engine, "_options", torch_and_a_wrong_one("torch bf16", len(LABELS)))

    load_fastest(publish_model(store.root, "digits"))

    assert not (store.root / ".engines").exists()


def test_what_was_never_measured_is_not_loaded_without_measuring(built, monkeypatch):
    first, _ = built
    store = ModelStore(first.path.parent.parent)
    second = published_again(store, first)
    monkeypatch.setattr(choose_engine, "find", lambda *_: pytest.fail("measured"))

    found = [load_remembered(version, precision="fp32") for version in (first, second)]
    without_shared_choices(store)
    third = load_remembered(published_again(store, first, "third"), precision="fp32")

    assert [each.engine.name for each in found] == ["openvino fp32", "openvino fp32"]
    assert third is None


def test_measuring_says_what_it_measures(tmp_path, monkeypatch):
    monkeypatch.setattr(find_engine, "FAST_ENOUGH", 1)
    said = []

    load_fastest(publish_model(tmp_path / "models", "digits"), report=said.append)

    assert said[:2] == [MEASURING, f"{MEASURING}: torch fp32"]
    assert " in batches of " in said[-1]


def test_predictions_are_the_models_whatever_engine_computes_them(store):
    version = store.resolve("shapes")
    images = random_images(9)

    expected = Classifier.load(version.path).predict(images, 2)
    found = load_fastest(version, precision="fp32").predict(images, 2)

    assert [one.labels for one in found] == [one.labels for one in expected]
    assert [one.decision for one in found] == [one.decision for one in expected]
    np.testing.assert_allclose([one.scores for one in found], [one.scores for one in expected], atol=1e-5)


def test_artifacts_may_be_deleted_at_any_time_and_go_with_the_version(copied):
    version = copied.resolve("digits")
    assert remembered(version)

    for path in version.artifacts.iterdir():
        path.unlink()
    load_fastest(version)
    assert remembered(version)
    copied.remove(version)

    assert not version.artifacts.exists()


def test_a_store_that_cannot_be_written_to_costs_time_and_nothing_else(tmp_path, caplog):
    version = publish_model(tmp_path / "models", "digits")
    version.artifacts.parent.write_text("a file where the folder should be")

    classifier = load_fastest(version)

    assert len(classifier.predict(np.zeros((2, 28, 28, 1), np.uint8), 1)) == 2
    assert "cannot keep engines" in caplog.text


def test_an_engine_that_answers_otherwise_is_refused_with_its_figure(tmp_path, monkeypatch):
    version = publish_model(tmp_path / "models", "digits")
    monkeypatch.setattr(choose_engine, "_options", torch_and_a_wrong_one("torch bf16", len(LABELS)))
    classifier = load_fastest(version)

    facts = remembered(version)
    assert classifier.engine.name == "torch fp32"
    assert "logits differ by" in facts["refused"]["torch bf16"]
    assert "torch bf16" not in facts["images_per_sec"]


def test_an_engine_that_answers_otherwise_in_small_batches_only_is_refused_too(tmp_path, monkeypatch):
    version = publish_model(tmp_path / "models", "digits")
    monkeypatch.setattr(find_engine, "MIN_SPEEDUP", 0.0)  # it would be chosen
    wrong = Backwards(len(LABELS))

    class RightInLargeBatches(Backwards):
        def __init__(self, classifier: Classifier) -> None:
            self.logits = classifier.reference.logits

        def for_batch_size(self, batch_size: int):
            return self if batch_size > 8 else wrong

    def options(classifier, *_):
        right = find_engine.Option("torch fp32", "fp32", lambda: classifier.reference)
        return [right, find_engine.Option("torch bf16", "bf16", lambda: RightInLargeBatches(classifier))]

    monkeypatch.setattr(choose_engine, "_options", options)

    assert load_fastest(version).engine.name == "torch fp32"
    assert "logits differ by" in remembered(version)["refused"]["torch bf16"]
    assert not version.shared_artifacts.exists()


def test_a_network_that_is_fast_by_torch_alone_gets_no_other_engine(tmp_path, monkeypatch):
    monkeypatch.setattr(find_engine, "FAST_ENOUGH", 1)
    version = publish_model(tmp_path / "models", "digits")

    load_fastest(version)

    assert set(remembered(version)["images_per_sec"]) == {"torch fp32"}
    assert not (version.artifacts / GRAPH_FILE).exists()


def test_a_precision_that_the_model_does_not_have_says_how_to_get_it(store):
    with pytest.raises(ModelingError, match=r"int8.*train it with --int8.*--precision auto"):
        load_fastest(store.resolve("shapes"), precision="int8")


def test_two_that_load_at_once_build_once(tmp_path, monkeypatch):
    store = ModelStore(tmp_path / "models")
    version = store.publish(make_random_model(tmp_path / "staged"), "shapes")
    found = []
    calls = []
    find = choose_engine.find
    monkeypatch.setattr(choose_engine, "find", lambda *args: calls.append(1) or find(*args))

    threads = [threading.Thread(target=lambda: found.append(load_fastest(version).engine.name)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(calls) == 1
    assert len(found) == 3
    assert len(set(found)) == 1


def test_a_damaged_memory_of_the_choice_is_made_anew(copied):
    version = copied.resolve("digits")
    (path,) = version.artifacts.glob("auto-*.json")
    path.write_text("{")

    load_fastest(version)

    assert remembered(version)["engine"]


@pytest.mark.parametrize("failing", ["engine", "choice"])
def test_the_choice_stays_where_files_cannot_be_opened_now(copied, monkeypatch, failing):
    version = copied.resolve("digits")
    before = remembered(version)

    def fail(*args, **kwargs):
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        if failing == "choice":
            patch.setattr(choose_engine, "read_choice", fail)
        else:
            patch.setattr(choose_engine, "with_engine", fail)
        with pytest.raises(OSError, match="Too many open files"):
            load_fastest(version)

    assert remembered(version) == before


def test_no_engine_loses_its_place_because_files_cannot_be_opened_now(tmp_path, monkeypatch):
    version = publish_model(tmp_path / "models", "digits")

    def fail(*args, **kwargs):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(find_engine, "_speed", fail)

    with pytest.raises(OSError, match="Too many open files"):
        load_fastest(version)

    assert list(version.artifacts.glob("auto-*.json")) == []


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
NO_GPU_MEMORY = RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.mark.parametrize("err", [FULL, NO_GPU_MEMORY])
def test_what_lacks_room_now_is_not_used_and_the_choice_is_not_kept(tmp_path, monkeypatch, err):
    version = publish_model(tmp_path / "models", "digits")
    make = choose_engine._openvino_options

    def fail():
        raise err

    def options(*args):
        return [find_engine.Option(option.name, option.precision, fail) for option in make(*args)]

    with monkeypatch.context() as patch:
        patch.setattr(choose_engine, "_openvino_options", options)
        assert load_fastest(version).engine.name == "torch fp32"
    assert (list(version.artifacts.glob("*.json")), version.shared_artifacts.exists()) == ([], False)

    load_fastest(version)
    assert remembered(version)["refused"] == {}


@pytest.mark.parametrize(("err", "raised"), [(FULL, OSError), (NO_GPU_MEMORY, MemoryError)])
def test_a_choice_is_waited_for_where_it_lacks_room_now(built, monkeypatch, err, raised):
    version, graph = built
    before, data = remembered(version, "fp32"), graph.read_bytes()

    def fail(*args):
        raise err

    with monkeypatch.context() as patch:
        patch.setattr(choose_engine, "with_engine", fail)
        with pytest.raises(raised, match=re.escape(str(err))):
            load_fastest(version, precision="fp32")

    assert (remembered(version, "fp32"), graph.read_bytes()) == (before, data)


def test_a_choice_of_other_versions_that_lacks_room_now_is_replaced_for_now_only(built, monkeypatch):
    first, _ = built
    second = published_again(ModelStore(first.path.parent.parent), first)

    def fail(*args):
        raise NO_GPU_MEMORY

    with monkeypatch.context() as patch:
        patch.setattr(choose_engine, "checked", fail)
        load_fastest(second, precision="fp32")
    assert list(second.artifacts.glob("*.json")) == []

    load_fastest(second, precision="fp32")
    assert remembered(second, "fp32") == remembered(first, "fp32")


def test_a_graph_that_the_disk_does_not_take_is_built_for_this_process_and_the_engine_stays(built, monkeypatch, caplog):
    version, graph = built
    before, original = remembered(version, "fp32"), graph.read_bytes()
    graph.unlink()
    write = onnx_graph.write_graph

    def full(network, card, path):
        if path.parent != version.artifacts:
            return write(network, card, path)
        path.write_bytes(b"half a graph")
        raise FULL

    with monkeypatch.context() as patch:
        patch.setattr(onnx_graph, "write_graph", full)
        classifier = load_fastest(version, precision="fp32")

    assert classifier.engine.name == before["engine"] == "openvino fp32"
    assert sorted(path.name for path in version.artifacts.iterdir() if path.suffix != ".json") == [".lock"]
    assert f"{graph} cannot be kept (No space left on device)" in caplog.text
    load_fastest(version, precision="fp32")
    assert (remembered(version, "fp32"), graph.read_bytes()) == (before, original)


def test_a_damaged_graph_is_built_anew_and_the_choice_stays(built):
    version, graph = built
    before = remembered(version, "fp32")
    graph.write_bytes(graph.read_bytes()[:100])

    classifier = load_fastest(version, precision="fp32")

    assert classifier.engine.name == before["engine"] == "openvino fp32"
    assert remembered(version, "fp32") == before
    assert len(graph.read_bytes()) > 100


def test_choices_are_copied_with_the_graph_that_they_need_and_what_is_there_stays(built, tmp_path):
    version, graph = built
    target = tmp_path / "target"

    copy_artifacts(version.artifacts, target)

    originals = {path.name: path.read_bytes() for path in version.artifacts.iterdir() if path.name != ".lock"}
    assert {path.name: path.read_bytes() for path in target.iterdir()} == originals
    (target / GRAPH_FILE).write_bytes(b"there")
    copy_artifacts(version.artifacts, target)
    assert (target / GRAPH_FILE).read_bytes() == b"there" != graph.read_bytes()


def other_graph(folder):
    """A valid graph of the same shapes that answers otherwise."""
    torch.manual_seed(7)
    classifier = Classifier.load(make_random_model(folder))
    for parameter in classifier.network.parameters():
        parameter.data.neg_()
    write_graph(classifier.network, classifier.card, folder / "other.onnx")
    return (folder / "other.onnx").read_bytes()


def test_a_graph_that_was_exchanged_is_built_anew_and_never_answers(built, tmp_path, monkeypatch, caplog):
    version, graph = built
    before, images = remembered(version, "fp32"), random_images(9)
    expected = load_fastest(version, precision="fp32").predict(images, 3)
    original = graph.read_bytes()
    graph.write_bytes(other_graph(tmp_path / "other"))

    classifier = load_fastest(version, precision="fp32")

    assert classifier.engine.name == before["engine"] == "openvino fp32"
    assert classifier.predict(images, 3) == expected
    assert hashlib.sha256(original).hexdigest() == before["graph_sha256"]
    assert (remembered(version, "fp32"), graph.read_bytes()) == (before, original)
    assert "is not the graph that an engine was chosen with; it is built anew" in caplog.text


def test_a_graph_without_a_remembered_choice_is_not_trusted_either(built, tmp_path):
    version, graph = built
    original = graph.read_bytes()
    graph.write_bytes(other_graph(tmp_path / "other"))
    for path in version.artifacts.glob("*.json"):
        path.unlink()

    load_fastest(version, precision="fp32")

    assert graph.read_bytes() == original


def test_a_choice_from_before_digests_is_kept_and_gets_one(built):
    version, _ = built
    (path,) = version.artifacts.glob("fp32-*.json")
    before = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in before.items() if name != "graph_sha256"}))

    load_fastest(version, precision="fp32")

    assert remembered(version, "fp32") == before


@pytest.mark.parametrize("changed", ["_VERSION", "_cpu", "version"])
def test_what_was_built_for_other_hardware_or_libraries_is_not_used(monkeypatch, changed):
    device = torch.device("cpu")
    before = hardware.hardware_key(device)

    other = {"_VERSION": -1, "_cpu": lambda: {"model name": "another"}, "version": lambda name: f"another {name}"}
    monkeypatch.setattr(hardware, changed, other[changed])

    assert hardware.hardware_key(device) != before
