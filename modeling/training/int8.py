"""Quantising at the end of a training, while its images are at hand."""

# Shapes: M chosen images.
import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from modeling.data.images import load_image
from modeling.inference.classifier import Classifier
from modeling.training.data import Data
from modeling.training.model_folder import Model, Trained
from modeling.training.quantise import CALIBRATION_IMAGES, quantise


def add_int8(model: Model, data: Data, trained: Trained, emit: Callable[[dict[str, Any]], None]) -> Model:
    """The model with its quantised network where that keeps the bound; its card has the figures either way.

    Events: a `note` where it is kept, else a `warning`, with the figures.
    """
    if not len(data.split.validation):
        emit({"event": "warning", "text": "int8: refused, as there are no validation images to hold it to"})
        return model
    train_M, validation_M = data.split.train, data.split.validation
    chosen = np.linspace(0, len(train_M) - 1, min(CALIBRATION_IMAGES, len(train_M))).astype(np.int64)
    quality, network = quantise(
        Classifier(copy.deepcopy(trained.network), model.card, torch.device("cpu")),
        lambda index: load_image(data.dataset, index, trained.preprocessing),
        calibration_M=train_M[chosen],
        validation_M=validation_M,
        targets_M=data.dataset.targets_N[validation_M],
        logits_ML=trained.logits_of(validation_M),
    )
    emit({"event": "note" if quality.kept else "warning", "text": str(quality)})
    card = replace(model.card, training=model.card.training | {"int8": quality.to_json()})
    return replace(model, card=card, int8=network)
