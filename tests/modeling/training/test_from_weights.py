"""Training from weights: the probe, fine-tuning from it, and what is kept."""

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from modeling.data.dataset import Dataset
from modeling.data.lost import LostImages
from modeling.data.splits import Split
from modeling.errors import ArchitectureError, ModelingError
from modeling.images.preprocessing import Preprocessing
from modeling.networks.architectures import get_architecture
from modeling.networks.default_network import DataFacts
from modeling.networks.recipes import CNN as RECIPE
from modeling.training import from_weights as training_transfer
from modeling.training.fit.loop import DivergedError
from modeling.training.from_weights import _keep_better
from modeling.training.request import ChosenNetwork, TrainRequest, WeightsPin
from modeling.training.train import plan_from_scratch, train
from tests.support.images import glyph, idx_bytes, make_class_folders


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A trained cnn to start from, its data, and the request that starts from it."""
    root = tmp_path_factory.mktemp("base")
    data = make_class_folders(root / "data", 20)
    request = TrainRequest(data, "cnn", root / "model", epochs=4, batch_size=8, learning_rate=5e-3)
    train(request, lambda event: None)
    return replace(
        request, weights=str(root / "model"), epochs=None, learning_rate=None, output=root / "next",
        cache=root / "cache", seed=1,
    )  # fmt: skip


def run(request: TrainRequest):
    events = []
    card = train(request, events.append)
    return card, events


def named(events, name):
    return [event for event in events if event["event"] == name]


def test_without_epochs_or_budget_the_probe_is_the_model_and_the_cache_spares_its_features(base):
    first, events = run(base)
    again, events_again = run(base)

    assert first.training["kept"] == "probe"
    assert first.metrics["test_accuracy"] == 1.0
    assert (len(named(events, "epoch")), len(named(events, "probe"))) == (0, 1)
    assert again == first
    assert [event["num_done"] for event in named(events_again, "features")] == [40]  # all at once


def test_with_epochs_the_network_is_tuned_from_the_probe_and_the_better_one_kept(base):
    card, events = run(replace(base, epochs=2))

    assert [event["epoch"] for event in named(events, "epoch")] == [1, 2]
    assert {event["stage"] for event in named(events, "epoch")} == {"fine-tune"}
    assert named(events, "note")[-1]["text"].startswith("fine-tuning: validation accuracy ")
    assert card.training["kept"] in ("probe", "fine-tuning")
    assert card.metrics["test_accuracy"] == 1.0


@pytest.mark.parametrize(
    ("probed", "tuned", "kept"),
    [
        ([[2, 0], [0, 2]], [[2, 0], [2, 0]], "probed"),  # both right, one right
        ([[2, 0], [2, 0]], [[2, 0], [0, 2]], "tuned"),
        ([[2, 0], [0, 2]], [[3, 0], [0, 3]], "tuned"),  # as many right, and surer of it
        ([[3, 0], [0, 3]], [[2, 0], [0, 2]], "probed"),
        ([[2, 0], [0, 2]], [[2, 0], [0, 2]], "probed"),  # nothing won: the simpler one
    ],
)
def test_whichever_answers_the_validation_images_better_is_kept(probed, tuned, kept):
    def trained(logits):
        return SimpleNamespace(logits_of=lambda indices: np.array(logits, np.float32)[indices])

    both = {"probed": trained(probed), "tuned": trained(tuned)}
    split = Split(np.arange(0), np.arange(2), np.arange(0))
    dataset = Dataset("folders", Path("data"), ("a", "b"), np.array([0, 1]))
    data = SimpleNamespace(split=split, dataset=dataset, lost=LostImages(dataset, split, ("", "")))
    notes = []

    found = _keep_better(SimpleNamespace(note=notes.append), data, both["probed"], both["tuned"])

    assert found is both[kept]
    assert notes[0].endswith("kept" if kept == "tuned" else "the probe is kept")


def test_fine_tuning_that_was_killed_goes_on_and_ends_with_the_same_model(base, tmp_path):
    class KilledError(Exception):
        pass

    def die_when_the_second_epoch_is_over(event):
        if event["event"] == "epoch" and event["epoch"] == 2:
            raise KilledError

    asked = replace(base, epochs=3, cache=tmp_path / "cache")
    run(replace(asked, output=tmp_path / "whole"))
    resumed = replace(asked, output=tmp_path / "resumed", work=tmp_path / "work")
    with pytest.raises(KilledError):
        train(resumed, die_when_the_second_epoch_is_over)
    _, events = run(resumed)

    assert [event["epoch"] for event in events if event["event"] in ("resumed", "epoch")] == [2, 3]
    for name in ("model.safetensors", "model.json"):
        assert (tmp_path / "resumed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_budget_with_some_time_left_gets_as_many_epochs_as_fit_and_says_so(base, tmp_path, monkeypatch):
    epoch_s = 100.0 * 32 / 8 * 1.15 * (1 + 1 / 3 * 4 / 32)  # 32 training images by 8, 4 to validate
    monkeypatch.setattr("modeling.training.fit.trainer.step_seconds", lambda *args, **extra: 100.0)

    card, events = run(replace(base, weights=None, epochs=9, budget_s=2.5 * epoch_s, output=tmp_path / "model"))

    assert [event["epoch"] for event in named(events, "epoch")] == [1, 2]
    assert card.training["plan"]["recipe"]["epochs"] == 2
    assert any(event["text"].startswith("2 epochs of 9 fit into the ") for event in named(events, "note"))


def test_where_memory_is_short_a_step_is_made_of_several_passes_and_the_training_says_so(base, tmp_path, monkeypatch):
    monkeypatch.setattr("modeling.training.fit.autotune.memory_left", lambda: 0)

    card, events = run(replace(base, weights=None, epochs=4, learning_rate=5e-3, output=tmp_path / "model"))

    assert card.training["plan"]["micro_batch"] == 1
    assert card.training["plan"]["recipe"]["batch_size"] == 8
    assert "memory is low: micro-batches of 1 image; a step still uses 8" in [
        event["text"] for event in named(events, "note")
    ]
    assert card.metrics["test_accuracy"] == 1.0


def test_a_learning_rate_that_is_to_be_found_is_found_told_and_used(base, tmp_path):
    card, events = run(replace(base, weights=None, epochs=1, learning_rate="auto", output=tmp_path / "model"))

    rate = card.training["plan"]["recipe"]["learning_rate"]
    assert f"learning rate {rate:g} found by a range test" in [event["text"] for event in named(events, "note")]
    assert 0 < rate != RECIPE.learning_rate


@pytest.mark.parametrize("from_weights", [True, False])
def test_nothing_is_chosen_by_the_test_part(base, tmp_path, from_weights):
    def write(folder, part, count, *, swapped=False):
        """Bars in noise, so that none is a duplicate of another."""
        targets = np.arange(count) % 2
        noise = np.random.default_rng(count).integers(0, 40, (count, 12, 12))
        bars = np.stack([np.asarray(glyph(target, number)) for number, target in enumerate(targets)])
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx_bytes(np.clip(bars + noise, 0, 255)))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx_bytes(1 - targets if swapped else targets))

    cards, weights = [], []
    for name in ("right", "wrong"):  # the same test images, under the other label
        data = tmp_path / name
        data.mkdir()
        write(data, "train", 96)
        write(data, "t10k", 20, swapped=name == "wrong")
        asked = replace(
            base, data=data, output=tmp_path / f"model-{name}", cache=None, validation=0.25, deterministic=True
        )
        card, _ = run(replace(asked, epochs=2) if from_weights else replace(asked, weights=None, epochs=4))
        cards.append(card)
        weights.append((tmp_path / f"model-{name}" / "model.safetensors").read_bytes())

    right, wrong = cards
    assert weights[0] == weights[1]
    assert right.calibration == wrong.calibration
    assert right.metrics["test_accuracy"] > 0.9 > 0.1 > wrong.metrics["test_accuracy"]
    validation = {name: value for name, value in right.metrics.items() if not name.startswith("test_")}
    assert validation == {name: value for name, value in wrong.metrics.items() if not name.startswith("test_")}


@pytest.mark.parametrize(
    ("architecture", "num_images", "augmentation", "mixing"),
    [
        ("resnet18", 4_999, "photo", False),
        ("resnet18", 5_000, "photo_strong", True),
        ("cnn", 50_000, "affine", False),
    ],
)
def test_many_photographs_are_mixed_and_changed_more(base, architecture, num_images, augmentation, mixing):
    targets = np.arange(num_images) % 2
    data = SimpleNamespace(
        split=SimpleNamespace(train=np.arange(num_images)),
        dataset=SimpleNamespace(targets_N=targets, labels=("across", "down")),
    )

    for make_plan in (plan_from_scratch, training_transfer._fine_tuning_plan):
        recipe = make_plan(base, get_architecture(architecture), data, Preprocessing("RGB", 224, 224)).recipe
        assert (recipe.augmentation, recipe.mixing) == (augmentation, mixing)


@pytest.fixture
def uneven(base, tmp_path):
    """A training of one epoch on data with four times as many bars across as down."""
    data = make_class_folders(tmp_path / "data", 24)
    for path in sorted((data / "down").iterdir())[6:]:
        path.unlink()
    return replace(base, data=data, output=tmp_path / "model", epochs=1)


def watch(monkeypatch, module, name):
    """The positional and keyword arguments of each call of a module's function from now on."""
    calls, function = [], getattr(module, name)
    monkeypatch.setattr(module, name, lambda *args, **more: calls.append((args, more)) or function(*args, **more))
    return calls


