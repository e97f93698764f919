"""Computes the features (the inputs of a network's head) of many images, fast and reproducibly.

Measured with mobilenet_v2 at 224 px on two AVX2 cores, in ms of processor time per image (2026-11): torch's own two
threads with batches of 32 take 40 to 145, because its threads spin while they wait. One thread per batch takes 50;
with channels_last and folded normalisation 29; and in batches of 4 to 6 images 16 to 18, because tensors below 32 MiB
stay in glibc's heap, while the kernel maps, zeroes and unmaps larger ones for each layer.
"""

# Shapes: N images, B images of a batch, F features, H height, W width, C channels.
import copy
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils.hooks import RemovableHandle

from modeling.data.images import Images, Indices
from modeling.images.loader import load_ahead
from modeling.images.pixels import Pixels
from modeling.images.progress import Emit, Progress
from modeling.networks.build import normalise
from modeling.networks.heads import head_of
from modeling.training.transfer.backbone import Backbone
from modeling.training.transfer.threads import one_thread


@dataclass(slots=True)
class _Call:
    """Input and output of a layer; kept alive, so that no other tensor gets the same id."""

    input: Tensor
    output: Tensor


@dataclass(slots=True)
class Trace:
    """A trace of one forward pass: calls of convolutions and normalisations, and the size of the largest output."""

    calls: dict[nn.Module, list[_Call]] = field(default_factory=dict)
    largest_bytes: int = 0

    def record(self, layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """Record a call; used as a forward hook."""
        if not isinstance(output, Tensor):
            return
        self.largest_bytes = max(self.largest_bytes, output.numel() * output.element_size())
        if type(layer) in (nn.Conv2d, nn.BatchNorm2d):
            self.calls.setdefault(layer, []).append(_Call(inputs[0], output))


@torch.inference_mode()
def trace(network: nn.Module, images_BCHW: Tensor) -> Trace:
    """Trace a forward pass of these images through the network."""
    seen = Trace()
    handles: list[RemovableHandle] = []
    try:
        handles.extend(layer.register_forward_hook(seen.record) for layer in network.modules())
        network(images_BCHW)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def fold_batch_norms(network: nn.Module, seen: Trace) -> int:
    """Fold every BatchNorm2d whose input is the output of a Conv2d into it, in place; returns their number.

    The network must be in eval mode. Only layers that are called once in a pass are folded. Operations on a
    convolution's output outside of modules are not traced: compare outputs before and after.
    """
    names = {layer: name for name, layer in network.named_modules()}
    producers = {
        id(calls[0].output): layer
        for layer, calls in seen.calls.items()
        if isinstance(layer, nn.Conv2d) and len(calls) == 1
    }
    num_folded = 0
    for norm, calls in seen.calls.items():
        convolution = producers.get(id(calls[0].input)) if len(calls) == 1 else None
        if convolution is not None and isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None:
            _fold(convolution, norm)
            network.set_submodule(names[norm], nn.Identity())
            num_folded += 1
    return num_folded


def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Merge the normalisation into the convolution's weights."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    weight, bias = fuse_conv_bn_weights(
        convolution.weight,
        convolution.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        cast("Tensor | None", norm.weight),
        cast("Tensor | None", norm.bias),
    )
    convolution.weight, convolution.bias = weight, bias


Features = NDArray[np.float32]

_LARGEST_BATCH = 32
_CPU_BYTES = 30 << 20  # of a batch's largest output; from 32 MiB, glibc returns memory to the kernel after each layer
_CUDA_BYTES = 1 << 30
_CUDA_BATCH = 128
_CUDA_WORKERS = 2  # one batch is copied while another is computed
_FOLDING_TOLERANCE = 1e-4  # of the largest feature; float32 rounding causes about 1e-6


def extract_features(extractor: "Extractor", images: Images, indices_N: Indices, emit: Emit) -> Features:
    """Features NF of these images, in order; an image may occur twice.

    Every processor core computes separate batches. A batch is always full (the last one is padded), so the features of
    an image do not depend on the number of images.

    Events: `{"event": "features", "num_done", "num_images"}` at the end and about twice a second.

    Raises:
        DataError: an image cannot be read.
    """
    features_NF = np.empty((len(indices_N), extractor.num_features), dtype=np.float32)
    progress = Progress(lambda done, total: emit({"event": "features", "num_done": done, "num_images": total}))
    num_done = 0
    with one_thread():
        for features_BF in _in_order(extractor, images, indices_N):
            features_NF[num_done : num_done + len(features_BF)] = features_BF
            num_done += len(features_BF)
            progress.update(num_done, len(indices_N))
    return features_NF


def _in_order(extractor: "Extractor", images: Images, indices_N: Indices) -> Iterator[Features]:
    """The features of each batch, in order; several batches are computed concurrently."""
    size = extractor.batch_size
    index_batches = [indices_N[start : start + size] for start in range(0, len(indices_N), size)]
    batches, num_workers = images.batches(iter(index_batches)), extractor.num_workers
    return load_ahead(batches, extractor.features, num_ahead=2 * num_workers, num_threads=num_workers)


class Extractor:
    """A copy of a network for computing features: eval mode, channels last, folded normalisation.

    batch_size: images in a full batch. num_workers: threads that may call `features` concurrently.
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
        """Features BF of up to `batch_size` images; thread-safe."""
        num_images = len(pixels_BHWC)
        if num_images < self.batch_size:
            pixels_BHWC = np.resize(pixels_BHWC, (self.batch_size, *pixels_BHWC.shape[1:]))  # repeats the images
        images_BHWC = torch.from_numpy(pixels_BHWC).to(self._backbone.device)
        images_BCHW = normalise(images_BHWC, self._backbone.preprocessing)
        return self._head_input(images_BCHW)[:num_images].cpu().numpy()

    def _head_input(self, images_BCHW: Tensor) -> Tensor:
        """The head's input for normalised images, as vectors BF."""
        self._network(images_BCHW.to(memory_format=torch.channels_last))
        head_input: Tensor = self._local.head_input
        self._local.head_input = None
        return head_input.mean(dim=(2, 3)) if head_input.dim() == 4 else head_input

    def _copied(self) -> nn.Module:
        """A copy of the network, with a hook that stores the head's input per thread."""

        def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self._local.head_input = inputs[0]

        network = copy.deepcopy(self._backbone.network).eval().requires_grad_(False).to(self._backbone.device)
        head_of(network, self._backbone.architecture).register_forward_pre_hook(keep)
        return network.to(memory_format=torch.channels_last)

    @torch.no_grad()
    def _fold(self) -> int:
        """Fold the normalisations if features stay the same; returns the bytes of one image's largest output."""
        preprocessing = self._backbone.preprocessing
        pixels_1HWC = np.random.default_rng(0).integers(0, 256, (1, *preprocessing.shape), dtype=np.uint8)
        images_1CHW = normalise(torch.from_numpy(pixels_1HWC).to(self._backbone.device), preprocessing)
        before_1F = self._head_input(images_1CHW)
        seen = trace(self._network, images_1CHW)
        fold_batch_norms(self._network, seen)
        difference = (self._head_input(images_1CHW) - before_1F).abs().max()
        if not difference <= _FOLDING_TOLERANCE * before_1F.abs().max():
            self._network = self._copied()  # something else uses a convolution's original output
        return seen.largest_bytes
