"""Features of many images: what the head of a network is given for each of them, fast and always the same.

Measured with mobilenet_v2 at 224 px on two AVX2 cores, ms of processor time an image (2026-11): torch's own two
threads, batches of 32: 40 to 145, for its threads spin while they wait; one thread for each batch: plain 50,
channels_last with folded normalisation 29, and in batches of 4 to 6 images 16 to 18, because results below 32 MiB
stay in glibc's heap, while larger ones are mapped, zeroed and unmapped by the kernel layer by layer.
"""

# Shapes: N images, B images of a batch, F features, H height, W width, C channels.
import copy
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from modeling.data.images import Images, Indices
from modeling.images.pixels import Pixels
from modeling.networks.build import normalise
from modeling.networks.heads import head_of
from modeling.training.transfer.backbone import Backbone
from modeling.training.transfer.folding import fold_batch_norms, trace
from modeling.training.transfer.threads import one_thread

Features = NDArray[np.float32]
Emit = Callable[[dict[str, object]], None]

_LARGEST_BATCH = 32
_CPU_BYTES = 30 << 20  # of a batch's largest result; from 32 MiB on glibc gives memory back after each layer
_CUDA_BYTES = 1 << 30
_CUDA_BATCH = 128
_CUDA_WORKERS = 2  # one batch is copied while another is computed
_EVENT_EVERY_S = 0.5
_FOLDING_TOLERANCE = 1e-4  # of the largest feature; float32 rounding gives some 1e-6


def extract_features(extractor: "Extractor", images: Images, indices_N: Indices, emit: Emit) -> Features:
    """Features NF of these images, in their order; an image may come twice.

    Every processor core computes batches of its own. A batch is always full (the last one is padded), so the
    features of an image do not depend on how many are wanted with it.

    Events: `{"event": "features", "num_done", "num_images"}` at the end and about twice a second.

    Raises:
        DataError: an image cannot be read.
    """
    features_NF = np.empty((len(indices_N), extractor.num_features), dtype=np.float32)
    num_done, spoke = 0, time.monotonic()
    with one_thread():
        for features_BF in _in_order(extractor, images, indices_N):
            features_NF[num_done : num_done + len(features_BF)] = features_BF
            num_done += len(features_BF)
            if num_done == len(indices_N) or time.monotonic() - spoke > _EVENT_EVERY_S:
                emit({"event": "features", "num_done": num_done, "num_images": len(indices_N)})
                spoke = time.monotonic()
    return features_NF


def _in_order(extractor: "Extractor", images: Images, indices_N: Indices) -> Iterator[Features]:
    """Features of batch after batch; a few batches are computed at once."""
    size = extractor.batch_size
    groups = [indices_N[start : start + size] for start in range(0, len(indices_N), size)]
    waiting: deque[Future[Features]] = deque()
    pool = ThreadPoolExecutor(extractor.num_workers, thread_name_prefix="features")
    try:
        for pixels_BHWC in images.batches(iter(groups)):
            waiting.append(pool.submit(extractor.features, pixels_BHWC))
            if len(waiting) > 2 * extractor.num_workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class Extractor:
    """A copy of a network made for computing features: eval mode, channels last, normalisation folded.

    batch_size: images of a full batch. num_workers: threads that may call `features` at once.
    """

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._local = threading.local()
        self.num_features = backbone.num_features
        on_cuda = backbone.device.type == "cuda"
        self.num_workers = _CUDA_WORKERS if on_cuda else torch.get_num_threads()
        self._network = self._copied()
        with one_thread():
            largest_bytes = self._fold()
        limit, most = (_CUDA_BYTES, _CUDA_BATCH) if on_cuda else (_CPU_BYTES, _LARGEST_BATCH)
        self.batch_size = max(1, min(most, limit // largest_bytes))

    @torch.inference_mode()
    def features(self, pixels_BHWC: Pixels) -> Features:
        """Features BF of up to `batch_size` images; safe to call from several threads."""
        num_images = len(pixels_BHWC)
        if num_images < self.batch_size:
            pixels_BHWC = np.resize(pixels_BHWC, (self.batch_size, *pixels_BHWC.shape[1:]))  # repeats them
        images_BHWC = torch.from_numpy(pixels_BHWC).to(self._backbone.device)
        images_BCHW = normalise(images_BHWC, self._backbone.preprocessing)
        return self._given(images_BCHW)[:num_images].cpu().numpy()

    def _given(self, images_BCHW: Tensor) -> Tensor:
        """What the head is given for normalised images, as vectors BF."""
        self._network(images_BCHW.to(memory_format=torch.channels_last))
        given: Tensor = self._local.given
        self._local.given = None
        return given.mean(dim=(2, 3)) if given.dim() == 4 else given

    def _copied(self) -> nn.Module:
        """A copy of the network, with a hook that keeps what its head is given, apart for each thread."""

        def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self._local.given = inputs[0]

        network = copy.deepcopy(self._backbone.network).eval().requires_grad_(False).to(self._backbone.device)
        head_of(network, self._backbone.architecture).register_forward_pre_hook(keep)
        return network.to(memory_format=torch.channels_last)

    @torch.no_grad()
    def _fold(self) -> int:
        """Fold the normalisations, if features stay the same; returns the bytes of one image's largest result."""
        preprocessing = self._backbone.preprocessing
        pixels_1HWC = np.random.default_rng(0).integers(0, 256, (1, *preprocessing.shape), dtype=np.uint8)
        images_1CHW = normalise(torch.from_numpy(pixels_1HWC).to(self._backbone.device), preprocessing)
        before_1F = self._given(images_1CHW)
        seen = trace(self._network, images_1CHW)
        fold_batch_norms(self._network, seen)
        difference = (self._given(images_1CHW) - before_1F).abs().max()
        if not difference <= _FOLDING_TOLERANCE * before_1F.abs().max():
            self._network = self._copied()  # something else reads a convolution's result as it was
        return seen.largest_bytes
