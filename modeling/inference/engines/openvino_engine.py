"""A network computed by OpenVINO: several times as fast as torch on CPUs, above all in bfloat16 and int8."""

# Shapes: B images of a batch, P images of a padded batch, H height, W width, C channels, L labels.
import copy
import functools
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from modeling.images.quotas import num_cores
from modeling.inference.engines.engine import padded_size
from modeling.inference.engines.openvino_library import openvino, opset13, signal_stack_kept
from modeling.inference.engines.precision import Precision

if TYPE_CHECKING:
    from torch import Tensor

_ANY = 0  # images of a batch: a graph for all sizes
_PREPARING = threading.Lock()


class OpenVinoEngine:
    """An ONNX file, `images` in and `logits` out, compiled for this machine's CPU.

    Each core is a stream: batches that do not wait for each other's threads share cores better with decode threads.
    An engine that is prepared for a batch size pads smaller batches to it, so that an image's scores do not depend on
    its batch, to the last digit. Other batches are padded to a power of two, so that few shapes are prepared.
    """

    def __init__(self, network: Path | bytes, precision: Precision, *, num_streams: int | None = None) -> None:
        self.name = f"openvino {precision}"
        self.num_streams = num_streams or num_cores()
        self._network = openvino.Core().read_model(network)
        self._precision = precision
        self._num_threads = self.num_streams  # of all streams together
        self._fixed = _ANY
        self._idle: dict[int, SimpleQueue[openvino.InferRequest]] = {}  # by images of a batch

    def logits(self, images_BHWC: NDArray[np.uint8], /) -> "Tensor":
        """Logits BL as float32."""
        import torch  # slow to import, and not needed to compute

        return torch.from_numpy(self.compute(images_BHWC))

    def compute(self, images_BHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits BL."""
        num_images = len(images_BHWC)
        size = self._fixed if num_images <= self._fixed else padded_size(num_images)
        if size > num_images:
            padding = np.zeros((size - num_images, *images_BHWC.shape[1:]), np.uint8)
            images_BHWC = np.concatenate([images_BHWC, padding])
        idle = self._prepared(size if size == self._fixed else _ANY)
        request = idle.get()
        try:
            request.infer({"images": np.ascontiguousarray(images_BHWC)}, share_inputs=True)
            logits_PL: NDArray[np.float32] = request.get_tensor("logits").data.copy()
        finally:
            idle.put(request)
        return logits_PL[:num_images]

    def for_batch_size(self, batch_size: int) -> Self:
        """The same network; batches of this size use a graph of fixed shapes, which compiles to faster code."""
        engine = copy.copy(self)
        engine._fixed = padded_size(batch_size)
        engine._idle = {size: idle for size, idle in self._idle.items() if size in (_ANY, engine._fixed)}
        engine._prepared(engine._fixed)
        return engine

    def on_all_cores(self) -> Self:
        """The same network with one stream of all threads, for one image at a time; itself on a single core."""
        if self.num_streams == 1:
            return self
        engine = copy.copy(self)
        engine.num_streams, engine._idle = 1, {}
        return engine.for_batch_size(1)

    def _prepared(self, size: int) -> "SimpleQueue[openvino.InferRequest]":
        """Idle requests for batches of this size; its graph is compiled at the first call."""
        if size not in self._idle:
            with _PREPARING:
                if size not in self._idle:
                    _make_first_call()
                    self._idle[size] = self._compiled(size)
        return self._idle[size]

    def _compiled(self, size: int) -> "SimpleQueue[openvino.InferRequest]":
        graph = self._network.clone()
        if size != _ANY:
            _, *shape = graph.input("images").partial_shape
            graph.reshape([size, *shape])
        # With int8 also for what is not quantised.
        halves = self._precision == "bf16" or (self._precision == "int8" and has_bf16())
        properties = {
            "INFERENCE_PRECISION_HINT": "bf16" if halves else "f32",
            "NUM_STREAMS": self.num_streams,
            "INFERENCE_NUM_THREADS": self._num_threads,
            "ENABLE_CPU_PINNING": False,  # decode threads and other workers use the same cores
        }
        with signal_stack_kept():
            compiled = openvino.Core().compile_model(graph, "CPU", properties)
        requests: SimpleQueue[openvino.InferRequest] = SimpleQueue()
        for _ in range(self.num_streams):
            requests.put(compiled.create_infer_request())
        return requests


def has_bf16() -> bool:
    """Whether this CPU has instructions for bfloat16."""
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@functools.cache
def _make_first_call() -> None:
    """Call an empty graph while no other thread can call one.

    OpenVINO 2026.4 initialises tables of types in its first call. It deadlocks if two threads make that call at the
    same time: each waits for a lock of the other, one of them for Python's.
    """
    number = opset13.parameter([1], np.uint8, name="images")
    graph = openvino.Model([opset13.relu(opset13.convert(number, "f32"))], [number])
    with signal_stack_kept():
        nothing = openvino.Core().compile_model(graph, "CPU")
    nothing.create_infer_request().infer({"images": np.zeros(1, np.uint8)}, share_inputs=True)
