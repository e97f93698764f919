"""The one thing that differs between engines: how logits are computed from pixels."""

# Shapes: B images of a batch, H height, W width, C channels, L labels.
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


class Engine(Protocol):
    """A network made ready on one device. Several threads may ask at once, `num_streams` to advantage.

    name: engine and precision, such as `openvino bf16`.
    """

    @property
    def name(self) -> str: ...

    @property
    def num_streams(self) -> int: ...

    def logits(self, images_BHWC: NDArray[np.uint8], /) -> Tensor:
        """Logits BL as float32, where the engine computes them; images are of the model's own shape."""

    def for_batch_size(self, batch_size: int) -> Self:
        """The engine at its fastest for batches of this size: itself, where sizes make no difference to it."""


def padded_size(num_images: int) -> int:
    """The power of two to which a batch is padded where each size has to be prepared for."""
    return 1 << max(0, num_images - 1).bit_length()
