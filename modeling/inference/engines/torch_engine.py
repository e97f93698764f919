"""A network computed by torch: directly, the reference on every device, and as CUDA graphs, fast on GPUs."""

# Shapes: B images of a batch, P images of a padded batch, H height, W width, C channels, L labels.
import copy
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from modeling.images.preprocessing import Preprocessing
from modeling.inference.engines.engine import padded_size
from modeling.inference.engines.precision import Precision
from modeling.networks.build import moments_on, normalise

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TorchEngine:
    """The network in eval mode on a device; images are copied as bytes and normalised there."""

    num_streams = 1  # one stream of a GPU, or all threads of a CPU, serve one batch

    def __init__(
        self, network: nn.Module, preprocessing: Preprocessing, device: torch.device, precision: Precision = "fp32"
    ) -> None:
        """precision: of weights and computation; half precision uses channels last, which its kernels need."""
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

    def for_batch_size(self, batch_size: int) -> Self:
        """Itself: sizes need no preparation."""
        return self

    def on_all_cores(self) -> Self:
        """Itself: every batch gets all of the device."""
        return self

    def forward(self, images_BHWC: Tensor) -> Tensor:
        """Logits BL as float32 from images as bytes, both on the device."""
        with torch.inference_mode(), repeatable():
            images_BCHW = normalise(images_BHWC, self.preprocessing, self._moments)
            logits_BL: Tensor = self.network(images_BCHW.to(self._dtype, memory_format=self._format)).float()
        return logits_BL


def repeatable() -> AbstractContextManager[None]:
    """Deterministic algorithms of cuDNN, without TF32."""
    flags: Callable[..., AbstractContextManager[None]] = torch.backends.cudnn.flags
    # enabled is off by default here, which takes a GPU ten times as long
    return flags(enabled=True, deterministic=True, benchmark=False, allow_tf32=False)


_WARM_UPS = 3  # passes before a recording, as torch's documentation of CUDA graphs recommends
_RECORDING = threading.Lock()  # while one stream records, the other must not


@dataclass(frozen=True, slots=True, eq=False)
class _Recording:
    """A graph with its input and output tensors. pinned: on the host, to copy from asynchronously."""

    graph: torch.cuda.CUDAGraph
    pinned_PHWC: Tensor
    images_PHWC: Tensor
    logits_PL: Tensor


class CudaGraphEngine:
    """The network of a torch engine on a GPU. While one stream computes a batch, the other copies the next.

    Launching hundreds of kernels from Python takes longer than computing a small batch. A CUDA graph is recorded once
    for each padded batch size and replayed by one call. Batches are padded to a power of two: a graph has one shape,
    and few shapes need few graphs.
    """

    num_streams = 2

    def __init__(self, engine: TorchEngine) -> None:
        self.name = f"{engine.name} graphs"
        self._idle: SimpleQueue[_Lane] = SimpleQueue()
        for _ in range(self.num_streams):
            self._idle.put(_Lane(engine))

    def logits(self, images_BHWC: NDArray[np.uint8], /) -> Tensor:
        """Logits BL as float32 on the device, ready for any stream."""
        lane = self._idle.get()
        try:
            return lane.logits(images_BHWC)
        finally:
            self._idle.put(lane)

    def for_batch_size(self, batch_size: int) -> Self:
        """Itself: each size has its own graphs."""
        return self

    def on_all_cores(self) -> Self:
        """Itself: the cores compute nothing."""
        return self


class _Lane:
    """One stream and its graphs; used by one thread at a time."""

    def __init__(self, engine: TorchEngine) -> None:
        self._engine = engine
        self._stream = torch.cuda.Stream(engine.device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()  # memory shared by the lane's graphs, which are replayed in turn
        self._recordings: dict[int, _Recording] = {}

    def logits(self, images_BHWC: NDArray[np.uint8]) -> Tensor:
        num_images = len(images_BHWC)
        size = padded_size(num_images)
        if size not in self._recordings:
            with _RECORDING:
                self._recordings[size] = self._record(size)
        recording = self._recordings[size]
        recording.pinned_PHWC.numpy()[:num_images] = images_BHWC
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            recording.images_PHWC.copy_(recording.pinned_PHWC, non_blocking=True)
            recording.graph.replay()
            logits_BL = recording.logits_PL[:num_images].clone()  # the next replay overwrites it
        self._stream.synchronize()
        if logits_BL.is_cuda:  # allocated on this stream; must not be reused while the caller's stream reads it
            logits_BL.record_stream(torch.cuda.current_stream(self._engine.device))
        return logits_BL

    def _record(self, size: int) -> _Recording:
        shape = (size, *self._engine.preprocessing.shape)
        pinned_PHWC = torch.zeros(shape, dtype=torch.uint8, pin_memory=True)
        images_PHWC = torch.zeros(shape, dtype=torch.uint8, device=self._engine.device)
        graph = torch.cuda.CUDAGraph()
        self._stream.wait_stream(torch.cuda.current_stream(self._engine.device))
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            for _ in range(_WARM_UPS):
                self._engine.forward(images_PHWC)
            self._stream.synchronize()
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                logits_PL = self._engine.forward(images_PHWC)
        return _Recording(graph, pinned_PHWC, images_PHWC, logits_PL)
