"""Weights by name, by file and by model folder, and the errors for those that do not match."""

import hashlib
import http.server
import io
import re
import threading
import urllib.error
from pathlib import Path

import pytest
import safetensors.torch
import torch

from modeling.errors import ArchitectureError, ModelFormatError, ModelingError
from modeling.images.preprocessing import Preprocessing
from modeling.networks.architectures import default_preprocessing, get_architecture
from modeling.networks.build import build_network
from modeling.networks.heads import head_of
from modeling.networks.torchvision_networks import models
from modeling.networks.weights import check_weights, load_weights, weights_preprocessing
from modeling.registry.card import CARD_FILE, WEIGHTS_FILE, ModelCard
from tests.support.images import real_data

GREY_16 = Preprocessing("L", 16, 16)


def fresh(name: str = "cnn_pyramid", labels: int = 3, preprocessing: Preprocessing = GREY_16) -> torch.nn.Module:
    return build_network(name, preprocessing, labels)


def same(network: torch.nn.Module, state: dict, without: str = "?") -> bool:
    own = network.state_dict()
    return own.keys() == state.keys() and all(
        torch.equal(own[name], state[name]) for name in own if not name.startswith(without)
    )


def model_folder(folder: Path, network: torch.nn.Module, name: str = "cnn_pyramid") -> Path:
    folder.mkdir()
    safetensors.torch.save_file(network.state_dict(), folder / WEIGHTS_FILE)
    (folder / CARD_FILE).write_bytes(ModelCard(name, ("a", "b", "c"), GREY_16, "0" * 64).to_bytes())
    return folder


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": {f"module.{name}": tensor for name, tensor in state.items()}},
        lambda state: {f"_orig_mod.{name}": tensor for name, tensor in state.items()},
    ],
    ids=["plain", "state_dict", "model, data parallel", "compiled"],
)
def test_a_file_that_torch_wrote_is_loaded_however_it_is_wrapped(tmp_path, wrap):
    given, network = fresh(), fresh()
    torch.save(wrap(given.state_dict()), tmp_path / "weights.pt")

    load_weights(network, "cnn_pyramid", str(tmp_path / "weights.pt"))

    assert same(network, given.state_dict())


def test_a_safetensors_file_and_a_model_folder_are_loaded(tmp_path):
    given = fresh()
    folder = model_folder(tmp_path / "model", given)

    for weights in (folder, folder / WEIGHTS_FILE):
        network = fresh()
        load_weights(network, "cnn_pyramid", str(weights))
        assert same(network, given.state_dict())


def test_a_head_for_other_labels_stays_fresh_and_all_else_is_loaded(tmp_path):
    given, network = fresh(labels=7), fresh(labels=3)
    torch.save(given.state_dict(), tmp_path / "weights.pt")
    head = head_of(network, "cnn_pyramid").weight.clone()

    load_weights(network, "cnn_pyramid", str(tmp_path / "weights.pt"))

    assert torch.equal(head_of(network, "cnn_pyramid").weight, head)
    assert same(network, given.state_dict(), without=get_architecture("cnn_pyramid").head)


def test_what_does_not_fit_is_named_and_counted(tmp_path):
    state = fresh().state_dict()
    state["extra"] = state.pop("2.weight")
    state["0.weight"] = torch.zeros(1, 2)
    torch.save(state, tmp_path / "weights.pt")

    with pytest.raises(ArchitectureError) as told:
        load_weights(fresh(), "cnn_pyramid", str(tmp_path / "weights.pt"))

    assert str(told.value) == (
        f"{tmp_path}/weights.pt does not fit cnn_pyramid: 1 missing: 2.weight; 1 unknown: extra; "
        "1 of other shapes: 0.weight (1 x 2, not 32 x 1 x 3 x 3)"
    )


