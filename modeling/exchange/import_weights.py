"""Imports external weights and exported folders as models that can be published."""

# Shapes: B images, H height, W width, C channels.
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from modeling.durable import decode_json
from modeling.errors import ArchitectureError, DataError, ModelFormatError, ModelingError
from modeling.exchange.labels import order_warning, read_labels
from modeling.images.preprocessing import Preprocessing
from modeling.inference.classifier import Classifier
from modeling.names import label_fault, path_to_text
from modeling.networks.architectures import Architecture, default_preprocessing, get_architecture
from modeling.networks.build import blank_network, normalise
from modeling.networks.state_dicts.files import SavedTensors, State, read_tensors
from modeling.networks.state_dicts.matching import about_numbers, match_state, select_for
from modeling.networks.state_dicts.plain_files import copy_plain, path_inside, read_plain, weights_file
from modeling.networks.state_dicts.recognition import the_architecture
from modeling.registry.card import CARD_FILE, INT8_FILE, WEIGHTS_FILE, ModelCard, check_int8

_PREPROCESSING = "a JSON object, as `models show --json` prints it under preprocessing"
_MAX_CARD_BYTES = 64_000_000  # a card of 40,000 labels has 2 MB
_SAME_NORMALISATION = 0.005  # between means and deviations of pixels in [0, 1]
_MAX_HEADER_BYTES = 64_000_000  # of safetensors or ONNX, beside the numbers


@dataclass(frozen=True, slots=True)
class WeightsImport:
    """A file of weights, and the information that it does not contain.

    file: of weights, or a folder with one.
    architecture: None: recognised by the tensors' names and sizes.
    labels: a file of names in the order of the network's outputs; see `modeling.exchange.labels`.
    image_size: px; required for an architecture without a default size.
    preprocessing: JSON file in the format of `Preprocessing.to_json`; None: the architecture's default.
    weights_key: which of several sets of weights in the file, such as `state_dict_ema`.
    """

    file: Path
    architecture: str | None
    labels: Path
    image_size: int | None = None
    preprocessing: Path | None = None
    weights_key: str | None = None


@dataclass(frozen=True, slots=True)
class StagedModel:
    """A model that can be published; notes: what an operator should know about it, warnings: what to look at."""

    card: ModelCard
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def stage_weights(request: WeightsImport, staged: Path) -> StagedModel:
    """Write a model with these weights to the empty folder `staged`.

    The file must contain exactly the network's tensors, with the same shapes. Numbers become float32.

    Raises:
        ArchitectureError: the weights have another architecture, or another number of labels.
        ModelFormatError: a file is not valid, or the network's answers are not finite.
    """
    labels = read_labels(request.labels)
    request = replace(request, file=weights_file(request.file) if request.file.is_dir() else request.file)
    saved = read_tensors(request.file, request.weights_key)
    architecture = get_architecture(request.architecture or the_architecture(saved))
    recognised = [] if request.architecture else [f"recognised as {architecture.name} by its tensors"]
    network, preprocessing, notes = _matching_network(architecture, saved, labels, request)
    _check_answers(network, preprocessing, request.file)
    weights = safetensors.torch.save({name: tensor.contiguous() for name, tensor in network.state_dict().items()})
    card = ModelCard(
        architecture=architecture.name,
        labels=labels,
        preprocessing=preprocessing,
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        training={"imported": {"file": path_to_text(request.file.name), "sha256": _sha256(request.file)}},
    )
    (staged / WEIGHTS_FILE).write_bytes(weights)
    (staged / CARD_FILE).write_bytes(card.to_bytes())
    warnings = [order_warning(labels), _normalisation_warning(request.labels, preprocessing)]
    return StagedModel(card, (*recognised, *notes), tuple(filter(None, warnings)))


def stage_folder(folder: Path, staged: Path) -> StagedModel:
    """Copy the model in an exported folder to the empty folder `staged`, byte for byte.

    Only regular files inside of the folder are read, and no more bytes than belong to the model in the card.

    Raises:
        ModelFormatError: the model is incomplete or damaged.
    """
    _copy(folder, staged, CARD_FILE, _MAX_CARD_BYTES)
    card = ModelCard.from_bytes((staged / CARD_FILE).read_bytes(), folder / CARD_FILE)
    if fault := label_fault(card.labels):
        raise ModelFormatError(f"{folder / CARD_FILE}: {fault}")
    if len(card.labels) == 1:
        raise ArchitectureError(f"{folder} {_one_output(card.labels[0])}")
    max_bytes = _size_bytes(card) + _MAX_HEADER_BYTES
    _copy(folder, staged, WEIGHTS_FILE, max_bytes)
    Classifier.load(staged)
    if os.path.lexists(folder / INT8_FILE):
        _copy(folder, staged, INT8_FILE, max_bytes)
        check_int8((staged / INT8_FILE).read_bytes(), card, folder / INT8_FILE)
    return StagedModel(card)


def _copy(folder: Path, staged: Path, name: str, max_bytes: int) -> None:
    try:
        copy_plain(path_inside(folder, name), staged / name, max_bytes)
    except ModelFormatError as err:
        raise ModelFormatError(f"{folder} is not an exported model: {err}") from err


def _size_bytes(card: ModelCard) -> int:
    """The size of the numbers of the network that a card describes."""
    state = blank_network(card.architecture, card.preprocessing, len(card.labels)).state_dict()
    return sum(tensor.numel() * tensor.element_size() for tensor in state.values())


