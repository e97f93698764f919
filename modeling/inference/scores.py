"""From a network's logits to each image's best labels and their scores.

A label is looked for by one whole number: the bits of its score, which order numbers that are not negative as the
numbers themselves are ordered, and below them its place, counted from the end. So the best labels need no sorting of
all, of equal scores the first label goes first, and what comes back from a device is one tensor.
"""

# Shapes: B images, L labels, k best labels kept.
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_SHIFT = 32
_PLACE = 0xFFFF_FFFF


def best_scores(logits_BL: Tensor, temperature: float, k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The k best softmax scores at a temperature, best first, and the labels' numbers: both Bk, or BL where k > L.

    Raises:
        FloatingPointError: a score is not finite.
    """
    num_labels = logits_BL.shape[1]
    k = min(k, num_labels)
    if logits_BL.is_cpu:
        keys_Bk = _best_on_cores(logits_BL.numpy(), temperature, k)
    else:
        keys_Bk = _best_on_device(logits_BL, temperature, k)
    scores_Bk = scores_of(keys_Bk)
    if not np.isfinite(scores_Bk).all():
        raise FloatingPointError("the network's scores are not finite")
    return scores_Bk, labels_of(keys_Bk, num_labels)


def scores_of(keys: NDArray[np.int64]) -> NDArray[np.float32]:
    """The scores that whole numbers stand for."""
    return (keys >> _SHIFT).astype(np.int32).view(np.float32)


def labels_of(keys: NDArray[np.int64], num_labels: int) -> NDArray[np.int64]:
    """The numbers of the labels that they stand for."""
    return num_labels - 1 - (keys & _PLACE)


@torch.inference_mode()
def _best_on_device(logits_BL: Tensor, temperature: float, k: int) -> NDArray[np.int64]:
    """The k largest keys of each image, largest first, computed where the logits are."""
    scores_BL = (logits_BL / temperature).softmax(dim=1)
    places_L = torch.arange(logits_BL.shape[1] - 1, -1, -1, device=logits_BL.device)
    keys_BL = (scores_BL.view(torch.int32).long() << _SHIFT) | places_L
    best_Bk: NDArray[np.int64] = keys_BL.topk(k, dim=1).values.cpu().numpy()
    return best_Bk


def _best_on_cores(logits_BL: NDArray[np.float32], temperature: float, k: int) -> NDArray[np.int64]:
    """The same for logits in memory: torch would wake its threads for 2,048 numbers, and wait until they get a core."""
    num_labels = logits_BL.shape[1]
    with np.errstate(invalid="ignore"):  # what is not finite is told in the end
        scores_BL = logits_BL / np.float32(temperature)
        scores_BL -= scores_BL.max(axis=1, keepdims=True)
        np.exp(scores_BL, out=scores_BL)
        scores_BL /= scores_BL.sum(axis=1, keepdims=True)
    places_L = np.arange(num_labels - 1, -1, -1)
    keys_BL = (scores_BL.view(np.int32).astype(np.int64) << _SHIFT) | places_L
    best_Bk = np.partition(keys_BL, num_labels - k, axis=1)[:, num_labels - k :]
    best_Bk.sort(axis=1)
    return best_Bk[:, ::-1]
