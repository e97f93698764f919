"""What a training's options become at submission: the network chosen, the weights found."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from modeling.errors import ArchitectureError
from modeling.images.preprocessing import Preprocessing
from modeling.networks.build import build_network
from modeling.networks.default_network import DataFacts
from modeling.networks.pretrained.at_hand import usable
from modeling.networks.pretrained.store import WeightsStore
from orchestrator.contract.errors import UsageError
from orchestrator.contract.jobs.requests import TrainJobRequest
from orchestrator.jobs.prepare import prepare
from orchestrator.jobs.specs import TrainSpec
from orchestrator.jobs.training import describe_choice, resolve_training, weights_at_hand
from tests.support.images import encode
from tests.support.pretrained import store_weights
from tests.support.published_models import publish_model, publish_network

JOB = "t261123-143355-7f3a2b"


def make_data(root: Path, side: int) -> Path:
    """Two classes of three images each."""
    for label, colour in (("a", (200, 0, 0)), ("b", (0, 200, 0))):
        (root / label).mkdir(parents=True)
        for number in range(3):
            (root / label / f"{number}.png").write_bytes(encode(Image.new("RGB", (side, side), colour)))
    return root


@pytest.fixture
def photos(tmp_path):
    return make_data(tmp_path / "photos", 100)


def test_weights_at_hand_are_chosen_pinned_and_said(settings, photos):
    file = store_weights(settings.imported_weights, "mobilenet_v2")

    prepared = prepare(settings, TrainSpec(photos, "mine", {"seed": 3}))

    options, weights = prepared.options, prepared.resolved.weights
    assert (options.architecture, options.weights, options.seed) == ("mobilenet_v2", str(file), 3)
    assert options.weights_pin is not None
    assert weights is not None
    assert (options.weights_pin.name, options.weights_pin.sha256) == ("mobilenet_v2", weights.sha256)
    assert options.chosen is not None
    assert (options.chosen.quality, options.chosen.facts) == ("good", DataFacts(5, 2, 100, 3))
    line = describe_choice(prepared.resolved)
    start = "network: mobilenet_v2, a new last layer, from the weights mobilenet_v2"
    assert line.startswith(f"{start} ({weights.sha256[:12]}, imported ")
    assert line.endswith(options.chosen.reason)
    request = prepared.request(JOB)
    assert TrainJobRequest.model_validate_json(request.model_dump_json()) == request


def test_small_images_need_no_weights(settings, tmp_path):
    store_weights(settings.imported_weights, "mobilenet_v2")

    settings = settings.model_copy(update={"weights": tmp_path / "nowhere"})  # is not even looked at

    resolved = resolve_training(settings, TrainSpec(make_data(tmp_path / "small", 20), "mine", {}))

    assert (resolved.options.weights, resolved.options.weights_pin, resolved.weights) == (None, None, None)
    assert " from scratch; the median image has 20 px a side" in describe_choice(resolved)


def test_what_the_operator_sets_stays(settings, photos):
    store_weights(settings.imported_weights, "mobilenet_v2")

    resolved = resolve_training(settings, TrainSpec(photos, "mine", {"epochs": 7, "image_size": 96}))

    options = resolved.options
    assert (options.architecture, options.epochs, options.image_size) == ("mobilenet_v2", 7, 96)
    assert " at 96 px, a new last layer, then fine-tuned, from the weights" in describe_choice(resolved)


def test_a_named_network_is_taken_and_nothing_is_chosen(settings, photos):
    store_weights(settings.imported_weights, "mobilenet_v2")

    resolved = resolve_training(settings, TrainSpec(photos, "mine", {"architecture": "cnn"}))

    assert (resolved.options.architecture, resolved.options.chosen, resolved.weights) == ("cnn", None, None)
    assert describe_choice(resolved) == ""


def test_weights_are_taken_by_name_with_their_architecture(settings, photos, tmp_path):
    store_weights(settings.imported_weights, "ours", "resnet18")

    resolved = resolve_training(settings, TrainSpec(photos, "mine", {"weights": "ours"}))

    assert (resolved.options.architecture, resolved.options.weights_pin) == ("resnet18", replace_pin(resolved))
    with pytest.raises(ArchitectureError, match="the weights 'ours' are of resnet18, not of cnn; leave out --arch"):
        resolve_training(settings, TrainSpec(photos, "mine", {"weights": "ours", "architecture": "cnn"}))
    with pytest.raises(UsageError, match="--weights-key 'ema' is for a file of weights"):
        resolve_training(settings, TrainSpec(photos, "mine", {"weights": "ours", "weights_key": "ema"}))


def test_a_name_that_stands_for_nothing_is_answered_with_those_that_do(settings, photos):
    store_weights(settings.imported_weights, "ours")

    with pytest.raises(UsageError, match="no weights, published model or file 'theirs'; weights at hand: ours"):
        resolve_training(settings, TrainSpec(photos, "mine", {"weights": "theirs"}))
    with pytest.raises(UsageError, match="--from-weights imagenet needs --arch, such as --arch mobilenet_v2"):
        resolve_training(settings, TrainSpec(photos, "mine", {"weights": "imagenet"}))


def replace_pin(resolved):
    """The pin that weights have by their name and digest."""
    return replace(resolved.options.weights_pin, name=resolved.weights.name, sha256=resolved.weights.sha256)


@pytest.mark.parametrize("named", [{"architecture": "cnn"}, {"weights": "imagenet", "architecture": "resnet18"}])
def test_a_quality_is_for_a_network_that_is_chosen(settings, photos, named):
    with pytest.raises(UsageError, match="--quality chooses the network, which --arch"):
        resolve_training(settings, TrainSpec(photos, "mine", named, quality="best"))


def test_a_name_of_a_model_and_of_weights_is_nobodys(settings, photos):
    publish_model(settings.models, "ours")
    store_weights(settings.imported_weights, "ours")

    with pytest.raises(UsageError, match="'ours' names a published model and weights; give ours@latest, or "):
        resolve_training(settings, TrainSpec(photos, "mine", {"weights": "ours"}))


def test_a_file_of_the_weights_folder_is_at_hand_unless_it_is_a_published_models(settings, photos, tmp_path):
    folder = tmp_path / "given"
    folder.mkdir()
    settings = settings.model_copy(update={"weights": folder})
    torch.save(build_network("lenet", Preprocessing("RGB", 32, 32), 3).state_dict(), folder / "ours.pth")
    version = publish_network(settings.models, "digits")
    (folder / "leak.safetensors").write_bytes((version.path / "model.safetensors").read_bytes())
    torch.save(safetensors.torch.load_file(version.path / "model.safetensors"), folder / "saved_again.pth")

    assert resolve_training(settings, TrainSpec(photos, "mine", {"weights": "ours"})).options.architecture == "lenet"
    assert [weights.name for weights in weights_at_hand(settings)] == ["leak", "ours", "saved_again"]
    assert [weights.name for weights in usable(weights_at_hand(settings))] == ["ours"]
    for name in ("leak", "saved_again"):
        why = f"the weights '{name}' cannot be used: the weights of digits@1, which has seen images that a new model"
        with pytest.raises(UsageError, match=why):
            resolve_training(settings, TrainSpec(photos, "mine", {"weights": name}))


def test_weights_that_were_imported_before_their_model_was_published_are_not_at_hand(settings, photos):
    version = publish_network(settings.models, "photos", "mobilenet_v2")
    content = (version.path / "model.safetensors").read_bytes()
    store_weights(settings.imported_weights, "leak", "mobilenet_v2", content=content)
    store_weights(settings.imported_weights, "squeezed", "squeezenet1_1")

    resolved = resolve_training(settings, TrainSpec(photos, "mine", {}))

    assert resolved.weights is not None
    assert resolved.weights.name == "squeezed"
    with pytest.raises(UsageError, match="the weights 'leak' cannot be used: the weights of photos@1"):
        resolve_training(settings, TrainSpec(photos, "mine", {"weights": "leak"}))


def test_weights_stay_at_hand_though_a_model_was_imported_from_the_same_file(settings):
    imported = {"imported": {"file": "lenet.pth", "sha256": "0" * 64}}
    version = publish_network(settings.models, "digits", training=imported)
    store_weights(settings.imported_weights, "ours", "lenet", content=(version.path / "model.safetensors").read_bytes())

    assert [weights.name for weights in usable(weights_at_hand(settings))] == ["ours"]


def test_the_same_key_stands_for_the_same_spec_though_other_weights_have_come(settings, photos):
    spec = TrainSpec(photos, "mine", {"seed": 1}, idempotency_key="monday")
    before = prepare(settings, spec).request(JOB)
    store_weights(settings.imported_weights, "mobilenet_v2")

    after = prepare(settings, spec)

    assert before.train["weights"] is None
    assert after.options.architecture == "mobilenet_v2"
    assert after.repeats(before)
    assert prepare(settings, spec).repeats(after.request(JOB))
    for other in (replace(spec, options={"seed": 2}), replace(spec, quality="best"), replace(spec, name="other")):
        assert not prepare(settings, other).repeats(before)
    named = replace(spec, options={"seed": 1, "architecture": str(before.train["architecture"])})
    assert not prepare(settings, named).repeats(before)


def test_images_that_nobody_can_open_are_left_to_the_scan(settings, photos):
    for path in photos.rglob("*.png"):
        path.write_bytes(b"")

    resolved = resolve_training(settings, TrainSpec(photos, "mine", {}))

    assert resolved.options.chosen is not None
    assert resolved.num_images == 6


def test_weights_that_were_removed_are_not_at_hand(settings, photos):
    store_weights(settings.imported_weights, "mobilenet_v2")
    WeightsStore(settings.imported_weights).remove("mobilenet_v2")

    resolved = resolve_training(settings, TrainSpec(photos, "mine", {}))

    assert resolved.weights is None
    assert resolved.choice is not None
    assert "`pigeonhole weights import FILE`" in resolved.choice.advice


def test_small_letters_in_colour_are_not_mirrored(settings, tmp_path):
    for label, bowl in (("b", slice(12, 18)), ("d", slice(5, 11))):
        (tmp_path / "letters" / label).mkdir(parents=True)
        for number in range(60):
            pixels = np.full((24, 24, 3), (250, 240, 200 + number % 40), dtype=np.uint8)
            pixels[3 + number % 3 : 20, 11:13] = pixels[12:20, bowl] = 30
            (tmp_path / "letters" / label / f"{number}.png").write_bytes(encode(Image.fromarray(pixels)))

    options = resolve_training(settings, TrainSpec(tmp_path / "letters", "mine", {})).options

    assert options.architecture == "glyphnet"
    assert options.chosen is not None
    assert options.chosen.facts == DataFacts(96, 2, 24, 3, mirroring_matters=True)
