"""A network computed by OpenVINO: on CPUs several times as fast as torch, most of all in bfloat16 and int8."""

# Shapes: B images of a batch, P images of a padded batch, H height, W width, C channels, L labels.
import os
import threading
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import openvino
import torch
from numpy.typing import NDArray
from torch import Tensor

from modeling.engines.engine import padded_size
from modeling.precision import Precision

# OpenVINO 2026.4 makes tables of types ready in its first call, and stands still for good where two threads make that
# call at once: each waits for the other's lock, one for Python's. So the first call is made before there are others.
_ONE_AT_A_TIME = threading.Lock()


class OpenVinoEngine:
    """An ONNX file, `images` in and `logits` out, compiled for this machine's CPU.

    Each core is a stream of its own: batches that do not wait for each other's threads share cores better with
    threads that decode. Batches are padded to a power of two: few shapes to prepare for, and an image that could not
    be read does not change the last digits of its neighbours' scores.
    """

    def __init__(self, network: Path, precision: Precision, *, num_streams: int | None = None) -> None:
        self.name = f"openvino {precision}"
        self.num_streams = num_streams or len(os.sched_getaffinity(0))
        core = openvino.Core()
        halves = precision == "bf16" or (precision == "int8" and has_bf16())  # what is not quantised, too
        compiled = core.compile_model(
            core.read_model(network),
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": "bf16" if halves else "f32",
                "NUM_STREAMS": self.num_streams,
                "INFERENCE_NUM_THREADS": self.num_streams,
                "ENABLE_CPU_PINNING": False,  # decode threads and other workers use the same cores
            },
        )
        self._output = compiled.output("logits")
        self._idle: SimpleQueue[openvino.InferRequest] = SimpleQueue()
        for _ in range(self.num_streams):
            self._idle.put(compiled.create_infer_request())
        _, *shape = compiled.input(0).partial_shape
        with _ONE_AT_A_TIME:
            self.logits(np.zeros((1, *(side.get_length() for side in shape)), np.uint8))

    def logits(self, images_BHWC: NDArray[np.uint8], /) -> Tensor:
        """Logits BL as float32."""
        num_images = len(images_BHWC)
        padding = padded_size(num_images) - num_images
        if padding:
            images_BHWC = np.concatenate([images_BHWC, np.zeros((padding, *images_BHWC.shape[1:]), np.uint8)])
        request = self._idle.get()
        try:
            request.infer({"images": np.ascontiguousarray(images_BHWC)}, share_inputs=True)
            logits_PL = torch.from_numpy(request.get_tensor(self._output).data.copy())
        finally:
            self._idle.put(request)
        return logits_PL[:num_images]


def has_bf16() -> bool:
    """Whether this CPU has instructions for bfloat16."""
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
