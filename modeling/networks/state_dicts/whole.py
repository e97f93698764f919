"""A file of pre-trained weights, read as a whole: it fits one architecture strictly, with as many classes as it has."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch

from modeling.errors import ArchitectureError, ModelFormatError
from modeling.networks.architectures import default_preprocessing, get_architecture
from modeling.networks.build import blank_network, normalise
from modeling.networks.state_dicts.files import State, read_tensors
from modeling.networks.state_dicts.matching import about_numbers, match_state, select_for
from modeling.networks.state_dicts.recognition import the_architecture

_ANY_CLASSES = 2  # outputs of the network that weights without a last layer are tried in


@dataclass(frozen=True, slots=True)
class WholeState:
    """The weights of a network, with its own names; num_classes: None if they have no last layer.

    notes: what an operator should know about them.
    """

    architecture: str
    state: State
    num_classes: int | None
    notes: tuple[str, ...]

    def to_bytes(self) -> bytes:
        """The state as safetensors: what the store keeps of it, and what a published model's file has."""
        return safetensors.torch.save(self.state)

    @property
    def sha256(self) -> str:
        """Hex digest of those bytes."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def whole_state(file: Path, architecture: str | None = None, key: str | None = None) -> WholeState:
    """The weights in a file (or in the one file of a folder), if they load strictly into a known architecture.

    architecture: None: recognised. key: which of several sets of weights in the file.

    Raises:
        ArchitectureError: they belong to no known architecture, or to another, or to one whose layers depend on the
            size of the images.
        ModelFormatError: the file is damaged, or holds no weights.
    """
    saved = read_tensors(file, key)
    known = get_architecture(architecture or the_architecture(saved))
    if known.image_size is None:
        raise ArchitectureError(
            f"{file}: weights of {known.name} fit images of one size and kind alone, which the file does not say; "
            "they are not weights to start other networks from"
        )
    preprocessing = default_preprocessing(known)
    selection = select_for(blank_network(known.name, preprocessing, _ANY_CLASSES), known.name, saved, needs_head=False)
    head = selection.state.get(f"{known.head}.weight")
    num_classes = len(head) if head is not None and head.dim() else None
    network = blank_network(known.name, preprocessing, num_classes or _ANY_CLASSES)
    matching = match_state(
        network, known.name, selection.state, source=str(file), saved=saved, keeps_head=num_classes is None
    )
    own = network.state_dict()
    # Copies: tensors of a file may share memory, or be views of a few numbers.
    state = {name: tensor.detach().to(own[name].dtype, copy=True).contiguous() for name, tensor in matching.items()}
    network.load_state_dict(state)
    with torch.inference_mode():
        grey = torch.full((1, *preprocessing.shape), 128, dtype=torch.uint8)
        answer = network.eval()(normalise(grey, preprocessing))
    if num_classes is not None and not bool(torch.isfinite(answer).all()):
        raise ModelFormatError(f"{file}: its answers are not finite numbers; the weights are damaged")
    if num_classes is None:
        state = {name: tensor for name, tensor in state.items() if not name.startswith(f"{known.head}.")}
    return WholeState(known.name, state, num_classes, (*selection.notes(), *about_numbers(selection.state)))
