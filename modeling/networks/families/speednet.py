"""Two accurate small networks: `speednet` for 32 x 32 colour images and `glyphnet` for 28 x 28 grey images.

speednet follows the CIFAR-10 speed records of Keller Jordan (airbench94, arXiv:2404.00498) and, before him, David
Page: a fixed first layer that whitens 2 x 2 patches, convolutions initialised as identity, batch norm without a gain,
biases with a higher learning rate, scaled logits, and test-time averaging over several views. It is narrower than
theirs, for CPUs.
"""

# Shapes: B images, C channels, H height, W width, L labels, P patches, D numbers in a patch.
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from modeling.errors import ArchitectureError
from modeling.images.preprocessing import Preprocessing

_WIDTHS = (48, 160, 192)
_BIAS_SCALE = 8.0  # biases are stored 8 times smaller, so that SGD changes them 64 times as fast
_LOGIT_SCALE = 1 / 9
_WHITENING_EPS = 5e-4
_GLYPH_WIDTHS = (16, 32, 48, 64, 96)


def speednet(preprocessing: Preprocessing, num_classes: int) -> nn.Module:
    """The network for 32 x 32 colour images; it accepts any size from 16 px."""
    _check_size("speednet", preprocessing, 16)
    return SpeedNet(preprocessing.channels, num_classes)


def glyphnet(preprocessing: Preprocessing, num_classes: int) -> nn.Module:
    """The network for 28 x 28 grey images, such as digits and characters, which must not be mirrored."""
    _check_size("glyphnet", preprocessing, 16)
    return GlyphNet(preprocessing.channels, num_classes)


@contextmanager
def single_view(network: nn.Module) -> Iterator[None]:
    """Make a network that averages several views use only one: several times faster, slightly less accurate."""
    before = {module: module.averages for module in network.modules() if isinstance(module, MultiViewNetwork)}
    for module in before:
        module.averages = False
    try:
        yield
    finally:
        for module, averages in before.items():
            module.averages = averages


class MultiViewNetwork(nn.Module, ABC):
    """A network whose logits in eval mode are the mean over several views of an image."""

    averages = True
    mirrors = False  # whether the mirrored image is also a view

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits BL."""
        if self.training or not self.averages:
            return self.single_view_logits(images_BCHW)
        height, width = images_BCHW.shape[2:]
        padded = functional.pad(images_BCHW, (1, 1, 1, 1), mode="replicate")
        corners = ((0, 0), (2, 2)) if self.mirrors else ((0, 0), (0, 2), (2, 0), (2, 2))
        shifted = [padded[:, :, top : top + height, left : left + width] for top, left in corners]
        shifted_logits = sum((self._mirror_averaged(view) for view in shifted), torch.zeros(()))
        return (self._mirror_averaged(images_BCHW) + shifted_logits / len(corners)) / 2

    def _mirror_averaged(self, images_BCHW: Tensor) -> Tensor:
        if not self.mirrors:
            return self.single_view_logits(images_BCHW)
        return (self.single_view_logits(images_BCHW) + self.single_view_logits(images_BCHW.flip(3))) / 2

    @abstractmethod
    def single_view_logits(self, images_BCHW: Tensor) -> Tensor:
        """Logits BL of one view."""


class SpeedNet(MultiViewNetwork):
    """See the module's docstring. Call `prepare` with training images before the first step."""

    mirrors = True

    def __init__(self, channels: int, num_classes: int, widths: Sequence[int] = _WIDTHS) -> None:
        super().__init__()
        num_patch = 4 * channels
        self.whiten = nn.Conv2d(channels, 2 * num_patch, kernel_size=2, bias=False).requires_grad_(False)
        sizes = (2 * num_patch, *widths)
        groups = [_group(sizes[i], sizes[i + 1]) for i in range(len(widths))]
        self.body = nn.Sequential(*groups)
        self.head = nn.Linear(widths[-1], num_classes)

    @torch.no_grad()
    def prepare(self, images_BCHW: Tensor) -> None:
        """Set the first layer to whiten the 2 x 2 patches of these normalised images; each filter also negated."""
        patches_PD = functional.unfold(images_BCHW, 2).transpose(1, 2).flatten(0, 1).double()
        covariance_DD = patches_PD.T @ patches_PD / len(patches_PD)
        variances_D, vectors_DD = torch.linalg.eigh(covariance_DD.cpu())
        filters_DD = (vectors_DD / (variances_D + _WHITENING_EPS).sqrt()).T.flip(0)
        filters = filters_DD.reshape(-1, *self.whiten.weight.shape[1:]).to(self.whiten.weight)
        self.whiten.weight.copy_(torch.cat([filters, -filters]))

    def single_view_logits(self, images_BCHW: Tensor) -> Tensor:
        """Logits BL of one view."""
        with torch.no_grad():
            patches = functional.gelu(self.whiten(images_BCHW))
        features: Tensor = self.body(patches).amax(dim=(2, 3))  # adaptive pooling is not deterministic on CUDA
        logits_BL: Tensor = self.head(features * _LOGIT_SCALE)
        return logits_BL


