"""A loaded model that predicts."""

# Shapes: B images, H height, W width, C channels, L labels, k best labels kept.
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from modeling.errors import ModelFormatError
from modeling.inference.decoders import BatchDecoder
from modeling.inference.engines.choice import GPU
from modeling.inference.engines.engine import Engine
from modeling.inference.engines.torch_engine import TorchEngine
from modeling.inference.prediction import Prediction
from modeling.metrics.decisions import Decision
from modeling.networks.build import blank_network, select_device
from modeling.registry.card import CARD_FILE, WEIGHTS_FILE, ModelCard

_SHIFT = 32
_PLACE = 0xFFFF_FFFF


def best_scores(logits_BL: Tensor, temperature: float, k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The k best softmax scores at a temperature, best first, and the labels' numbers: both Bk, or BL where k > L.

    Each label has one integer key: the bits of its score, whose order is that of the (non-negative) scores, and below
    them its place, counted from the end. So the best labels are found without sorting all, equal scores keep the order
    of the labels, and a device returns one tensor.

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
    """The scores in integer keys."""
    return (keys >> _SHIFT).astype(np.int32).view(np.float32)


def labels_of(keys: NDArray[np.int64], num_labels: int) -> NDArray[np.int64]:
    """The numbers of the labels in integer keys."""
    return num_labels - 1 - (keys & _PLACE)


@torch.inference_mode()
def _best_on_device(logits_BL: Tensor, temperature: float, k: int) -> NDArray[np.int64]:
    """The k largest keys of each image, largest first, computed on the device of the logits."""
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


DEFAULT_BATCH = 32


class Classifier:
    """A network with its card, on one device. Same images in the same batches give the same scores.

    Several threads may use it at once.
    """

    def __init__(
        self,
        network: nn.Module,
        card: ModelCard,
        device: torch.device,
        engine: Engine | None = None,
        batch_size: int = DEFAULT_BATCH,
        images_per_sec: float = 0.0,
        batch_decoder: BatchDecoder | None = None,
    ) -> None:
        """engine: computes the logits; by default torch in full precision.

        batch_size, images_per_sec, batch_decoder (and largest_batch): see `modeling.inference.bisection.Predictor`.
        """
        self.reference = TorchEngine(network, card.preprocessing, device)
        self.network = self.reference.network  # in eval mode, its parameters without gradients
        self.device = device
        self.engine = engine or self.reference
        self.batch_size = batch_size
        self.images_per_sec = images_per_sec
        self.batch_decoder = batch_decoder
        self.largest_batch: int | None = None
        self.card = card
        self.labels = card.labels
        self.preprocessing = card.preprocessing
        self.calibration = card.calibration

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> Self:
        """The model in folder `path`, checked against the digest in its card.

        Raises:
            ModelFormatError: a file is missing, damaged, or does not fit the card.
        """
        target = select_device(device)
        card = ModelCard.from_bytes(_read(path / CARD_FILE), path / CARD_FILE)
        weights = _read(path / WEIGHTS_FILE)
        digest = hashlib.sha256(weights).hexdigest()
        if digest != card.weights_sha256:
            raise ModelFormatError(f"{path / WEIGHTS_FILE}: sha256 is {digest}, the card says {card.weights_sha256}")
        network = blank_network(card.architecture, card.preprocessing, len(card.labels))
        try:
            network.load_state_dict(safetensors.torch.load(weights), strict=True, assign=True)
        except (RuntimeError, safetensors.SafetensorError) as err:
            raise ModelFormatError(f"{path / WEIGHTS_FILE}: not the weights of a {card.architecture}: {err}") from err
        return cls(network, card, target)

    @property
    def num_streams(self) -> int:
        """Threads that predict at the same time."""
        return self.engine.num_streams

    @property
    def engine_name(self) -> str:
        """The engine, and the decoder unless the cores decode: `openvino bf16`, `torch bf16 graphs, nvjpeg`."""
        return self.engine.name if self.batch_decoder is None else f"{self.engine.name}, {GPU}"

    def on(
        self,
        engine: Engine,
        batch_size: int = DEFAULT_BATCH,
        images_per_sec: float = 0.0,
        batch_decoder: BatchDecoder | None = None,
    ) -> "Classifier":
        """The same model on another engine."""
        return Classifier(self.network, self.card, self.device, engine, batch_size, images_per_sec, batch_decoder)

    def for_batch_size(self, batch_size: int) -> "Classifier":
        """The same model, prepared for another batch size than the one that was found to be best."""
        return self.on(self.engine.for_batch_size(batch_size), batch_size, self.images_per_sec, self.batch_decoder)

    def predict(self, images_BHWC: NDArray[np.uint8], top_k: int) -> list[Prediction]:
        """The `top_k` best labels of each image with scores in [0, 1], best first, in batch order.

        Scores are the softmax's. A calibrated model scales logits by its temperature first, and decides. Equal scores
        keep the order of the labels.

        Raises:
            ValueError: images that are not of the preprocessing's shape.
            FloatingPointError: the network's scores are not finite.
        """
        temperature = self.calibration.temperature if self.calibration else 1.0
        scores_Bk, order_Bk = best_scores(self._logits(images_BHWC), temperature, top_k)
        decisions = self._decisions(scores_Bk[:, 0], order_Bk[:, 0])
        return [
            Prediction(tuple([self.labels[i] for i in order]), tuple(scores), decision=decision)
            for order, scores, decision in zip(order_Bk.tolist(), scores_Bk.tolist(), decisions, strict=True)
        ]

    def logits(self, images_BHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The network's outputs BL, before any temperature, in the order of the labels.

        Raises:
            ValueError: images that are not of the preprocessing's shape.
        """
        logits_BL: NDArray[np.float32] = self._logits(images_BHWC).cpu().numpy()
        return logits_BL

    def _logits(self, images_BHWC: NDArray[np.uint8]) -> Tensor:
        """The network's outputs, on the device, as float32."""
        if images_BHWC.shape[1:] != self.preprocessing.shape or images_BHWC.dtype != np.uint8:
            found = f"{images_BHWC.dtype} {images_BHWC.shape[1:]}"
            raise ValueError(f"expected uint8 images of {self.preprocessing.shape}, not {found}")
        return self.engine.logits(images_BHWC)

    def _decisions(self, scores_B: NDArray[np.float32], best_B: NDArray[np.int64]) -> Sequence[Decision | None]:
        if self.calibration is None:
            return [None] * len(scores_B)
        return self.calibration.decide_all(best_B, scores_B.astype(np.float64))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as err:
        raise ModelFormatError(f"{path}: cannot be read ({err.strerror})") from err