def test_weights_of_another_architecture_are_recognised(tmp_path):
    side_64 = Preprocessing("RGB", 64, 64)
    torch.save(fresh("mobilenet_v3_small", 9, side_64).state_dict(), tmp_path / "mobile.pt")
    torch.save(fresh("mlp").state_dict(), tmp_path / "mlp.pt")

    with pytest.raises(ArchitectureError, match=r"they are weights of mobilenet_v3_small$"):
        load_weights(fresh("squeezenet1_1", 3, side_64), "squeezenet1_1", str(tmp_path / "mobile.pt"))
    with pytest.raises(ArchitectureError, match=r"they are weights of mlp$"):
        load_weights(fresh(), "cnn_pyramid", str(tmp_path / "mlp.pt"))


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("/tmp/unpickled"),))


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (lambda path: torch.save({"model": Evil()}, path), "nothing else is unpickled"),
        (lambda path: path.write_bytes(b"nothing of the kind"), "cannot be loaded as weights|neither safetensors"),
        (lambda path: path.write_bytes(b"\x10\0\0\0\0\0\0\0{broken"), "a damaged safetensors file"),
        (lambda path: path.write_bytes(b""), "cannot be loaded as weights|neither safetensors"),
        (lambda path: torch.save([1, 2], path), "contains a list, not a state dict"),
        (lambda path: torch.save({"epoch": 3}, path), "contains no tensors, only epoch; save network.state_dict"),
    ],
    ids=["code", "text", "broken safetensors", "empty", "a list", "no tensors"],
)
def test_a_file_that_is_no_weights_is_refused_in_one_line(tmp_path, write, told):
    write(tmp_path / "weights.pt")

    with pytest.raises(ModelFormatError, match=told) as error:
        load_weights(fresh(), "cnn_pyramid", str(tmp_path / "weights.pt"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("architecture", "weights", "told"),
    [
        ("cnn", "imagenet", "no weights 'imagenet' for cnn; give a file of weights or a published model"),
        (
            "resnet18",
            "IMAGENET1K_V2",
            "no weights 'IMAGENET1K_V2' for resnet18; choose imagenet, IMAGENET1K_V1, a file",
        ),
        ("resnet18", "ResNet50_Weights.IMAGENET1K_V1", "no weights 'ResNet50_Weights.IMAGENET1K_V1' for resnet18"),
        ("resnet18", "nowhere.pt", "no weights 'nowhere.pt' for resnet18; choose imagenet"),
    ],
)
def test_unknown_weights_are_refused_with_the_choices(architecture, weights, told):
    with pytest.raises(ModelingError, match=re.escape(told)):
        check_weights(architecture, weights)


def test_known_weights_and_files_pass_the_check(tmp_path):
    folder = model_folder(tmp_path / "model", fresh())

    for architecture, weights in (
        ("resnet18", "imagenet"),
        ("resnet50", "IMAGENET1K_V1"),
        ("mobilenet_v2", "MobileNet_V2_Weights.IMAGENET1K_V2"),
        ("cnn_pyramid", str(folder)),
        ("cnn", str(folder / WEIGHTS_FILE)),
    ):
        check_weights(architecture, weights)


def test_a_model_folder_of_another_architecture_or_without_weights_is_refused(tmp_path):
    folder = model_folder(tmp_path / "model", fresh())

    with pytest.raises(ArchitectureError, match="is a cnn_pyramid, not a lenet; choose that architecture"):
        check_weights("lenet", str(folder))
    with pytest.raises(ModelFormatError, match=r"not a model folder: model.json cannot be read"):
        check_weights("lenet", str(tmp_path))
    (folder / WEIGHTS_FILE).unlink()
    with pytest.raises(ModelFormatError, match=r"not a complete model: it has no model.safetensors"):
        check_weights("cnn_pyramid", str(folder))


def test_without_a_network_one_line_says_how_to_get_the_weights(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("no network here")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", offline)
    network = fresh("squeezenet1_1", 3, Preprocessing("RGB", 64, 64))

    with pytest.raises(ModelingError) as told:
        load_weights(network, "squeezenet1_1", "imagenet")

    assert str(told.value) == (
        "the weights IMAGENET1K_V1 cannot be downloaded (no network here); download "
        "https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth on a machine with network access and "
        f"pass it with --from-weights FILE, or copy it to {tmp_path}/hub/checkpoints/squeezenet1_1-b8a52dc0.pth"
    )


class Responder(http.server.BaseHTTPRequestHandler):
    """Answers every request with the same bytes."""

    body = b""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_): ...


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """A function that has `squeezenet1_1`'s weights served by HTTP, under the hash of `named` bytes."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    servers = []

    def start(body, named):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Served", (Responder,), {"body": body}))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        url = f"http://127.0.0.1:{server.server_port}/tiny-{hashlib.sha256(named).hexdigest()[:8]}.pth"

        class Tiny(models.WeightsEnum):
            V1 = models.Weights(url=url, transforms=None, meta={})

        monkeypatch.setattr("modeling.networks.state_dicts.download._torchvision_weights", lambda enum, member: Tiny.V1)

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_download_tells_how_far_it_is_and_is_kept(serve, tmp_path, capsys):
    preprocessing, told = Preprocessing("RGB", 64, 64), []
    given, network = fresh("squeezenet1_1", 1000, preprocessing), fresh("squeezenet1_1", 1000, preprocessing)
    file = io.BytesIO()
    torch.save(given.state_dict(), file)
    serve(file.getvalue(), named=file.getvalue())

    load_weights(network, "squeezenet1_1", "imagenet", lambda done, total: told.append((done, total)))

    assert same(network, given.state_dict())
    assert told[-1] == (len(file.getvalue()), len(file.getvalue()))
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert len(told) > 1
    assert [path.name[:5] for path in (tmp_path / "hub" / "checkpoints").iterdir()] == ["tiny-"]
    assert capsys.readouterr().out == ""


def test_a_download_with_another_hash_is_refused_and_not_kept(serve, tmp_path):
    network = fresh("squeezenet1_1", 1000, Preprocessing("RGB", 64, 64))
    serve(b"not what was asked for", named=b"what was asked for")

    with pytest.raises(ModelingError, match=r"cannot be downloaded \(invalid hash value .*--from-weights FILE"):
        load_weights(network, "squeezenet1_1", "imagenet")

    assert list((tmp_path / "hub" / "checkpoints").iterdir()) == []


def test_weights_in_torchs_cache_need_no_network(tmp_path, monkeypatch, capsys):
    preprocessing = Preprocessing("RGB", 64, 64)
    given, network = fresh("squeezenet1_1", 1000, preprocessing), fresh("squeezenet1_1", 1000, preprocessing)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(given.state_dict(), tmp_path / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth")

    load_weights(network, "squeezenet1_1", "IMAGENET1K_V1")

    assert same(network, given.state_dict())
    assert capsys.readouterr().out == ""


def test_outputs_for_training_alone_and_names_of_old_are_understood(tmp_path):
    side_64 = Preprocessing("RGB", 64, 64)
    google, dense = fresh("googlenet", 4, side_64), fresh("densenet121", 4, side_64)
    with_aux = google.state_dict() | {"aux1.fc1.weight": torch.zeros(2, 2), "aux2.fc1.bias": torch.zeros(2)}
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|relu|conv))([12]\.)", r"\1.\2", name): tensor
        for name, tensor in dense.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    torch.save(with_aux, tmp_path / "googl.pt")
    torch.save(old, tmp_path / "dense.pt")

    for name, given in (("googlenet", google), ("densenet121", dense)):
        network = fresh(name, 4, side_64)
        load_weights(network, name, str(tmp_path / f"{name[:5]}.pt"))
        assert same(network, given.state_dict())


def test_preprocessing_goes_with_the_weights(tmp_path):
    folder = model_folder(tmp_path / "model", fresh())

    assert weights_preprocessing("cnn_pyramid", str(folder)) == GREY_16
    assert weights_preprocessing("mobilenet_v2", "imagenet").resize == 232
    assert weights_preprocessing("mobilenet_v2", "IMAGENET1K_V1").resize == 256
    assert weights_preprocessing("vit_b_16", "IMAGENET1K_SWAG_E2E_V1").shape == (384, 384, 3)
    assert weights_preprocessing("resnet18", str(folder / WEIGHTS_FILE), 112) == default_preprocessing(
        get_architecture("resnet18"), 112
    )


@pytest.mark.parametrize("name", ["mobilenet_v2", "squeezenet1_1"])
def test_real_weights_load_strictly(name):
    file = real_data("weights") / f"{name}_rebuilt.pth"
    network = fresh(name, 1000, default_preprocessing(get_architecture(name)))

    load_weights(network, name, str(file))

    state = torch.load(file, weights_only=True)
    assert all(torch.equal(network.state_dict()[key], state[key]) for key in state)
