"""Feature maps: what a layer makes of an image."""

# Shapes: F maps, H height, W width, C channels.
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from modeling.explain.layers import run_to_layer, to_maps, watching
from modeling.explain.pixel_space import normalised, to_unit
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
    """The maps that `layer` makes of an image.

    Raises:
        ModelingError: no such layer (says the nearest names), or one whose output has no places in the image.
    """
    with watching(network), torch.no_grad():
        images_1CHW = normalised(to_unit([picture_HWC], network), preprocessing)
        _, output = run_to_layer(network, images_1CHW, layer)
        maps_FHW = to_maps(output, (preprocessing.height, preprocessing.width), layer)[0].float().cpu().numpy()
    order_F = np.argsort(-np.abs(maps_FHW).mean(axis=(1, 2)), kind="stable")
    return FeatureMaps(layer, maps_FHW[order_F], order_F.astype(np.int64))