def test_rare_classes_weigh_more_in_the_probe_and_in_fine_tuning(uneven, monkeypatch):
    """Whichever of the two is kept."""
    probes = watch(monkeypatch, training_transfer, "fit_probe")
    tunings = watch(monkeypatch, training_transfer, "fit_network")

    run(uneven)

    [(_, options)], [(tuned_with, _)] = probes, tunings
    *_, plan = tuned_with
    assert plan.class_weights[1] == pytest.approx(2 * plan.class_weights[0], rel=0.2)  # four times as rare, by the root
    assert plan.freeze_statistics is True
    assert set(options["sample_weight_N"].tolist()) == set(plan.class_weights)


def test_rare_classes_weigh_more_in_what_is_trained_from_scratch(uneven):
    card, _ = run(replace(uneven, weights=None))

    weights = card.training["plan"]["class_weights"]
    assert weights[1] == pytest.approx(2 * weights[0], rel=0.2)


def test_a_budget_too_small_for_fine_tuning_leaves_the_probe_and_says_so(base, monkeypatch):
    monkeypatch.setattr("modeling.training.fit.trainer.step_seconds", lambda *args, **extra: 1e4)

    card, events = run(replace(base, budget_s=60.0))

    assert card.training["kept"] == "probe"
    assert named(events, "warning")[-1]["text"].startswith("no fine-tuning: one epoch takes about ")


