"""A layer's feature maps of an image, and the places that raise a label's logit (Grad-CAM).

Own code, not captum: panels must repeat to the bit.
"""

# Shapes: B images (here one), C channels, F maps, H and W of the image, h and w of the layer's map, L labels.
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from modeling.explain.layers import in_eval_mode, normalised, run_to_layer, to_maps, to_unit
from modeling.images.preprocessing import Preprocessing


@dataclass(frozen=True, slots=True, eq=False)
class FeatureMaps:
    """A layer's maps of one image, strongest first.

    maps_FHW: the layer's outputs, any sign and size. channels_F: which channel of the layer each map is.
    Strength is a map's mean absolute value.
    """

    layer: str
    maps_FHW: NDArray[np.float32]
    channels_F: NDArray[np.int64]


def feature_maps(
    network: nn.Module, picture_HWC: NDArray[np.uint8], preprocessing: Preprocessing, layer: str
) -> FeatureMaps:
    """The maps of an image at `layer`.

    Raises:
        ModelingError: no such layer (says the nearest names), or one whose output has no places in the image.
    """
    with in_eval_mode(network), torch.no_grad():
        images_1CHW = normalised(to_unit([picture_HWC], network), preprocessing)
        _, output = run_to_layer(network, images_1CHW, layer)
        maps_FHW = to_maps(output, (preprocessing.height, preprocessing.width), layer)[0].float().cpu().numpy()
    order_F = np.argsort(-np.abs(maps_FHW).mean(axis=(1, 2)), kind="stable")
    return FeatureMaps(layer, maps_FHW[order_F], order_F.astype(np.int64))


@dataclass(frozen=True, slots=True, eq=False)
class HeatMap:
    """The places of an image that raise a label's logit.

    heat_HW: in [0, 1] at the image's size, 1 at the strongest place; all 0 where no place raises it.
    cells_hw: the same at the layer's own resolution, before scaling.
    """

    layer: str
    heat_HW: NDArray[np.float32]
    cells_hw: NDArray[np.float32]


def grad_cam(
    network: nn.Module, picture_HWC: NDArray[np.uint8], preprocessing: Preprocessing, layer: str, label: int
) -> HeatMap:
    """The heat map of one image for the label of that index, at `layer`.

    Each map of the layer is weighed by the mean gradient of the label's logit (before the softmax) over the
    map; the sum of the weighed maps, negative places set to zero, is the heat.

    Raises:
        ModelingError: no such layer, or one whose output has no places in the image.
    """
    size = (preprocessing.height, preprocessing.width)
    with in_eval_mode(network):
        images_1CHW = normalised(to_unit([picture_HWC], network), preprocessing).requires_grad_()
        logits_1L, output = run_to_layer(network, images_1CHW, layer)
        gradient = torch.autograd.grad(logits_1L[0, label], output)[0]
    maps_1Fhw, gradients_1Fhw = (to_maps(values.detach().float(), size, layer) for values in (output, gradient))
    weights_1F11 = gradients_1Fhw.mean(dim=(2, 3), keepdim=True)
    cells_11hw = (weights_1F11 * maps_1Fhw).sum(dim=1, keepdim=True).relu()
    cells_11hw = cells_11hw / cells_11hw.max().clamp_min(torch.finfo(torch.float32).tiny)
    heat_HW = functional.interpolate(cells_11hw, size, mode="bilinear", align_corners=False)[0, 0]
    heat_HW = heat_HW / heat_HW.max().clamp_min(torch.finfo(torch.float32).tiny)
    return HeatMap(layer, heat_HW.cpu().numpy(), cells_11hw[0, 0].cpu().numpy())
