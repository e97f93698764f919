"""The inputs of a training run, its progress and its result; and the computation of logits from such inputs."""

# Shapes: N images asked for, M images in memory, B images of a batch, L labels, H height, W width, C channels.
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from modeling.data.images import DecodedImages, Images, Indices, rows_of
from modeling.data.lost import LostImages
from modeling.data.splits import Split
from modeling.images.pixels import Pixels
from modeling.images.preprocessing import Preprocessing
from modeling.images.progress import OnProgress
from modeling.networks.build import normalise
from modeling.training.fit.ranks import Ranks

EVALUATION_BATCH = 256
_EVALUATION_PIXELS = EVALUATION_BATCH * 128 * 128  # smaller batches of larger images: a layer's output would take 3 GiB


class DeviceImages:
    """Decoded images that are all stored on the device."""

    def __init__(self, images: DecodedImages, device: torch.device) -> None:
        self._pixels_MHWC = torch.from_numpy(images.pixels_MHWC).to(device)
        self._row_N = images.row_N

    def batches(self, index_batches: Iterable[Indices]) -> Iterator[Tensor]:
        """uint8 BHWC of each batch of indices, in order, on the device."""
        for indices_B in index_batches:
            rows_B = torch.from_numpy(rows_of(self._row_N, indices_B))
            yield self._pixels_MHWC[rows_B.to(self._pixels_MHWC.device)]


AnyImages = Images | DeviceImages


def to_device(pixels_BHWC: Pixels | Tensor, device: torch.device) -> Tensor:
    """Copy a batch to the device; on CUDA asynchronously, from pinned memory."""
    if isinstance(pixels_BHWC, Tensor):
        return pixels_BHWC.to(device)
    batch = torch.from_numpy(pixels_BHWC)
    return batch.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else batch


def index_batches_of(indices_N: Indices, size: int) -> list[Indices]:
    """The indices in batches of `size`; the last may be shorter."""
    return [indices_N[start : start + size] for start in range(0, len(indices_N), size)]


def training_batches(order_M: Indices, size: int) -> list[Indices]:
    """The indices in batches of `size`; a last one of one image joins the one before: batch norm needs two."""
    index_batches = index_batches_of(order_M, size)
    if len(index_batches) < 2 or len(index_batches[-1]) > 1:
        return index_batches
    return [*index_batches[:-2], np.concatenate(index_batches[-2:])]


def compute_logits(
    network: nn.Module,
    images: AnyImages,
    indices_N: Indices,
    preprocessing: Preprocessing,
    device: torch.device,
    *,
    on_progress: OnProgress = lambda num_done, num_images: None,
) -> NDArray[np.float32]:
    """Logits NL of the images at some indices, in eval mode and full precision."""
    network.eval()
    size = max(1, min(EVALUATION_BATCH, _EVALUATION_PIXELS // (preprocessing.height * preprocessing.width)))
    index_batches = index_batches_of(indices_N, size)
    logits: list[NDArray[np.float32]] = []
    num_done = 0
    with torch.inference_mode():
        for pixels_BHWC in images.batches(iter(index_batches)):
            images_BCHW = normalise(to_device(pixels_BHWC, device), preprocessing)
            logits.append(network(images_BCHW).float().cpu().numpy())
            num_done += len(pixels_BHWC)
            on_progress(num_done, len(indices_N))
    return np.concatenate(logits) if logits else np.zeros((0, 0), dtype=np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class FitInputs:
    """The inputs of a run: images by index, their targets and their split.

    train_images: may be larger than the network's input, for augmentation to crop from. images: as the model sees them
    in use. contents: a digest of the images' bytes, with which a resumed run checks that they have not changed.
    lost: the images that could not be read again; None where none is read from files.
    """

    train_images: AnyImages
    images: AnyImages
    targets_N: NDArray[np.int64]
    split: Split
    preprocessing: Preprocessing
    contents: str = ""
    lost: LostImages | None = None


@dataclass(slots=True)
class FitProgress:
    """The progress of a run, and its best epoch so far.

    loss_sum: of the epoch's images so far; it is the training objective, which includes label smoothing, mixing and
    class weights.
    """

    epoch: int = 0  # finished epochs
    step_in_epoch: int = 0
    loss_sum: float = 0.0
    best_epoch: int = 0
    best_accuracy: float = -1.0


@dataclass(frozen=True, slots=True, eq=False)
class FitResult:
    """The result of a run: `epoch` is the best on validation (the last of equals); the network has its weights."""

    epoch: int
    accuracy: float | None
    history: list[dict[str, float]]


def measure_accuracy(
    network: nn.Module,
    inputs: FitInputs,
    indices_N: Indices,
    device: torch.device,
    ranks: Ranks,
    on_progress: OnProgress,
) -> float | None:
    """The accuracy on these images, each process answering its share; None if all of them are lost."""
    share_N = indices_N[ranks.rank :: ranks.size]
    logits_NL = compute_logits(network, inputs.images, share_N, inputs.preprocessing, device, on_progress=on_progress)
    kept_N = np.ones(len(share_N), dtype=bool) if inputs.lost is None else ~inputs.lost.mask(share_N)
    right = (logits_NL.argmax(axis=1) == inputs.targets_N[share_N])[kept_N].sum() if len(share_N) else 0
    counts = torch.tensor([float(right), float(kept_N.sum())], dtype=torch.float64, device=device)
    num_right, num_answered = ranks.sum(counts).tolist()
    return num_right / num_answered if num_answered else None
