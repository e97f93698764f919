"""From logits to predictions: the best labels with their scores, and the decision. Needs no torch."""

# Shapes: B images, L labels, k best labels kept.
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from modeling.inference.prediction import Prediction
from modeling.registry.card import ModelCard

if TYPE_CHECKING:
    from torch import Tensor

_SHIFT = 32
_PLACE = 0xFFFF_FFFF


def predictions_of(card: ModelCard, logits_BL: "NDArray[np.float32] | Tensor", k: int) -> list[Prediction]:
    """The `k` best labels of each image with scores in [0, 1], best first, and what the model decides.

    Scores are the softmax's. A calibrated model scales logits by its temperature first. Equal scores keep the order of
    the labels.

    Raises:
        FloatingPointError: a score is not finite.
    """
    calibration, labels = card.calibration, card.labels
    scores_Bk, order_Bk = best_scores(logits_BL, calibration.temperature if calibration else 1.0, k)
    decisions = (
        calibration.decide_all(order_Bk[:, 0], scores_Bk[:, 0].astype(np.float64))
        if calibration
        else [None] * len(scores_Bk)
    )
    return [
        Prediction(tuple([labels[i] for i in order]), tuple(scores), decision=decision)
        for order, scores, decision in zip(order_Bk.tolist(), scores_Bk.tolist(), decisions, strict=True)
    ]


def best_scores(
    logits_BL: "NDArray[np.float32] | Tensor", temperature: float, k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The k best softmax scores at a temperature, best first, and the labels' numbers: both Bk, or BL where k > L.

    Each label has one integer key: the bits of its score, whose order is that of the (non-negative) scores, and below
    them its place, counted from the end. So the best labels are found without sorting all, equal scores keep the order
    of the labels, and a device returns one tensor.

    Raises:
        FloatingPointError: a score is not finite.
    """
    num_labels = logits_BL.shape[1]
    k = min(k, num_labels)
    if isinstance(logits_BL, np.ndarray):
        keys_Bk = _best_on_cores(logits_BL, temperature, k)
    elif logits_BL.is_cpu:
        keys_Bk = _best_on_cores(logits_BL.numpy(), temperature, k)
    else:
        keys_Bk = _best_on_device(logits_BL, temperature, k)
    scores_Bk = scores_of(keys_Bk)
    if not np.isfinite(scores_Bk).all():
        raise FloatingPointError("the network's scores are not finite")
    return scores_Bk, labels_of(keys_Bk, num_labels)


def scores_of(keys: NDArray[np.int64]) -> NDArray[np.float32]:
    """The scores in integer keys."""
    return (keys >> _SHIFT).astype(np.int32).view(np.float32)


def labels_of(keys: NDArray[np.int64], num_labels: int) -> NDArray[np.int64]:
    """The numbers of the labels in integer keys."""
    return num_labels - 1 - (keys & _PLACE)


def _best_on_device(logits_BL: "Tensor", temperature: float, k: int) -> NDArray[np.int64]:
    """The k largest keys of each image, largest first, computed on the device of the logits."""
    import torch

    with torch.inference_mode():
        scores_BL = (logits_BL / temperature).softmax(dim=1)
        places_L = torch.arange(logits_BL.shape[1] - 1, -1, -1, device=logits_BL.device)
        keys_BL = (scores_BL.view(torch.int32).long() << _SHIFT) | places_L
        best_Bk: NDArray[np.int64] = keys_BL.topk(k, dim=1).values.cpu().numpy()
    return best_Bk


def _best_on_cores(logits_BL: NDArray[np.float32], temperature: float, k: int) -> NDArray[np.int64]:
    """The same in NumPy: torch would wake its threads for 2,048 numbers, and wait until they get a core."""
    num_labels = logits_BL.shape[1]
    with np.errstate(invalid="ignore"):  # what is not finite is an error later
        scores_BL = logits_BL / np.float32(temperature)
        scores_BL -= scores_BL.max(axis=1, keepdims=True)
        np.exp(scores_BL, out=scores_BL)
        scores_BL /= scores_BL.sum(axis=1, keepdims=True)
    places_L = np.arange(num_labels - 1, -1, -1)
    keys_BL = (scores_BL.view(np.int32).astype(np.int64) << _SHIFT) | places_L
    best_Bk = np.partition(keys_BL, num_labels - k, axis=1)[:, num_labels - k :]
    best_Bk.sort(axis=1)
    return best_Bk[:, ::-1]
