"""Adapts the weights of a file to a network: older names, missing counts, another number of labels or image size."""

import torch
from torch import Tensor, nn

from modeling.errors import ArchitectureError, ModelFormatError
from modeling.networks.architectures import Architecture, get_architecture
from modeling.networks.heads import head_of
from modeling.networks.state_dicts.files import SavedTensors, State
from modeling.networks.state_dicts.recognition import AUXILIARY, current_name, recognise
from modeling.networks.state_dicts.selection import SelectedWeights, required_names, select, with_counts

_NUM_SHOWN = 3


def select_for(network: nn.Module, architecture: str, saved: SavedTensors, *, needs_head: bool) -> SelectedWeights:
    """The tensors of a file that are this network's, by its names; see `select`.

    needs_head: whether weights without the last layer are no use.
    """
    known, own = get_architecture(architecture), network.state_dict()
    current = saved.renamed(lambda name: current_name(known, name))
    found = select(current, required_names(own, known.head))
    if needs_head or f"{known.head}.weight" in found.state:
        return found
    headless = required_names(own, known.head, with_head=False)
    return select(current, headless) if headless else found


def match_state(
    network: nn.Module,
    architecture: str,
    state: State,
    *,
    source: str,
    saved: SavedTensors | None = None,
    keeps_head: bool = True,
) -> State:
    """A state that the network can load strictly: `state`, with what it lacks and can be filled in.

    saved: the whole file, for the hint which architecture its weights belong to.
    keeps_head: whether the network keeps its own head where the state has none, or one of other labels.

    Raises:
        ArchitectureError: tensors are missing, unknown or of other shapes.
        ModelFormatError: tensors that are not plain numbers.
    """
    known = get_architecture(architecture)
    own: State = network.state_dict()
    _check_plain(state, source)
    matching = _resized_positions(network, known, _filled(known, state, own))
    if keeps_head and _has_other_labels(network, known, matching):
        head = known.head + "."
        matching = {name: tensor for name, tensor in matching.items() if not name.startswith(head)}
        matching |= {name: tensor for name, tensor in own.items() if name.startswith(head)}
    problems = _problems(own, matching)
    if problems:
        hint = _architecture_hint(architecture, saved or SavedTensors.of(source, state))
        raise ArchitectureError(f"{source} does not fit {architecture}: {problems}{hint}")
    return matching


def about_numbers(state: State) -> list[str]:
    """What an operator should know about a state's kind of numbers: networks are float32."""
    found = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in state.values() if _is_other_float(tensor)})
    return [f"numbers of the weights become float32; in the file they are {' and '.join(found)}"] if found else []


def _is_other_float(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.dtype != torch.float32


def _check_plain(state: State, source: str) -> None:
    """Raise ModelFormatError for tensors that are quantised, sparse or without numbers."""
    for name, tensor in state.items():
        kinds = {
            "quantised": tensor.is_quantized,
            "sparse": tensor.layout != torch.strided,
            "empty, without its numbers": tensor.is_meta,
        }
        if kind := next((kind for kind, is_so in kinds.items() if is_so), None):
            raise ModelFormatError(f"{source}: {name} is {kind}; save the state dict with dense float tensors")


def _filled(architecture: Architecture, state: State, own: State) -> State:
    """The state with current names, without auxiliary outputs, with counts and a bias of the head."""
    state = {
        current_name(architecture, name): tensor for name, tensor in state.items() if not name.startswith(AUXILIARY)
    }
    state = with_counts(state, own)
    weight = state.get(f"{architecture.head}.weight")
    if weight is not None and weight.dim():  # maxvit's head has none
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


def _has_other_labels(network: nn.Module, architecture: Architecture, state: State) -> bool:
    """Whether the state has no head, or one with the same number of features but another number of labels."""
    weight = head_of(network, architecture.name).weight
    given = state.get(f"{architecture.head}.weight")
    return given is None or (given.shape[1:] == weight.shape[1:] and len(given) != len(weight))


def _problems(own: State, state: State) -> str:
    """The tensors that do not match, a few names of each kind; empty if all match."""
    missing, unknown = [name for name in own if name not in state], [name for name in state if name not in own]
    other = [name for name in own if name in state and state[name].shape != own[name].shape]
    shapes = [f"{name} ({_shape(state[name])}, not {_shape(own[name])})" for name in other]
    whole = [name for name in own if name in state and own[name].is_floating_point() > state[name].is_floating_point()]
    numbers = [f"{name} ({str(state[name].dtype).removeprefix('torch.')})" for name in whole]
    kinds = {"missing": missing, "unknown": unknown, "of other shapes": shapes, "not of floats": numbers}
    shown = {kind: ", ".join(names[:_NUM_SHOWN]) + ", ..." * (len(names) > _NUM_SHOWN) for kind, names in kinds.items()}
    return "; ".join(f"{len(names)} {kind}: {shown[kind]}" for kind, names in kinds.items() if names)


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "one number"


def _architecture_hint(architecture: str, saved: SavedTensors) -> str:
    """A hint which architecture these weights belong to; empty if none matches."""
    others = [name for name in recognise(saved) if name != architecture]
    return f"; they are weights of {' or '.join(others)}" if others else ""
