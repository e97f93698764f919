"""What an engine does: it computes logits from pixels."""

# Shapes: B images of a batch, H height, W width, C channels, L labels.
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor


class Engine(Protocol):
    """A network on one device. Any number of threads may call it; `num_streams` at once use the device best.

    name: engine and precision, such as `openvino bf16`.
    """

    @property
    def name(self) -> str: ...

    @property
    def num_streams(self) -> int: ...

    def logits(self, images_BHWC: NDArray[np.uint8], /) -> "Tensor":
        """Logits BL as float32, on the engine's device; images have the model's shape."""

    def for_batch_size(self, batch_size: int) -> Self:
        """The engine prepared for batches of this size; itself if the size makes no difference."""

    def on_all_cores(self) -> Self:
        """The engine prepared for one image at a time, computed by all cores together; itself if it does so anyway."""


def padded_size(num_images: int) -> int:
    """The power of two to which a batch is padded if each size needs preparation."""
    return 1 << max(0, num_images - 1).bit_length()
