"""A network computed by torch itself: the reference on every device, and the engine of GPUs."""

# Shapes: B images of a batch, H height, W width, C channels, L labels.
import copy
from contextlib import AbstractContextManager
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from modeling.images.preprocessing import Preprocessing
from modeling.inference.engines.precision import Precision
from modeling.networks.build import moments_on, normalise

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TorchEngine:
    """The network in eval mode on a device; bytes go over, normalisation happens there."""

    num_streams = 1  # one stream of a GPU, or all threads of a CPU, serve one batch

    def __init__(
        self, network: nn.Module, preprocessing: Preprocessing, device: torch.device, precision: Precision = "fp32"
    ) -> None:
        """precision: of weights and computation; half precision goes with channels last, which its kernels want."""
        self.name = f"torch {precision}"
        self.network = network.eval().requires_grad_(False).to(device)
        self.preprocessing = preprocessing
        self.device = device
        self._moments = moments_on(device, preprocessing)
        self._dtype = _DTYPES[precision]
        self._format = torch.contiguous_format
        if precision != "fp32":
            self._format = torch.channels_last
            self.network = copy.deepcopy(self.network).to(self._dtype).to(memory_format=torch.channels_last)

    def logits(self, images_BHWC: NDArray[np.uint8], /) -> Tensor:
        """Logits BL as float32 on the device."""
        images = torch.from_numpy(np.require(images_BHWC, requirements=["C", "W"]))
        if self.device.type == "cuda":
            images = images.pin_memory().to(self.device, non_blocking=True)
        return self.forward(images)

    def fitted(self, batch_size: int) -> Self:
        """Itself: no size is prepared for."""
        return self

    def forward(self, images_BHWC: Tensor) -> Tensor:
        """Logits BL as float32 of images as bytes, both on the device."""
        with torch.inference_mode(), repeatable():
            images_BCHW = normalise(images_BHWC, self.preprocessing, self._moments)
            logits_BL: Tensor = self.network(images_BCHW.to(self._dtype, memory_format=self._format)).float()
        return logits_BL


def repeatable() -> AbstractContextManager[None]:
    """cuDNN's algorithms that give the same bytes each time, in full precision where that is asked for."""
    flags: AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=True,  # it is off unless said, and a GPU then takes ten times as long
        deterministic=True,
        benchmark=False,
        allow_tf32=False,
    )
    return flags
