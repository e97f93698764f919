"""Pre-trained weights, by name, by file or by model folder.

A reference to weights is one of
  imagenet                       the default of torchvision's weights for that architecture
  IMAGENET1K_V1                  torchvision's weights by name, also in full: MobileNet_V2_Weights.IMAGENET1K_V1
  a file                         weights as safetensors (also the index of shards) or as torch writes them
  a folder                       a published model: model.json and model.safetensors
Names take precedence: write `./imagenet` for a file named `imagenet`.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from modeling.errors import ArchitectureError, ModelFormatError, ModelingError
from modeling.images.preprocessing import Preprocessing
from modeling.images.progress import OnProgress
from modeling.networks.architectures import Architecture, default_preprocessing, get_architecture
from modeling.networks.state_dicts.plain_files import file_sha256
from modeling.networks.torchvision_table import ROWS
from modeling.registry.card import CARD_FILE, WEIGHTS_FILE, ModelCard

if TYPE_CHECKING:
    from torch import nn

DEFAULT = "imagenet"
_ROWS = {row.name: row for row in ROWS}


def check_weights(architecture: str, weights: str) -> None:
    """Check that the referenced weights exist; reads at most a model's card.

    Raises:
        ModelingError: no such weights for that architecture; the message lists the choices.
        ModelFormatError: the model folder is damaged.
    """
    if member_of(get_architecture(architecture), weights) is not None:
        return
    path = Path(weights)
    if path.is_dir():
        card_of(path, architecture)
    elif not path.is_file():
        raise ModelingError(f"no weights {weights!r} for {architecture}; {_choices(architecture)}")


def load_weights(
    network: "nn.Module",
    architecture: str,
    weights: str,
    on_progress: OnProgress = lambda done, total: None,
    *,
    key: str | None = None,
) -> list[str]:
    """Load these weights into the network; it keeps its own head if the number of labels differs.

    Returns what an operator should know about a file: which of its weights were taken, and what was left out.

    on_progress: receives the number of bytes downloaded and, if known, the total.
    key: which of several sets of weights in a file, such as `state_dict_ema`.

    Raises:
        ArchitectureError: the weights belong to another architecture; the message lists what does not match.
        ModelFormatError: the file contains no weights.
        ModelingError: there are no such weights, or the download failed.
    """
    from modeling.networks.state_dicts.download import download_state
    from modeling.networks.state_dicts.files import SavedTensors, read_tensors
    from modeling.networks.state_dicts.matching import about_numbers, match_state, select_for

    check_weights(architecture, weights)
    member = member_of(get_architecture(architecture), weights)
    if member is not None:
        saved = SavedTensors.of(weights, download_state(_ROWS[architecture].weights_enum, member, on_progress))
    else:
        path = Path(weights)
        saved = read_tensors(path / WEIGHTS_FILE if path.is_dir() else path, key)
    selection = select_for(network, architecture, saved, needs_head=False)
    network.load_state_dict(match_state(network, architecture, selection.state, source=weights, saved=saved))
    return selection.notes() + about_numbers(selection.state)


def architecture_of_file(file: Path, key: str | None = None) -> str:
    """The architecture whose tensors a file of weights holds; imports torch.

    Raises:
        ArchitectureError: it is none that is known here, or there are several.
        ModelFormatError: the file contains no weights.
    """
    from modeling.networks.state_dicts.files import read_tensors
    from modeling.networks.state_dicts.recognition import the_architecture

    return the_architecture(read_tensors(file, key))


def check_architecture_of_file(architecture: str, file: Path, key: str | None = None) -> None:
    """Check that a file of weights does not hold those of another architecture; imports torch.

    Raises:
        ArchitectureError: it does; names the right one.
        ModelFormatError: the file contains no weights.
    """
    from modeling.networks.state_dicts.files import read_tensors
    from modeling.networks.state_dicts.recognition import recognise

    found = recognise(read_tensors(file, key))
    if found and architecture not in found:
        raise ArchitectureError(
            f"{file} holds weights of {' or '.join(found)}, not of {architecture}; give that --arch"
        )


def check_digest(file: Path, sha256: str) -> None:
    """Check that a file of weights is the one that was chosen.

    Raises:
        ModelFormatError: its content is another, or it cannot be read.
    """
    found = file_sha256(file)
    if found != sha256:
        raise ModelFormatError(
            f"{file} has the sha256 {found[:12]}, the job was submitted with {sha256[:12]}; submit it again"
        )


def weights_preprocessing(architecture: str, weights: str, image_size: int | None = None) -> Preprocessing:
    """The preprocessing of weights: torchvision's, the model's, or for a file the architecture's default.

    torchvision's sizes, crop, mean and deviation are used; bicubic interpolation becomes bilinear. `image_size` (px)
    overrides the side, except for a model.

    Raises:
        ModelingError: no such weights, or a file for an architecture without a default size.
        ModelFormatError: the model folder is damaged.
    """
    check_weights(architecture, weights)
    known = get_architecture(architecture)
    member = member_of(known, weights)
    if member is not None and member != known.weights:
        from modeling.networks.state_dicts.download import torchvision_preprocessing  # torchvision is slow to import

        return torchvision_preprocessing(_ROWS[architecture].weights_enum, member, image_size)
    if member is None and Path(weights).is_dir():
        return card_of(Path(weights), architecture).preprocessing
    return default_preprocessing(known, image_size)


def member_of(architecture: Architecture, weights: str) -> str | None:
    """The member of torchvision's enum that a name refers to; None if it is not such a name.

    Raises:
        ModelingError: the architecture has no weights of that name.
    """
    row = _ROWS.get(architecture.name)
    if row is not None and weights == DEFAULT:
        return architecture.weights
    enum, _, name = weights.rpartition(".")
    if row is not None and name in row.weights and enum in ("", row.weights_enum):
        return name
    if weights == DEFAULT or name.startswith("IMAGENET1K_"):
        raise ModelingError(f"no weights {weights!r} for {architecture.name}; {_choices(architecture.name)}")
    return None


def card_of(folder: Path, architecture: str) -> ModelCard:
    """The card of a model folder of that architecture.

    Raises:
        ArchitectureError: the model has another architecture.
        ModelFormatError: the model is incomplete.
    """
    try:
        card = ModelCard.from_bytes((folder / CARD_FILE).read_bytes(), folder / CARD_FILE)
    except OSError as err:
        raise ModelFormatError(f"{folder} is not a model folder: {CARD_FILE} cannot be read ({err.strerror})") from err
    if not (folder / WEIGHTS_FILE).is_file():
        raise ModelFormatError(f"{folder} is not a complete model: it has no {WEIGHTS_FILE}")
    if card.architecture != architecture:
        raise ArchitectureError(f"{folder} is a {card.architecture}, not a {architecture}; choose that architecture")
    return card


def _choices(architecture: str) -> str:
    row = _ROWS.get(architecture)
    if row is None:
        return "give a file of weights or a published model: there are none to download"
    return f"choose {DEFAULT}, {', '.join(row.weights)}, a file of weights or a published model"
