"""A loaded model that predicts."""

# Shapes: B images, H height, W width, C channels, L labels.
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
from modeling.inference.scores import predictions_of
from modeling.networks.build import blank_network, select_device
from modeling.registry.card import WEIGHTS_FILE, ModelCard, read_checked

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
        card, weights = read_checked(path)
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
        return predictions_of(self.card, self._logits(images_BHWC), top_k)

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