def test_fine_tuning_that_diverges_leaves_the_probe_and_says_so(base, monkeypatch):
    def diverge(*args, **extra):
        raise DivergedError("training diverged: the loss is nan at step 7")

    monkeypatch.setattr("modeling.training.from_weights.fit_network", diverge)
    card, events = run(replace(base, epochs=2))

    assert card.training["kept"] == "probe"
    assert named(events, "warning")[-1]["text"] == "no fine-tuning: training diverged: the loss is nan at step 7"


def test_a_budget_too_small_for_one_epoch_from_scratch_is_a_mistake(base, monkeypatch):
    monkeypatch.setattr("modeling.training.fit.trainer.step_seconds", lambda *args, **extra: 1e4)

    with pytest.raises(
        ModelingError, match=r"one epoch takes about .* s here, and \d+ s of the budget are left; give --budget"
    ):
        run(replace(base, weights=None, budget_s=60.0))


def test_weights_of_another_architecture_are_refused(base, tmp_path):
    with pytest.raises(ArchitectureError, match="is a cnn, not a mlp"):
        run(replace(base, architecture="mlp"))
    with pytest.raises(ModelingError, match="no weights 'imagenet' for cnn"):
        run(replace(base, weights="imagenet"))


def test_pinned_weights_are_named_by_name_and_digest_and_must_be_the_same(base, tmp_path):
    file = Path(base.weights) / "model.safetensors"
    pin = WeightsPin("ours", hashlib.sha256(file.read_bytes()).hexdigest())
    facts = DataFacts(32, 2, 12, 1)
    pinned = replace(
        base, weights=str(file), image_size=12, weights_pin=pin, chosen=ChosenNetwork("good", facts, "why")
    )

    card, _ = run(pinned)

    origin = {name: card.training[name] for name in ("weights", "weights_sha256", "chosen")}
    assert origin == {
        "weights": "ours",
        "weights_sha256": pin.sha256,
        "chosen": {"quality": "good", "facts": asdict(facts), "reason": "why"},
    }
    assert TrainRequest.from_json(pinned.to_json()) == pinned
    other = replace(pinned, weights_pin=replace(pin, sha256="0" * 64))
    with pytest.raises(ModelingError, match="the job was submitted with 000000000000; submit it again"):
        train(other, lambda event: None)


def test_a_network_for_photographs_learns_from_random_parts_and_is_asked_whole_images(base, tmp_path):
    request = TrainRequest(
        base.data, "mobilenet_v3_small", tmp_path / "model", epochs=1, batch_size=8, image_size=32,
        work=tmp_path / "work", deterministic=True,
    )  # fmt: skip

    card, events = run(request)

    plan = card.training["plan"]
    assert (card.preprocessing.shape, card.preprocessing.resize) == ((32, 32, 1), 37)
    assert (plan["recipe"]["augmentation"], plan["precision"]) == ("photo", "fp32")
    assert len(named(events, "epoch")) == 1
    assert json.loads((tmp_path / "model" / "model.json").read_bytes())["architecture"] == "mobilenet_v3_small"