def _matching_network(
    architecture: Architecture, saved: SavedTensors, labels: tuple[str, ...], request: WeightsImport
) -> tuple[nn.Module, Preprocessing, list[str]]:
    """The network with the weights, the first preprocessing whose network they fit, and what to say about them."""
    first_error: ArchitectureError | None = None
    for preprocessing in _preprocessings(architecture, request):
        network = blank_network(architecture.name, preprocessing, len(labels))
        selection = select_for(network, architecture.name, saved, needs_head=True)
        state, notes = _with_outputs(architecture, selection.state, labels, request)
        try:
            matching = match_state(
                network, architecture.name, state, source=str(request.file), saved=saved, keeps_head=False
            )
        except ArchitectureError as err:
            first_error = first_error or err
            continue
        own = network.state_dict()
        # Copies: tensors of a file may share memory, or be views of a few numbers.
        cast = {name: tensor.detach().to(own[name].dtype, copy=True) for name, tensor in matching.items()}
        network.load_state_dict(cast, assign=True)
        return network.eval(), preprocessing, selection.notes() + about_numbers(state) + notes
    assert first_error is not None, "there is a preprocessing to try"
    raise first_error


def _with_outputs(
    architecture: Architecture, state: State, labels: tuple[str, ...], request: WeightsImport
) -> tuple[State, list[str]]:
    """The state with one output for each label, and what to say about it.

    A head of one output x is a sigmoid's. With two labels it becomes the logits (0, x), whose softmax is the same:
    1 - sigmoid(x) and sigmoid(x).

    Raises:
        ArchitectureError: the number of labels is another.
    """
    names = [f"{architecture.head}.weight", f"{architecture.head}.bias"]
    weight = state.get(names[0])
    if weight is None or not weight.dim():
        return state, []
    num_outputs, num_labels = len(weight), len(labels)
    if num_outputs == num_labels > 1:
        return state, []
    if num_outputs == num_labels:
        raise ArchitectureError(f"{request.file} {_one_output(labels[0])}")
    if (num_outputs, num_labels) == (1, 2):
        heads = {name: state[name] for name in names if name in state}
        both = {name: torch.cat([torch.zeros_like(tensor), tensor]) for name, tensor in heads.items()}
        note = f"its one output is made two, (0, x): {labels[1]!r} has the score sigmoid(x), {labels[0]!r} the rest"
        return state | both, [note]
    raise ArchitectureError(
        f"{request.file} answers with {num_outputs} labels, but {request.labels} names {num_labels}; "
        "give the labels that it was trained with"
    )


def _one_output(label: str) -> str:
    return (
        f"has one output and one label, {label!r}, so every image would get the score 1; give two labels, first the "
        f'one for a low output, then the one for a high output, such as ["not {label}", "{label}"]'
    )


def _preprocessings(architecture: Architecture, request: WeightsImport) -> list[Preprocessing]:
    """The preprocessings to try: the file's, or the architecture's default, for small networks in colour and grey."""
    if request.preprocessing is not None:
        if request.image_size is not None:
            raise ModelingError("give either an image size or a preprocessing file, which has one")
        value = _read_preprocessing(request.preprocessing)
        try:
            return [Preprocessing.from_json(value)]
        except ModelFormatError as err:
            raise ModelFormatError(f"{request.preprocessing}: {err}") from err
    default = default_preprocessing(architecture, request.image_size)
    if architecture.family == "torchvision":
        return [default]
    return [default, default_preprocessing(architecture, request.image_size, "L" if default.mode == "RGB" else "RGB")]


def _read_preprocessing(path: Path) -> Any:
    try:
        return decode_json(read_plain(path, _MAX_CARD_BYTES, error=DataError), str(path), error=DataError)
    except DataError as err:
        raise DataError(f"{err}; expected {_PREPROCESSING}") from err


def _normalisation_warning(labels: Path, preprocessing: Preprocessing) -> str | None:
    """A warning if timm's `config.json`, which the labels are from, has another mean or deviation of the pixels."""
    if labels.suffix.lower() != ".json":
        return None
    value = decode_json(read_plain(labels, _MAX_CARD_BYTES, error=DataError), str(labels), error=DataError)
    config = value.get("pretrained_cfg", value) if isinstance(value, dict) else None
    for key, ours in (("mean", preprocessing.mean), ("std", preprocessing.std)):
        theirs = config.get(key) if isinstance(config, dict) else None
        if _differ(theirs, ours):
            return (
                f"{labels} says that the network was trained with {key} {theirs}, the architecture's default is "
                f"{list(ours)}; import it again with --preprocessing FILE (see `models show --json`)"
            )
    return None


def _differ(theirs: Any, ours: Sequence[float]) -> bool:
    """Whether these are as many numbers, and others."""
    if not isinstance(theirs, list) or len(theirs) != len(ours):
        return False
    if not all(isinstance(number, float | int) for number in theirs):
        return False
    return any(abs(one - other) > _SAME_NORMALISATION for one, other in zip(theirs, ours, strict=True))


def _check_answers(network: nn.Module, preprocessing: Preprocessing, file: Path) -> None:
    """Check that the network's logits for a grey image are finite."""
    images_BHWC = torch.full((1, *preprocessing.shape), 128, dtype=torch.uint8)
    with torch.inference_mode():
        answer = network(normalise(images_BHWC, preprocessing))
    if not bool(torch.isfinite(answer).all()):
        raise ModelFormatError(f"{file}: its answers are not finite numbers; the weights are damaged")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
