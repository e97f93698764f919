"""Pre-trained weights, by name, by file or by model folder.

A reference to weights is one of
  imagenet                       the default of torchvision's weights for that architecture
  IMAGENET1K_V1                  one of them by its name, also in full: MobileNet_V2_Weights.IMAGENET1K_V1
  a file                         a state dict, as safetensors or as torch writes it (read with `weights_only`)
  a folder                       a model of ours: model.json and model.safetensors
Names come first: a file named `imagenet` is meant by `./imagenet`.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from modeling.errors import ArchitectureError, ModelFormatError, ModelingError
from modeling.images.preprocessing import Preprocessing
from modeling.images.progress import OnProgress
from modeling.networks.architectures import Architecture, default_preprocessing, get_architecture
from modeling.networks.torchvision_table import ROWS
from modeling.registry.card import CARD_FILE, WEIGHTS_FILE, ModelCard

if TYPE_CHECKING:
    from torch import nn

DEFAULT = "imagenet"
_ROWS = {row.name: row for row in ROWS}


def check_weights(architecture: str, weights: str) -> None:
    """See whether weights of that reference are known or lie there; nothing is read but a model's card.

    Raises:
        ModelingError: no such weights for that architecture; says what there is.
        ModelFormatError: a model folder that is damaged.
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
) -> None:
    """Give the network these weights; a head of another number of labels keeps its own.

    on_progress: gets the number of bytes that a download has and, if that is known, of how many.

    Raises:
        ArchitectureError: they are weights of another architecture; says what does not fit.
        ModelFormatError: a file that holds no weights.
        ModelingError: there are no such weights, or they cannot be downloaded.
    """
    from modeling.networks.state_dicts import download_state, match_state, read_state

    check_weights(architecture, weights)
    member = member_of(get_architecture(architecture), weights)
    if member is not None:
        state = download_state(_ROWS[architecture].weights_enum, member, on_progress)
    else:
        path = Path(weights)
        state = read_state(path / WEIGHTS_FILE if path.is_dir() else path)
    network.load_state_dict(match_state(network, architecture, state, source=weights))


def weights_preprocessing(architecture: str, weights: str, image_size: int | None = None) -> Preprocessing:
    """The preprocessing that goes with weights: torchvision's, a model's own, or for a file the architecture's.

    torchvision's sizes, cut, mean and deviation are kept; its interpolation is not where that is bicubic.
    `image_size` (px) overrides the side of all but a model's.

    Raises:
        ModelingError: no such weights, or a file for an architecture that has no size of its own.
        ModelFormatError: a model folder that is damaged.
    """
    check_weights(architecture, weights)
    known = get_architecture(architecture)
    member = member_of(known, weights)
    if member is not None and member != known.weights:
        from modeling.networks.state_dicts import torchvision_preprocessing  # torchvision is slow to import

        return torchvision_preprocessing(_ROWS[architecture].weights_enum, member, image_size)
    if member is None and Path(weights).is_dir():
        return card_of(Path(weights), architecture).preprocessing
    return default_preprocessing(known, image_size)


def member_of(architecture: Architecture, weights: str) -> str | None:
    """The member of torchvision's enum that a name means; None where it is no such name.

    Raises:
        ModelingError: the name of weights that this architecture does not have.
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
        ArchitectureError: a model of another architecture.
        ModelFormatError: no whole model.
    """
    try:
        card = ModelCard.from_bytes((folder / CARD_FILE).read_bytes(), folder / CARD_FILE)
    except OSError as err:
        raise ModelFormatError(f"{folder} is no model folder: {CARD_FILE} cannot be read ({err.strerror})") from err
    if not (folder / WEIGHTS_FILE).is_file():
        raise ModelFormatError(f"{folder} is no whole model: there is no {WEIGHTS_FILE}")
    if card.architecture != architecture:
        raise ArchitectureError(f"{folder} is a {card.architecture}, not a {architecture}; choose that architecture")
    return card


def _choices(architecture: str) -> str:
    row = _ROWS.get(architecture)
    if row is None:
        return "give a file of weights or a published model: there are none to download"
    return f"choose {DEFAULT}, {', '.join(row.weights)}, a file of weights or a published model"
