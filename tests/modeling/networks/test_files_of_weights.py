"""Files of weights as people have them: nested, prefixed, in shards, with more inside, or not to be read at all."""

import argparse
import json
import os
import re
import shlex
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch

from modeling.errors import ArchitectureError, ModelFormatError, ModelingError
from modeling.images.preprocessing import Preprocessing
from modeling.networks.architectures import ARCHITECTURES, default_preprocessing, get_architecture
from modeling.networks.build import build_network
from modeling.networks.state_dicts.files import SavedTensors, read_tensors
from modeling.networks.state_dicts.recognition import recognise, the_architecture
from modeling.networks.weights import load_weights

GREY_8 = Preprocessing("L", 8, 8)
NAME = "cnn_pyramid"


def fresh(labels: int = 3, name: str = NAME) -> torch.nn.Module:
    return build_network(name, GREY_8, labels)


@pytest.fixture
def state():
    return fresh().state_dict()


def prefixed(prefix: str, state: dict) -> dict:
    return {prefix + name: tensor for name, tensor in state.items()}


def doubled(state: dict) -> dict:
    return {name: tensor * 2 for name, tensor in state.items()}


def load(folder: Path, saved: object, key: str | None = None) -> tuple[dict, list[str]]:
    """The state that a network has after it was loaded from a file of these values, and what is said of it."""
    torch.save(saved, folder / "weights.pth")
    network = fresh()
    notes = load_weights(network, NAME, str(folder / "weights.pth"), key=key)
    return network.state_dict(), notes


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: prefixed("_orig_mod.module.", state),
        lambda state: prefixed("module._orig_mod.module.", state),
        lambda state: {re.sub(r"^(\d+)\.", r"\1.module.", name): tensor for name, tensor in state.items()},
        lambda state: {"state_dict": prefixed("model.", state), "epoch": 3, "pytorch-lightning_version": "2"},
        lambda state: {"state_dict": prefixed("model.net.backbone.", state), "hyper_parameters": {"lr": 0.1}},
        lambda state: prefixed("anything.at.all.", state),
        lambda state: {"model_state_dict": state, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}},
        lambda state: {"net": state, "acc": 1.0, "best": torch.tensor(0.5)},
        lambda state: {"params": state},
        lambda state: {"module": state, "client_state": {}},
        lambda state: {"a": {"b": {"weights": state}}},
        lambda state: {"state_dict_ema": state},
        lambda state: {"state_dict": state, "state_dict_ema": {name: one.clone() for name, one in state.items()}},
        lambda state: prefixed("module.", state) | {"n_averaged": torch.tensor(7)},
        lambda state: state | {"total_ops": torch.zeros(1), "1.total_params": torch.zeros(1)},
        lambda state: state | {"criterion.weight": torch.ones(3)},
        lambda state: state | {"1.num_batches_tracked": torch.tensor(3)},
        lambda state: {name: torch.nn.Parameter(one, False) for name, one in state.items()},
    ],
    ids=[
        "compiled and parallel", "three times", "parallel inside", "Lightning", "deeper", "any prefix",
        "model_state_dict", "net", "params", "DeepSpeed", "nested", "averaged alone", "averaged and equal",
        "AveragedModel", "profiled", "a loss", "one count more", "parameters",
    ],
)  # fmt: skip
def test_a_state_dict_is_found_however_it_was_saved(tmp_path, state, wrap):
    found, notes = load(tmp_path, wrap(state))

    assert same(found, state)
    assert notes == []


def test_averaged_weights_are_taken_before_raw_ones_and_a_key_chooses(tmp_path, state):
    saved = {"state_dict": state, "state_dict_ema": doubled(state)}

    found, notes = load(tmp_path, saved)
    raw, raw_notes = load(tmp_path, saved, key="state_dict")
    averaged, _ = load(tmp_path, saved, key="state_dict_ema")

    assert same(found, doubled(state))
    assert same(averaged, doubled(state))
    assert same(raw, state)
    assert notes == [
        "the averaged weights (EMA) under 'state_dict_ema' are taken; --weights-key state_dict takes the raw"
    ]
    assert raw_notes == []


