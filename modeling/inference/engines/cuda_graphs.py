"""A network on a GPU, launched as one recorded graph instead of kernel by kernel, on two streams that take turns.

Launching some hundred kernels from Python takes longer than small batches take to compute. A CUDA graph is recorded
once for each padded batch size and replayed by one call.
"""

# Shapes: B images of a batch, P images of a padded batch, H height, W width, C channels, L labels.
import threading
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modeling.inference.engines.engine import padded_size
from modeling.inference.engines.torch_engine import TorchEngine

_WARM_UPS = 3  # passes before a recording, as torch's documentation of CUDA graphs asks for
_RECORDING = threading.Lock()  # while one stream records, the other must not


@dataclass(frozen=True, slots=True, eq=False)
class _Recording:
    """A graph, and where it reads and leaves its tensors. pinned: on the host, to copy from without waiting."""

    graph: torch.cuda.CUDAGraph
    pinned_PHWC: Tensor
    images_PHWC: Tensor
    logits_PL: Tensor


class CudaGraphEngine:
    """The network of a torch engine on a GPU. While one stream computes a batch, the next goes over on the other.

    Batches are padded to a power of two: a graph is good for one shape, and few shapes need few graphs.
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

    def fitted(self, batch_size: int) -> Self:
        """Itself: each size has its own graphs."""
        return self


class _Lane:
    """One stream and its graphs; used by one thread at a time."""

    def __init__(self, engine: TorchEngine) -> None:
        self._engine = engine
        self._stream = torch.cuda.Stream(engine.device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()  # of memory that the lane's graphs, replayed one by one, share
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
            logits_BL = recording.logits_PL[:num_images].clone()  # the next replay writes over it
        self._stream.synchronize()
        if logits_BL.is_cuda:  # its memory is this stream's, and must not be used again while the caller's reads it
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