class GlyphNet(MultiViewNetwork):
    """Six convolutions with batch norm, pooled three times; its views are shifted by one pixel."""

    def __init__(self, channels: int, num_classes: int, widths: Sequence[int] = _GLYPH_WIDTHS) -> None:
        super().__init__()
        first, second, third, fourth, last = widths
        self.body = nn.Sequential(
            *_convolution(channels, first, kernel_size=5, pooled=True),
            *_convolution(first, second),
            *_convolution(second, third, pooled=True),
            *_convolution(third, fourth),
            *_convolution(fourth, fourth, pooled=True),
            *_convolution(fourth, last),
        )
        self.head = nn.Linear(last, num_classes)

    def single_view_logits(self, images_BCHW: Tensor) -> Tensor:
        """Logits BL of one view."""
        logits_BL: Tensor = self.head(self.body(images_BCHW).amax(dim=(2, 3)))
        return logits_BL


class _FastBiasNorm(nn.BatchNorm2d):
    """Batch norm whose gain stays 1, and whose bias learns 64 times as fast as other weights."""

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features, momentum=0.4)
        self.weight.requires_grad_(False)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Normalise and shift."""
        if self.training:
            assert self.num_batches_tracked is not None
            self.num_batches_tracked.add_(1)
        return functional.batch_norm(
            images_BCHW, self.running_mean, self.running_var, self.weight, self.bias * _BIAS_SCALE,
            self.training, self.momentum or 0.0, self.eps,
        )  # fmt: skip


def _group(num_in: int, num_out: int) -> nn.Module:
    return nn.Sequential(
        _identity_convolution(num_in, num_out),
        nn.MaxPool2d(2),
        _FastBiasNorm(num_out),
        nn.GELU(),
        _identity_convolution(num_out, num_out),
        _FastBiasNorm(num_out),
        nn.GELU(),
    )


def _identity_convolution(num_in: int, num_out: int) -> nn.Conv2d:
    """A convolution whose first filters are initialised to copy their channels."""
    convolution = nn.Conv2d(num_in, num_out, kernel_size=3, padding=1, bias=False)
    with torch.no_grad():
        nn.init.dirac_(convolution.weight[:num_in])
    return convolution


def _convolution(num_in: int, num_out: int, *, kernel_size: int = 3, pooled: bool = False) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Conv2d(num_in, num_out, kernel_size, padding=kernel_size // 2, bias=False)]
    return layers + ([nn.MaxPool2d(2)] if pooled else []) + [nn.BatchNorm2d(num_out), nn.SiLU()]


def _check_size(name: str, preprocessing: Preprocessing, smallest: int) -> None:
    if min(preprocessing.height, preprocessing.width) < smallest:
        found = f"{preprocessing.height} x {preprocessing.width}"
        raise ArchitectureError(f"{name} needs images of at least {smallest} x {smallest} px, not {found}")