@pytest.mark.parametrize(
    ("wrap", "key"),
    [
        (lambda state: {"state_dict": {"a": {"teacher": doubled(state)}, "student": state}}, "state_dict.student"),
        (lambda state: {"state_dict": {"a": {"teacher": doubled(state)}, "student": state}}, "student"),
        (lambda state: prefixed("student.", state) | prefixed("teacher.", doubled(state)), "student"),
        (lambda state: state | {"ema": doubled(state)}, "."),
        (lambda state: prefixed("model.", state) | prefixed("model_ema.", doubled(state)), "model"),
    ],
)
def test_a_key_may_be_nested_a_prefix_or_the_top(tmp_path, state, wrap, key):
    found, notes = load(tmp_path, wrap(state), key)

    assert same(found, state)
    assert notes == []


def test_two_sets_of_weights_that_fit_are_not_guessed_between(tmp_path, state):
    saved = {"student": state, "teacher": doubled(state)}

    with pytest.raises(
        ModelingError, match=r"holds 2 sets of weights that fit: student, teacher; choose --weights-key"
    ):
        load(tmp_path, saved)
    with pytest.raises(ModelingError, match=r"has no weights under the key 'pupil'; it has student, teacher"):
        load(tmp_path, saved, key="pupil")


def test_what_lies_beside_the_network_is_left_out_and_counted(tmp_path, state):
    found, notes = load(
        tmp_path, prefixed("model.", state) | {"scaler.mean": torch.ones(3), "scaler.std": torch.ones(3)}
    )

    assert same(found, state)
    assert notes == ["left out, as not of the network: 2 tensors (scaler.mean, scaler.std)"]


def test_what_lies_within_the_network_is_an_error(tmp_path, state):
    with pytest.raises(ArchitectureError, match=r"does not fit cnn_pyramid: 1 unknown: 5\.extra$"):
        load(tmp_path, prefixed("model.", state | {"5.extra": torch.ones(3)}))


def test_weights_without_a_head_are_enough_to_start_from(tmp_path, state):
    head = get_architecture(NAME).head
    body = {name: tensor for name, tensor in state.items() if not name.startswith(f"{head}.")}

    found, _ = load(tmp_path, prefixed("backbone.", body))

    assert all(torch.equal(found[name], body[name]) for name in body)


@pytest.mark.parametrize(("dtype", "told"), [(torch.float16, "float16"), (torch.bfloat16, "bfloat16")])
def test_half_precision_becomes_float32_and_is_told(tmp_path, state, dtype, told):
    halves = {name: one.to(dtype) if one.is_floating_point() else one for name, one in state.items()}

    found, notes = load(tmp_path, halves)

    assert notes == [f"numbers of the weights become float32; in the file they are {told}"]
    assert {one.dtype for one in found.values() if one.is_floating_point()} == {torch.float32}
    assert torch.equal(found["0.weight"], halves["0.weight"].float())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda weight: weight.to_sparse(), "0.weight is sparse"),
        (lambda weight: (weight * 9).to(torch.int8), r"1 not of floats: 0\.weight \(int8\)"),
        (lambda weight: torch.empty(weight.shape, device="meta"), "0.weight is empty, without its numbers"),
    ],
    ids=["sparse", "integers", "meta"],
)
def test_tensors_that_are_no_plain_numbers_are_refused(state, change, told):
    from modeling.networks.state_dicts.matching import match_state

    state["0.weight"] = change(state["0.weight"])

    with pytest.raises(ModelingError, match=told):
        match_state(fresh(), NAME, state, source="weights.pth")


# Shards


def write_shards(folder: Path, state: dict) -> Path:
    """The state in two files and their index, as Hugging Face's libraries save it."""
    folder.mkdir()
    names = sorted(state)
    shard_of = {name: f"model-{1 + (i >= len(names) // 2):05}-of-00002.safetensors" for i, name in enumerate(names)}
    for shard in set(shard_of.values()):
        safetensors.torch.save_file({name: state[name] for name in names if shard_of[name] == shard}, folder / shard)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": shard_of}))
    return index


def test_a_shard_without_its_index_is_no_model(tmp_path, state):
    index = write_shards(tmp_path / "model", state)
    shard = sorted(tmp_path.glob("model/*-of-*"))[0]
    index.unlink()

    with pytest.raises(ModelFormatError, match=r"one of several shards; name their index, .*, which is not there"):
        read_tensors(shard)


