"""Imports external weights and exported folders as models that can be published."""

# Shapes: B images, H height, W width, C channels.
import hashlib
import shutil
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import safetensors.torch
import torch
from pydantic import Field
from torch import nn

from modeling.durable import decode_json, validated
from modeling.errors import ArchitectureError, DataError, ModelFormatError, ModelingError
from modeling.images.preprocessing import Preprocessing
from modeling.inference.classifier import Classifier
from modeling.names import path_to_text
from modeling.networks.architectures import Architecture, default_preprocessing, get_architecture
from modeling.networks.build import blank_network, normalise
from modeling.networks.state_dicts import State, match_state, read_state
from modeling.registry.card import CARD_FILE, INT8_FILE, WEIGHTS_FILE, ModelCard, check_int8

_LABELS = 'a JSON list of names or an object such as {"0": "cat"}'
_PREPROCESSING = "a JSON object, as `models show --json` prints it under preprocessing"
_Name = Annotated[str, Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class WeightsImport:
    """A file of weights, and the information that it does not contain.

    labels: JSON file: a list of names in the order of the network's outputs, or {"0": name, ...}.
    image_size: px; required for an architecture without a default size.
    preprocessing: JSON file in the format of `Preprocessing.to_json`; None: the architecture's default.
    """

    file: Path
    architecture: str
    labels: Path
    image_size: int | None = None
    preprocessing: Path | None = None


def stage_weights(request: WeightsImport, staged: Path) -> ModelCard:
    """Write a model with these weights to the empty folder `staged`.

    The file must contain exactly the network's tensors, with the same shapes. Numbers become float32.

    Raises:
        ArchitectureError: the weights have another architecture, or another number of labels.
        ModelFormatError: a file is not valid, or the network's answers are not finite.
    """
    architecture = get_architecture(request.architecture)
    labels = read_labels(request.labels)
    state = read_state(request.file)
    _check_num_labels(architecture, state, labels, request)
    network, preprocessing = _matching_network(architecture, state, len(labels), request)
    _check_answers(network, preprocessing, request.file)
    weights = safetensors.torch.save({name: tensor.contiguous() for name, tensor in network.state_dict().items()})
    card = ModelCard(
        architecture=request.architecture,
        labels=labels,
        preprocessing=preprocessing,
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        training={"imported": {"file": path_to_text(request.file.name), "sha256": _sha256(request.file)}},
    )
    (staged / WEIGHTS_FILE).write_bytes(weights)
    (staged / CARD_FILE).write_bytes(card.to_bytes())
    return card


def stage_folder(folder: Path, staged: Path) -> ModelCard:
    """Copy the model in an exported folder to the empty folder `staged`, byte for byte.

    Raises:
        ModelFormatError: the model is incomplete or damaged.
    """
    for name in (CARD_FILE, WEIGHTS_FILE):
        _copy(folder, staged, name)
    card = Classifier.load(staged).card
    if (folder / INT8_FILE).is_file():
        _copy(folder, staged, INT8_FILE)
        check_int8((staged / INT8_FILE).read_bytes(), card, folder / INT8_FILE)
    return card


def _copy(folder: Path, staged: Path, name: str) -> None:
    try:
        shutil.copyfile(folder / name, staged / name)
    except OSError as err:
        raise ModelFormatError(f"{folder} is not an exported model: {name} cannot be read ({err.strerror})") from err


def read_labels(path: Path) -> tuple[str, ...]:
    """The names in a JSON file: a list, or an object from "0", "1", ... to names.

    Raises:
        DataError: anything else, or a name twice.
    """
    value = _read_json(path, _LABELS)
    if isinstance(value, dict):
        numbers = [str(number) for number in range(len(value))]
        if set(value) != set(numbers):
            raise DataError(f"{path}: labels must be numbered 0 to {len(value) - 1} without a gap, not {_few(value)}")
        value = [value[number] for number in numbers]
    try:
        names = validated(tuple[_Name, ...], value, str(path), error=DataError)
    except DataError as err:
        raise DataError(f"{err}; labels must be {_LABELS}") from err
    if not names:
        raise DataError(f"{path} is empty; labels must be {_LABELS}")
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise DataError(f"{path}: labels must differ, but {_few(twice)} stands there twice")
    return names


def _few(names: Collection[str]) -> str:
    shown = [repr(name) for name in list(names)[:5]]
    return ", ".join(shown) + (", ..." if len(names) > len(shown) else "")


def _read_json(path: Path, expected: str) -> Any:
    try:
        return decode_json(path.read_bytes(), str(path), error=DataError)
    except OSError as err:
        raise DataError(f"{path}: cannot be read ({err.strerror})") from err
    except DataError as err:
        raise DataError(f"{err}; expected {expected}") from err


def _check_num_labels(
    architecture: Architecture, state: State, labels: tuple[str, ...], request: WeightsImport
) -> None:
    weight = state.get(f"{architecture.head}.weight")
    if weight is not None and weight.dim() and len(weight) != len(labels):
        raise ArchitectureError(
            f"{request.file} answers with {len(weight)} labels, but {request.labels} names {len(labels)}; "
            "give the labels that it was trained with"
        )


def _matching_network(
    architecture: Architecture, state: State, num_labels: int, request: WeightsImport
) -> tuple[nn.Module, Preprocessing]:
    """The network with the state loaded, and the first preprocessing whose network matches the state."""
    first_error: ArchitectureError | None = None
    for preprocessing in _preprocessings(architecture, request):
        network = blank_network(architecture.name, preprocessing, num_labels)
        try:
            matching = match_state(network, architecture.name, state, source=str(request.file))
        except ArchitectureError as err:
            first_error = first_error or err
            continue
        own = network.state_dict()
        cast = {name: tensor.to(own[name].dtype) for name, tensor in matching.items()}
        network.load_state_dict(cast, assign=True)
        return network.eval(), preprocessing
    assert first_error is not None, "there is a preprocessing to try"
    raise first_error


def _preprocessings(architecture: Architecture, request: WeightsImport) -> list[Preprocessing]:
    """The preprocessings to try: the file's, or the architecture's default, for small networks in colour and grey."""
    if request.preprocessing is not None:
        if request.image_size is not None:
            raise ModelingError("give either an image size or a preprocessing file, which has one")
        value = _read_json(request.preprocessing, _PREPROCESSING)
        try:
            return [Preprocessing.from_json(value)]
        except ModelFormatError as err:
            raise ModelFormatError(f"{request.preprocessing}: {err}") from err
    default = default_preprocessing(architecture, request.image_size)
    if architecture.family == "torchvision":
        return [default]
    return [default, default_preprocessing(architecture, request.image_size, "L" if default.mode == "RGB" else "RGB")]


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
