"""State dicts: reading and downloading them, checking them, and adapting them to a network."""

import contextlib
import pickle
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from modeling.errors import ArchitectureError, ModelFormatError, ModelingError
from modeling.images.preprocessing import Preprocessing
from modeling.images.progress import OnProgress
from modeling.networks.architectures import ARCHITECTURES, Architecture, default_preprocessing, get_architecture
from modeling.networks.build import build_network
from modeling.networks.dynamo import deferred_compiler_import
from modeling.networks.heads import head_of
from modeling.networks.torchvision_table import ROWS

State = dict[str, Tensor]

_WRAPPERS = ("state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")  # prefixes that DistributedDataParallel and torch.compile add to every name
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")  # outputs of googlenet and inception_v3 that only training uses
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")
_NUM_SHOWN = 3


def read_state(path: Path) -> State:
    """The tensors of a safetensors file, or of a state dict that torch wrote; nothing else is unpickled.

    The state dict may be nested under `state_dict` or `model`, and its names may begin with `module.`.

    Raises:
        ModelFormatError: the file is missing, damaged or contains no state dict.
    """
    try:
        with path.open("rb") as file:
            is_safetensors = file.read(9)[8:] == b"{"  # after eight bytes of length
        loaded = _read_safetensors(path) if is_safetensors else _read_torch(path)
    except OSError as err:
        raise ModelFormatError(f"{path}: cannot be read ({err.strerror or err})") from err
    for wrapper in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping) or not loaded:
        raise ModelFormatError(
            f"{path}: contains a {type(loaded).__name__}, not a state dict; save network.state_dict()"
        )
    for name, value in loaded.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ModelFormatError(f"{path}: {name!r} is a {type(value).__name__}, not a tensor; save the state dict")
    state = dict(loaded)
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _read_safetensors(path: Path) -> State:
    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError as err:
        raise ModelFormatError(f"{path}: a damaged safetensors file ({err})") from err


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except pickle.UnpicklingError as err:
        raise ModelFormatError(
            f"{path}: neither safetensors nor a plain state dict, and nothing else is unpickled; "
            "save network.state_dict(), best as safetensors"
        ) from err
    except Exception as err:  # broken archives can raise anything
        reason = str(err).partition("\n")[0]
        raise ModelFormatError(f"{path}: cannot be loaded as weights ({type(err).__name__}: {reason})") from err


def download_state(enum: str, member: str, on_progress: OnProgress) -> State:
    """torchvision's weights from its cache or from the network; the file must match the hash in its name.

    on_progress: receives the number of bytes downloaded and, if the server states it, the total.

    Raises:
        ModelingError: the download failed, or the file does not match its hash.
    """
    weights = _torchvision_weights(enum, member)
    try:
        with contextlib.redirect_stdout(sys.stderr), _reported_progress(on_progress):  # stdout may be reserved for data
            state: State = weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as err:
        reason = " ".join(str(getattr(err, "reason", None) or err).split()).rstrip(".")
        file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
        raise ModelingError(
            f"the weights {member} cannot be downloaded ({reason}); download {weights.url} on a machine with network "
            f"access and pass it with --from-weights FILE, or copy it to {file}"
        ) from err
    return state


@contextlib.contextmanager
def _reported_progress(on_progress: OnProgress) -> Iterator[None]:
    """In this block, torch.hub reports downloads to `on_progress` instead of drawing a progress bar."""

    class ProgressBar:
        """The part of tqdm's interface that torch.hub uses."""

        def __init__(self, total: int | None = None, **_: object) -> None:
            self._total, self._done = total, 0

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None: ...

        def update(self, num_bytes: int) -> None:
            self._done += num_bytes
            on_progress(self._done, self._total)

    drawn = vars(torch.hub)["tqdm"]
    vars(torch.hub)["tqdm"] = ProgressBar
    try:
        yield
    finally:
        vars(torch.hub)["tqdm"] = drawn


def torchvision_preprocessing(enum: str, member: str, image_size: int | None) -> Preprocessing:
    """The preprocessing of torchvision's weights; another `image_size` (px) crops the same proportion."""
    transforms = _torchvision_weights(enum, member).transforms()
    side = image_size or transforms.crop_size[0]
    resize = max(side, round(transforms.resize_size[0] * side / transforms.crop_size[0]))
    return Preprocessing("RGB", side, side, resize, tuple(transforms.mean), tuple(transforms.std))


def _torchvision_weights(enum: str, member: str) -> Any:
    with deferred_compiler_import():
        from torchvision import models  # slow to import
    return getattr(models, enum)[member]