def test_a_pointer_of_git_lfs_is_named(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")

    with pytest.raises(
        ModelFormatError, match=r"a pointer of Git LFS, not the weights; fetch them with `git lfs pull`"
    ):
        read_tensors(file)


def test_shards_are_read_by_their_index_or_their_folder(tmp_path, state):
    index = write_shards(tmp_path / "model", state)

    for path in (index, index.parent):
        assert same(read_tensors(path).tensors, state)
    with pytest.raises(
        ModelFormatError, match=r"is one of several shards; name their index, .*model.safetensors.index"
    ):
        read_tensors(index.with_name("model-00001-of-00002.safetensors"))


@pytest.mark.parametrize("shard", ["../outside.safetensors", "/dev/zero", "link.safetensors", "pipe.safetensors"])
def test_a_shard_outside_of_its_folder_or_that_is_no_file_is_never_opened(tmp_path, state, shard):
    index = write_shards(tmp_path / "model", state)
    safetensors.torch.save_file(state, tmp_path / "outside.safetensors")
    (index.parent / "link.safetensors").symlink_to(tmp_path / "outside.safetensors")
    os.mkfifo(index.parent / "pipe.safetensors")
    index.write_text(json.dumps({"weight_map": dict.fromkeys(state, shard)}))

    with pytest.raises(ModelFormatError, match=r"leads out of the folder|is a pipe, not a regular file"):
        read_tensors(index)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"weight_map": {"0.weight": "model-00002-of-00002.safetensors"}}, "has no 0.weight; the shard is damaged"),
        ({"weight_map": {"0.weight": 3}}, "weight_map"),
        ({"weight_map": {"0.weight": "a\0b"}}, "no file can have the name"),
        ({"labels": []}, "neither weights nor the index of shards"),
        ({"weight_map": {"0.weight": "none.safetensors"}}, "none.safetensors: cannot be read"),
    ],
)
def test_an_index_that_is_wrong_is_refused_in_one_line(tmp_path, state, value, told):
    index = write_shards(tmp_path / "model", state)
    index.write_text(json.dumps(value))

    with pytest.raises(ModelFormatError, match=told) as error:
        read_tensors(index)
    assert "\n" not in str(error.value)


# What must not be read


def test_what_was_pickled_is_named_with_the_line_that_converts_it(tmp_path, state, monkeypatch):
    saved = {"state_dict": state, "args": argparse.Namespace(lr=1), "model": fresh()}
    torch.save(saved, tmp_path / "it's weights.pth")
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ModelFormatError) as error:
        read_tensors(tmp_path / "it's weights.pth")

    told = str(error.value)
    assert "argparse.Namespace" in told
    assert "only if you trust its source, convert it with `python -c " in told
    command = shlex.split(told.partition("`")[2].rstrip("`"))
    exec(command[2], {})  # noqa: S102  # the line that the error gives
    converted = read_tensors(tmp_path / "it's weights.weights.pt")
    assert same(
        {name.removeprefix("state_dict."): one for name, one in converted.under("state_dict").tensors.items()}, state
    )
    assert set(converted.under("model").tensors) == {f"model.{name}" for name in state}


class RunsCode:
    def __reduce__(self):
        return (os.system, ("touch /tmp/unpickled",))


def test_a_pickle_that_would_run_code_gets_no_line_that_unpickles_it(tmp_path):
    torch.save({"state_dict": RunsCode()}, tmp_path / "weights.pth")

    with pytest.raises(ModelFormatError, match=r"posix\.system\).*would run code: get the weights from elsewhere$"):
        read_tensors(tmp_path / "weights.pth")


def test_an_archive_that_inflates_is_refused_by_its_directory(tmp_path):
    with zipfile.ZipFile(tmp_path / "weights.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("weights/data.pkl", bytes(20_000_000))

    with pytest.raises(ModelFormatError, match=r"a zip archive of 0\.0 MB that inflates to 20\.0 MB"):
        read_tensors(tmp_path / "weights.pt")


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["code/__torch__.py", "constants.pkl", "data.pkl"], r"a TorchScript archive, whose code .* only if you trust"),
        (["arr_0.npy"], "a zip archive without torch's data.pkl"),
    ],
)
def test_archives_of_other_kinds_are_named(tmp_path, names, told):
    with zipfile.ZipFile(tmp_path / "weights.pt", "w") as archive:
        for name in names:
            archive.writestr(f"weights/{name}", b"")

    with pytest.raises(ModelFormatError, match=told):
        read_tensors(tmp_path / "weights.pt")


