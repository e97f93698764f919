"""What a training or an evaluation reads: labelled data and weights, by absolute path, so that a worker finds them."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from modeling.data.layout import DataPart, Layout
from modeling.errors import ModelFormatError, ModelNameError, ModelNotFoundError
from modeling.names import path_to_text
from modeling.networks.state_dicts.plain_files import weights_file
from modeling.networks.weights import DEFAULT as IMAGENET
from modeling.networks.weights import architecture_of_file, check_architecture_of_file
from modeling.registry.card import CARD_FILE, ModelCard
from modeling.registry.store import ModelStore
from orchestrator.contract.errors import NotFoundError, UsageError
from orchestrator.contract.settings import Settings
from orchestrator.jobs.roots import Roots

if TYPE_CHECKING:
    from modeling.data.dataset import Dataset

DEFAULT_ARCHITECTURE = "cnn"  # of weights that do not say theirs


def choose_data(data: Path) -> Path:
    """The absolute path of labelled data.

    Raises NotFoundError where there is nothing at that path, UsageError where the name is not UTF-8.
    """
    path = Path(os.path.abspath(data))  # noqa: PTH100 links are kept: the operator's own name
    _check_is_text(path)
    if not path.exists():
        raise NotFoundError(
            f"there is no {str(data)!r}; give a folder per class, idx files, or a list of path and label"
        )
    return path


def open_to_train(data: Sequence[Path], layout: Layout | None, roots: Roots | None = None) -> "Dataset":
    """Data sets to train on, joined; opens no image file.

    Raises DataError where it is not a data set, or its list of images shows that it cannot be trained on,
    OutsideRootsError where that list leads out of `roots`.
    """
    from modeling.data.forms.joined import open_datasets  # numpy: only where labelled data is read
    from modeling.data.forms.open import check_learnable

    dataset = open_datasets(data, layout)
    if roots is not None:
        roots.check_dataset(dataset)
    check_learnable(dataset)
    return dataset


def count_labelled(
    data: Path, part: DataPart, card: ModelCard, layout: Layout | None, roots: Roots | None = None
) -> int:
    """The number of images in a data set, of which `part` will be evaluated; opens no image.

    Raises DataError where it is not a data set, or has only images of classes that the model does not know,
    OutsideRootsError where its list of images leads out of `roots`. The evaluation finds out which images are in a
    part.
    """
    import numpy as np

    from modeling.data.forms.open import open_dataset
    from modeling.evaluation.labels import known_images

    dataset = open_dataset(data, layout, to_learn=False)
    if roots is not None:
        roots.check_dataset(dataset)
    if part != "all":
        return dataset.num_images
    return len(known_images(dataset, np.arange(dataset.num_images), card.labels).indices)


def choose_weights(settings: Settings, wanted: str) -> tuple[str, str]:
    """The weights as a worker can find them, and the default architecture: the model's, if they are a model's.

    The name of pre-trained weights is kept; a published model becomes its version's folder, so that moving an alias
    changes nothing; a file or a folder becomes its absolute path. Raises ModelNotFoundError where there is no version
    such as `birds@9`.
    """
    if wanted == IMAGENET:
        return wanted, DEFAULT_ARCHITECTURE
    path = _published(ModelStore(settings.models), wanted) or Path(os.path.abspath(wanted))  # noqa: PTH100 as choose_data
    if not path.exists():
        return wanted, DEFAULT_ARCHITECTURE
    _check_is_text(path)
    card = path / CARD_FILE
    if not card.is_file():
        return str(_weights_in(path)), DEFAULT_ARCHITECTURE
    return str(path), ModelCard.from_bytes(card.read_bytes(), card).architecture


def _weights_in(path: Path) -> Path:
    """The file of weights in a folder, as others save them; the path itself where there is none."""
    if not path.is_dir():
        return path
    try:
        return weights_file(path)
    except ModelFormatError:
        return path


def is_file_of_weights(weights: str | None) -> bool:
    """Whether these weights, as `choose_weights` has them, are a file, not a name or a model."""
    return weights is not None and Path(weights).is_absolute() and Path(weights).is_file()


def architecture_of_weights(weights: str, wanted: object, key: object) -> str:
    """The architecture of a file of weights; reads the file, and imports torch.

    Raises ArchitectureError where it is not the wanted one, or not known here, ModelFormatError where the file holds no
    weights. With a wanted architecture, a file that is not recognised passes: the training says what does not fit.
    """
    chosen = None if key is None else str(key)
    if wanted is None:
        return architecture_of_file(Path(weights), chosen)
    check_architecture_of_file(str(wanted), Path(weights), chosen)
    return str(wanted)


def lacking_labels(weights: str | None, labels: Sequence[str]) -> tuple[str, ...]:
    """Those of the labels that the model whose weights are taken does not know; none where they are no model's."""
    card = Path(weights, CARD_FILE) if weights else None
    if card is None or not card.is_file():
        return ()
    known = set(ModelCard.from_bytes(card.read_bytes(), card).labels)
    return tuple(label for label in labels if label not in known)


def names_a_model(settings: Settings, wanted: str) -> bool:
    """Whether a published model has that name."""
    return _published(ModelStore(settings.models), wanted) is not None


def _published(store: ModelStore, wanted: str) -> Path | None:
    """The folder of the version that `wanted` names; None where it names no model."""
    try:
        return store.resolve(wanted).path
    except ModelNameError:
        return None
    except ModelNotFoundError:
        if "@" in wanted:
            raise
        return None


def _check_is_text(path: Path) -> None:
    """Raises UsageError for a name that is not UTF-8: a training request is JSON."""
    if path_to_text(str(path)) != str(path):
        raise UsageError(f"the name of {path_to_text(str(path))!r} is not UTF-8; rename the folder, or link to it")