def match_state(network: nn.Module, architecture: str, state: State, *, source: str) -> State:
    """A state that the network can load strictly: `state`, with the network's own head if the number of labels differs.

    Raises:
        ArchitectureError: tensors are missing, unknown or of other shapes.
    """
    known = get_architecture(architecture)
    own: State = network.state_dict()
    head = known.head + "."
    matching = _resized_positions(network, known, _translated(known, state))
    if _has_other_labels(network, architecture, matching):
        matching = {name: tensor for name, tensor in matching.items() if not name.startswith(head)}
        matching |= {name: tensor for name, tensor in own.items() if name.startswith(head)}
    problems = _problems(own, matching)
    if problems:
        raise ArchitectureError(f"{source} does not fit {architecture}: {problems}{_architecture_hint(known, state)}")
    return matching


def _translated(architecture: Architecture, state: State) -> State:
    """The state with current names and without auxiliary outputs."""
    state = {name: tensor for name, tensor in state.items() if not name.startswith(_AUXILIARY)}
    if architecture.name.startswith("densenet"):
        state = {_OLD_DENSENET.sub(r"\1\2", name): tensor for name, tensor in state.items()}
    for name in [name for name in state if name.endswith("running_var")]:  # missing in files older than torch 0.4.1
        state.setdefault(name.replace("running_var", "num_batches_tracked"), torch.tensor(0))
    weight = state.get(f"{architecture.head}.weight")
    if weight is not None:  # maxvit's head has none
        state.setdefault(f"{architecture.head}.bias", torch.zeros(len(weight)))
    return state


def _resized_positions(network: nn.Module, architecture: Architecture, state: State) -> State:
    """The state with a vision transformer's position embeddings interpolated to the network's image size."""
    name = "encoder.pos_embedding"
    own = network.state_dict().get(name)
    given = state.get(name)
    if own is None or given is None or own.shape == given.shape or not architecture.name.startswith("vit_"):
        return state
    if given.dim() != 3 or given.shape[0] != 1 or given.shape[2] != own.shape[2]:
        return state
    from torchvision.models.vision_transformer import interpolate_embeddings

    try:
        return dict(interpolate_embeddings(network.image_size, architecture.step, dict(state)))
    except ValueError:  # not a square grid of positions: reported as a shape that does not match
        return state


def _has_other_labels(network: nn.Module, architecture: str, state: State) -> bool:
    """Whether the state's head has the same number of features but another number of labels."""
    weight = head_of(network, architecture).weight
    given = state.get(f"{get_architecture(architecture).head}.weight")
    return given is not None and given.shape[1:] == weight.shape[1:] and len(given) != len(weight)


def _problems(own: State, state: State) -> str:
    """The tensors that do not match, a few names of each kind; empty if all match."""
    missing, unknown = [name for name in own if name not in state], [name for name in state if name not in own]
    other = [name for name in own if name in state and state[name].shape != own[name].shape]
    shapes = [f"{name} ({_shape(state[name])}, not {_shape(own[name])})" for name in other]
    kinds = {"missing": missing, "unknown": unknown, "of other shapes": shapes}
    shown = {kind: ", ".join(names[:_NUM_SHOWN]) + ", ..." * (len(names) > _NUM_SHOWN) for kind, names in kinds.items()}
    return "; ".join(f"{len(names)} {kind}: {shown[kind]}" for kind, names in kinds.items() if names)


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "one number"


def _architecture_hint(architecture: Architecture, state: State) -> str:
    """A hint which architecture these weights belong to; empty if none matches."""
    candidates = [row.name for row in ROWS if _num_values(ARCHITECTURES[row.name], state) == row.num_values]
    candidates += [name for name in ARCHITECTURES if _has_names_of(ARCHITECTURES[name], state)]
    others = [name for name in candidates if name != architecture.name]
    return f"; they are weights of {' or '.join(others)}" if others else ""


def _num_values(architecture: Architecture, state: State) -> int | None:
    """The number of floating-point values in the state without the head; None if the head is missing."""
    if f"{architecture.head}.weight" not in state:
        return None
    skipped = (f"{architecture.head}.", *_AUXILIARY)
    return sum(
        tensor.numel() for name, tensor in state.items() if tensor.is_floating_point() and not name.startswith(skipped)
    )


def _has_names_of(architecture: Architecture, state: State) -> bool:
    """Whether the state's names are exactly those of this architecture, one of Pigeonhole's own."""
    if architecture.family == "torchvision":
        return False
    preprocessing = default_preprocessing(architecture, architecture.image_size or 32)
    with torch.device("meta"):
        return set(build_network(architecture.name, preprocessing, 2).state_dict()) == set(state)
