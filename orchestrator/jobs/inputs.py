"""What a training or an evaluation reads: labelled data and weights, by absolute path, so that a worker finds them."""

import os
from pathlib import Path

from modeling.errors import ModelNameError, ModelNotFoundError
from modeling.evaluation.request import DataPart
from modeling.names import path_to_text
from modeling.networks.weights import DEFAULT as IMAGENET
from modeling.registry.card import CARD_FILE, ModelCard
from modeling.registry.store import ModelStore
from orchestrator.contract.errors import NotFoundError, UsageError
from orchestrator.contract.settings import Settings

DEFAULT_ARCHITECTURE = "cnn"


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


def count_images(data: Path) -> int:
    """The number of images in a data set to train on; opens no image.

    Raises DataError where it is none, or its list of images shows that it cannot be trained on.
    """
    from modeling.data.forms.open import check_learnable, open_dataset  # numpy: only where labelled data is read

    dataset = open_dataset(data)
    check_learnable(dataset)
    return dataset.num_images


def count_labelled(data: Path, part: DataPart, card: ModelCard) -> int:
    """The number of images in a data set, of which `part` will be evaluated; opens no image.

    Raises DataError where it is not a data set, or has images of a class that the model does not know. The evaluation
    finds out which images are in a part.
    """
    import numpy as np

    from modeling.data.forms.open import open_dataset
    from modeling.evaluation.predict import model_targets

    dataset = open_dataset(data, to_learn=False)
    if part == "all":
        model_targets(dataset, np.arange(dataset.num_images), card.labels)
    return dataset.num_images


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
        return str(path), DEFAULT_ARCHITECTURE
    return str(path), ModelCard.from_bytes(card.read_bytes(), card).architecture


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
