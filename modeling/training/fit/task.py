"""What a run is to learn, how far it is, and what comes of it."""

# Shapes: N images of the data set.
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modeling.data.splits import Split
from modeling.images.preprocessing import Preprocessing
from modeling.training.fit.logits import AnyImages


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """What is to be learnt: images by index, their targets and parts.

    train_images may be larger than the network's own size, for augmentation to choose a part from;
    images are what the model will see in use. contents: a digest of the images' bytes, by which a run that goes on
    later knows that they are still the same.
    """

    train_images: AnyImages
    images: AnyImages
    targets_N: NDArray[np.int64]
    split: Split
    preprocessing: Preprocessing
    contents: str = ""


@dataclass(slots=True)
class Progress:
    """How far a run is, and the best epoch so far.

    loss_sum: of the epoch's images so far; it is the objective of the training, so smoothed labels, mixed images
    and class weights count in it.
    """

    epoch: int = 0  # epochs that are whole
    step_in_epoch: int = 0
    loss_sum: float = 0.0
    best_epoch: int = 0
    best_accuracy: float = -1.0


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """The end of a run: the network holds the weights of `epoch`, the best on validation (the last of equals)."""

    epoch: int
    accuracy: float | None
    history: list[dict[str, float]]