def test_a_damaged_archive_is_one_line(tmp_path, state):
    torch.save(state, tmp_path / "weights.pt")
    (tmp_path / "weights.pt").write_bytes((tmp_path / "weights.pt").read_bytes()[:-30])

    with pytest.raises(ModelFormatError, match="a damaged zip archive"):
        read_tensors(tmp_path / "weights.pt")


def test_a_file_of_very_many_or_very_long_names_is_not_searched_for_ever(tmp_path):
    one = torch.zeros(2, 4)
    many = {f"x{number}.{name}": one for number in range(20_000) for name in ("1.weight", "fc.weight")}
    torch.save({"a." * 1000 + "weight": one}, tmp_path / "long.pt")

    assert recognise(SavedTensors.of("x", many)) == []
    with pytest.raises(ModelFormatError, match=r"a tensor's name has 2,006 characters; it is not a state dict"):
        read_tensors(tmp_path / "long.pt")


def test_a_mapping_that_holds_itself_is_read_once(tmp_path, state):
    saved = {"state_dict": state}
    saved["self"] = saved

    found, _ = load(tmp_path, saved)

    assert same(found, state)


def test_a_pipe_or_a_device_is_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "weights.pt")

    with pytest.raises(ModelFormatError, match="is a pipe, not a regular file"):
        read_tensors(tmp_path / "weights.pt")
    with pytest.raises(ModelFormatError, match="is a device, not a regular file"):
        read_tensors(Path("/dev/zero"))


def test_a_folder_with_several_files_of_weights_asks_for_one(tmp_path, state):
    for name in ("a.pth", "b.pth"):
        torch.save(state, tmp_path / name)

    with pytest.raises(ModelFormatError, match=r"has several files of weights, a.pth, b.pth; name one"):
        read_tensors(tmp_path)
    (tmp_path / "b.pth").unlink()
    assert same(read_tensors(tmp_path).tensors, state)


# Recognition

OWN = [name for name, known in ARCHITECTURES.items() if known.family != "torchvision"]
OTHERS = ["resnet18", "resnet50", "wide_resnet50_2", "mobilenet_v3_small", "squeezenet1_1", "densenet121", "swin_t"]


def state_of(name: str, image_size: int | None = None) -> dict:
    known = get_architecture(name)
    with torch.device("meta"):
        preprocessing = default_preprocessing(known, image_size or known.image_size or 32)
        return build_network(name, preprocessing, 5).state_dict()


@pytest.mark.parametrize("name", [*OWN, *OTHERS, "googlenet", "vgg11", "efficientnet_b0", "convnext_tiny"])
def test_an_architecture_is_recognised_by_its_tensors_below_any_prefix(name):
    state = state_of(name)
    saved = SavedTensors.of(
        "x", prefixed("model.", state) | prefixed("model_ema.", state) | {"loss.weight": torch.ones(5)}
    )

    assert recognise(saved) == [name]


def test_a_vision_transformer_is_recognised_at_any_image_size_and_with_the_names_of_old():
    state = state_of("vit_b_32", 384)
    old = {re.sub(r"\.mlp\.([03])\.", lambda m: f".mlp.linear_{int(m[1]) // 3 + 1}.", k): v for k, v in state.items()}

    assert recognise(SavedTensors.of("x", state)) == ["vit_b_32"]
    assert recognise(SavedTensors.of("x", old)) == ["vit_b_32"]
    assert old.keys() != state.keys()


@pytest.mark.parametrize("name", ["mobilenet_v2", "efficientnet_b0"])
def test_the_head_of_a_large_network_is_not_taken_for_a_small_one(name):
    state = {name: one for name, one in state_of(name).items() if "classifier" in name or "features.0" in name}

    assert recognise(SavedTensors.of("x", state)) == []


def test_tensors_of_no_known_architecture_say_so(state):
    with pytest.raises(ArchitectureError, match=r"^x: its 1 tensors \(encoder.weight\) are those of no architecture"):
        the_architecture(SavedTensors.of("x", {"encoder.weight": torch.ones(2, 2)}))


def test_another_architecture_than_the_wanted_one_is_named(tmp_path, state):
    torch.save({"state_dict": prefixed("model.", build_network("mlp", GREY_8, 3).state_dict())}, tmp_path / "mlp.pt")

    with pytest.raises(ArchitectureError, match=r"does not fit cnn_pyramid: .*; they are weights of mlp$"):
        load_weights(fresh(), NAME, str(tmp_path / "mlp.pt"))
