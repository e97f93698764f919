"""Preparing a job: each check is made once, and without a server."""

import hashlib
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from modeling.errors import ArchitectureError, DataError, ModelingError
from modeling.images.preprocessing import Preprocessing
from modeling.registry.card import CARD_FILE
from modeling.registry.store import ModelStore
from modeling.registry.version_folder import record_digest
from modeling.training.request import TrainOptions
from orchestrator.contract.errors import UsageError
from orchestrator.contract.jobs.requests import fingerprint
from orchestrator.contract.settings import Settings
from orchestrator.jobs import prepare as module
from orchestrator.jobs.prepare import describe_new_labels, prepare
from orchestrator.jobs.shard_size import SMALLEST
from orchestrator.jobs.specs import ClassifySpec, EvaluateSpec, TrainSpec
from tests.support.images import make_class_folders
from tests.support.opened import count_opened
from tests.support.published_models import make_pngs, publish_model

JOB = "c261123-143355-7f3a2b"
LATER_JOB = "c261124-080000-000000"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder; `one` holds an image a class, `digits` two."""
    folder = tmp_path / "here"
    for label in "01":
        make_pngs(folder / "one" / label, 1)
        make_pngs(folder / "digits" / label, 2)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def version(settings):
    """A published perceptron."""
    return publish_model(settings.models, "digits")


class UnreadStream:
    """Standard input that must not be read."""

    class buffer:  # noqa: N801 as sys.stdin has it
        @staticmethod
        def read(_):
            raise AssertionError("standard input was read")


class SlowPipe:
    """Standard input whose writer has written one path and continues later."""

    def __init__(self, path: str) -> None:
        self.buffer = self
        self._data = [path.encode() + b"\n"]

    def read(self, _):
        assert self._data, "a second path was waited for"
        return self._data.pop()


# Without a server


@pytest.mark.parametrize(
    "spec",
    [
        ClassifySpec("digits", "digits", output=Path("out.csv")),
        TrainSpec(Path("digits"), "mine", {"epochs": 3}),
        EvaluateSpec("digits", Path("digits"), output=Path("out")),
    ],
)
def test_preparing_needs_no_server_and_writes_nothing(settings, here, version, spec):
    away = Settings(home=settings.home, server_url="unix:///tmp/pigeonhole-nowhere.sock")  # type: ignore[arg-type]
    before = sorted(here.parent.rglob("*"))

    prepared = prepare(away, spec)

    assert prepared.request(JOB).kind == prepared.kind
    assert sorted(here.parent.rglob("*")) == before


def test_standard_input_is_not_read_by_preparing(settings, here, version, monkeypatch):
    monkeypatch.setattr(sys, "stdin", UnreadStream())

    for key in (None, "monday"):
        prepared = prepare(settings, ClassifySpec("-", "digits", idempotency_key=key))
        prepared.check_new()


def test_preparing_a_pipe_waits_for_one_path_only(settings, here, version, monkeypatch):
    monkeypatch.setattr(sys, "stdin", SlowPipe("digits/0/00000/00000000.png"))

    request = prepare(settings, ClassifySpec("-", "digits")).request(JOB)

    assert request.shard_size >= SMALLEST


def test_a_source_whose_paths_all_fail_for_one_reason_is_refused_unless_it_is_standard_input(
    settings, here, version, monkeypatch
):
    (here / "list.txt").write_text("digits\\0.png\ngone.png\n")

    with pytest.raises(UsageError, match=r"'list.txt': all 2 paths would fail with missing"):
        prepare(settings, ClassifySpec("list.txt", "digits"))
    monkeypatch.setattr(sys, "stdin", SlowPipe("gone.png"))
    prepare(settings, ClassifySpec("-", "digits")).request(JOB)


# Once


def test_model_and_source_are_opened_once(settings, here, version):
    with count_opened() as opened:
        prepared = prepare(settings, ClassifySpec("digits", "digits"))
        prepared.request(JOB)
        num_images = sum(1 for _ in prepared.source.paths)

    assert num_images == 4
    assert {path: number for path, number in opened.items() if path.startswith(str(here)) and number > 1} == {}
    assert opened[str(here / "digits")] == 1
    assert opened[str(version.path / CARD_FILE)] == 2  # for its digest, and for its content


@pytest.mark.parametrize("spec", [TrainSpec(Path("digits"), "mine", {}), EvaluateSpec("digits", Path("digits"))])
def test_labelled_data_are_listed_once(settings, here, version, spec):
    with count_opened() as opened:
        prepared = prepare(settings, spec)
        prepared.request(JOB)

    assert prepared.num_images == 4
    assert {folder: opened[str(here / folder)] for folder in ("digits/0", "digits/1")} == {"digits/0": 1, "digits/1": 1}
    assert opened[str(version.path / CARD_FILE)] <= 2


def test_a_training_request_is_checked_once(settings, here, monkeypatch):
    checked = []
    check = TrainOptions.__post_init__
    monkeypatch.setattr(TrainOptions, "__post_init__", lambda self: checked.append(self) or check(self))

    prepared = prepare(settings, TrainSpec(Path("digits"), "mine", {"architecture": "cnn", "epochs": 3}))
    request = prepared.request(JOB)

    assert checked == [prepared.options]
    assert request.train == prepared.options.to_json()


@pytest.mark.parametrize(
    ("output", "why"),
    [
        ("list.csv", "is the source itself"),
        ("link_to_list.csv", "is the source itself"),
        ("link_to_image.csv", "would replace the image"),
        ("one.png", "would replace the image"),
    ],
)
def test_an_output_never_replaces_an_image_or_its_source(settings, here, version, output, why):
    image = next(here.rglob("*.png"))
    (here / "list.csv").write_text(f"path,label\n{image.relative_to(here)},0\n")
    (here / "one.png").write_bytes(image.read_bytes())
    (here / "link_to_list.csv").symlink_to("list.csv")
    (here / "link_to_image.csv").symlink_to("one.png")

    with pytest.raises(UsageError, match=why):
        prepare(settings, ClassifySpec("list.csv", "digits", output=Path(output), output_format="csv", overwrite=True))


# With an idempotency key


def test_with_an_idempotency_key_what_the_earlier_job_may_have_changed_is_left_to_submitting(settings, here, version):
    (here / "out.csv").touch()
    (here / "out").mkdir()
    (here / "moved").mkdir()
    specs = [
        (ClassifySpec("digits", "digits", output=Path("out.csv")), "exists; name another output"),
        (ClassifySpec("moved", "digits"), "'moved' holds no images"),
        (EvaluateSpec("digits", Path("digits"), output=Path("out")), "exists; name a folder that does not"),
    ]

    for spec, why in specs:
        with pytest.raises(UsageError, match=why):
            prepare(settings, spec)
        prepared = prepare(settings, replace(spec, idempotency_key="monday"))
        with pytest.raises(UsageError, match=why):
            prepared.check_new()


@pytest.mark.parametrize(
    ("spec", "other"),
    [
        (ClassifySpec("digits", "digits"), {"top_k": 1}),
        (ClassifySpec("digits", "digits", output=Path("out.csv")), {"output": Path("other.csv")}),
        (TrainSpec(Path("digits"), "mine", {"epochs": 3}), {"options": {"epochs": 4}}),
        (EvaluateSpec("digits", Path("digits")), {"output": Path("out")}),
    ],
)
def test_a_job_repeats_a_request_that_asks_for_the_same(settings, here, version, spec, other):
    earlier = prepare(settings, spec).request(JOB)

    assert prepare(settings, spec).repeats(earlier)
    assert not prepare(settings, replace(spec, **other)).repeats(earlier)
    if not isinstance(spec, TrainSpec):
        assert not prepare(settings, TrainSpec(Path("digits"), "mine", {})).repeats(earlier)
        assert not prepare(settings, replace(spec, output=Path("third.csv"))).repeats(earlier)


def test_two_requests_for_the_same_have_one_fingerprint_whatever_their_shards(settings, here, version):
    spec = ClassifySpec("digits", "digits", output=Path("out.csv"))

    requests = [
        prepare(settings, spec).request(JOB),
        prepare(settings, replace(spec, shard_size=7)).request(LATER_JOB),
    ]

    assert fingerprint(requests[0]) == fingerprint(requests[1])
    assert [request.shard_size for request in requests] == [SMALLEST, 7]


# Trainings


@pytest.mark.parametrize(
    ("options", "architecture", "starts_from_version"),
    [({}, "glyphnet", False), ({"architecture": "mlp"}, "mlp", False), ({"weights": "digits@1"}, "perceptron", True)],
)
def test_a_training_request_has_an_architecture_whether_or_not_one_is_named(
    settings, here, version, options, architecture, starts_from_version
):
    checked = prepare(settings, TrainSpec(here / "digits", "mine", options)).options

    assert checked.architecture == architecture
    assert checked.weights == (str(version.path) if starts_from_version else None)
    assert checked.data == here / "digits"


def test_a_training_request_holds_what_is_asked_for_and_no_place_or_device(settings, here):
    request = prepare(
        settings, TrainSpec(Path("digits"), "mine", {"architecture": "cnn", "epochs": 3, "learning_rate": 0.1})
    ).request(JOB)

    assert request.train == {
        "data": str(here / "digits"), "architecture": "cnn", "epochs": 3, "batch_size": None, "learning_rate": 0.1,
        "image_size": None, "seed": 0, "validation": 0.1, "test": 0.1, "weights": None, "weights_key": None,
        "budget_s": None, "max_error": 0.01, "deterministic": False, "int8": False, "layout": None,
        "joined": [],
        "weights_pin": None, "chosen": None,
    }  # fmt: skip


def test_several_data_sets_are_joined_by_absolute_path_and_corrections_are_counted(settings, here):
    known, new = (min((here / folder).rglob("*.png")).relative_to(here) for folder in ("digits", "one"))
    (here / "corrected.csv").write_text(f"path,status,label,corrected_label\n{known},ok,0,1\n{new},ok,0,1\n")

    prepared = prepare(settings, TrainSpec(Path("digits"), "mine", {}, joined=(Path("corrected.csv"),)))

    request = prepared.request(JOB)
    assert (request.train["data"], request.train["joined"]) == (str(here / "digits"), [str(here / "corrected.csv")])
    assert request.source == "digits corrected.csv"
    assert TrainOptions.from_json(request.train) == prepared.options
    assert prepared.num_images == 5
    assert prepared.resolved.notes == (f"{here}/corrected.csv: 2 corrected, 1 of them not in {here}/digits",)
    assert not prepare(settings, TrainSpec(Path("digits"), "mine", {})).repeats(request)


def test_the_layout_of_the_data_is_part_of_the_request(settings, here, version):
    (here / "digits/0").rename(here / "digits/train")
    (here / "digits/1").rename(here / "digits/val")

    training = prepare(settings, TrainSpec(Path("digits"), "mine", {"layout": "classes"}))
    evaluation = prepare(settings, EvaluateSpec("digits", Path("digits"), part="test", layout="classes"))

    assert (training.num_images, training.request(JOB).train["layout"]) == (4, "classes")
    assert (evaluation.num_images, evaluation.request(JOB).layout) == (4, "classes")
    with pytest.raises(DataError, match=r"digits/train holds one class only"):
        prepare(settings, TrainSpec(Path("digits"), "mine", {}))
    with pytest.raises(ModelingError, match="layout"):
        prepare(settings, TrainSpec(Path("digits"), "mine", {"layout": "folds"}))


def test_weights_of_another_architecture_are_refused(settings, here, version):
    with pytest.raises(ModelingError, match="perceptron"):
        prepare(settings, TrainSpec(here / "digits", "mine", {"weights": "digits", "architecture": "mlp"}))
    with pytest.raises(ModelingError, match="no weights 'imagenet' for cnn"):
        prepare(settings, TrainSpec(here / "digits", "mine", {"weights": "imagenet", "architecture": "cnn"}))


def save_mlp(path: Path) -> None:
    import torch

    from modeling.networks.build import build_network

    torch.save({"state_dict": build_network("mlp", Preprocessing("L", 28, 28), 2).state_dict()}, path)


def test_the_architecture_of_a_file_of_weights_is_recognised_when_the_job_is_submitted(settings, here):
    save_mlp(here / "mlp.pt")

    checked = prepare(settings, TrainSpec(here / "digits", "mine", {"weights": "mlp.pt"})).options

    assert (checked.architecture, checked.weights) == ("mlp", str(here / "mlp.pt"))
    with pytest.raises(ArchitectureError, match=r"mlp.pt holds weights of mlp, not of cnn; give that --arch"):
        prepare(settings, TrainSpec(here / "digits", "mine", {"weights": "mlp.pt", "architecture": "cnn"}))
    with pytest.raises(ModelingError, match=r"has no weights under the key 'ema'; it has state_dict"):
        prepare(settings, TrainSpec(here / "digits", "mine", {"weights": "mlp.pt", "weights_key": "ema"}))
    with pytest.raises(UsageError, match="--weights-key 'ema' is for a file of weights"):
        prepare(settings, TrainSpec(here / "digits", "mine", {"weights_key": "ema"}))


def test_labels_that_the_model_which_is_trained_further_does_not_know_are_listed(settings, here, version):
    images = sorted(path.relative_to(here) for path in (here / "digits").rglob("*.png"))
    rows = [f"{path},{label}\n" for path, label in zip(images, ("0", "0", "O", "one"), strict=True)]
    (here / "list.csv").write_text("path,label\n" + "".join(rows))

    from_model = prepare(settings, TrainSpec(here / "list.csv", "mine", {"weights": "digits"}))
    from_nothing = prepare(settings, TrainSpec(here / "list.csv", "mine", {}))

    assert from_model.new_labels == ("O", "one")
    assert describe_new_labels(from_model) == "digits does not know 'O', 'one': learned as new labels"
    assert (from_nothing.new_labels, describe_new_labels(from_nothing)) == ((), "")


def test_data_of_one_image_a_class_are_refused(settings, here):
    with pytest.raises(DataError, match=r"every class of .*one has only one image"):
        prepare(settings, TrainSpec(here / "one", "mine", {}))


# The size of shards


def test_the_shard_size_that_the_operator_names_is_taken(settings, here, version):
    assert prepare(settings, ClassifySpec("digits", "digits", shard_size=7)).request(JOB).shard_size == 7


@pytest.mark.parametrize(("num_images", "measured"), [(1, []), (SMALLEST, []), (SMALLEST + 1, ["8 images"])])
def test_a_source_that_is_one_shard_in_any_case_is_not_measured(
    settings, tmp_path, version, monkeypatch, num_images, measured
):
    calls = []
    monkeypatch.setattr(
        module, "choose_shard_size", lambda artifacts, precision, images, *_: calls.append(images) or 128
    )
    make_pngs(tmp_path / "in", num_images)

    prepared = prepare(settings, ClassifySpec(str(tmp_path / "in"), "digits"))
    assert calls == []  # only the request needs it
    size = prepared.request(JOB).shard_size

    assert [f"{len(images)} images" for images in calls] == measured
    assert size == (128 if measured else SMALLEST)
    assert len(list(prepared.source.paths)) == num_images
    assert all(image.startswith(str(tmp_path / "in")) for images in calls for image in images)


# Precision


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
    data = replace(card, training=training).to_bytes()
    (version.path / CARD_FILE).write_bytes(data)
    record_digest(version.path, hashlib.sha256(data).hexdigest())

    with pytest.raises(UsageError, match=f"--precision int8: digits@1 {why}"):
        prepare(settings, ClassifySpec("digits", "digits", precision="int8"))

    prepare(settings, ClassifySpec("digits", "digits"))


def test_int8_that_a_model_does_not_have_is_refused_for_an_evaluation_too(settings, tmp_path):
    publish_model(settings.models, "digits")
    make_class_folders(tmp_path / "data", 1)

    with pytest.raises(UsageError, match="--precision int8: digits@1 has no int8 weights"):
        prepare(settings, EvaluateSpec("digits", tmp_path / "data", precision="int8"))
