"""Weight images: the perceptron's weights laid out as the image they weigh."""

# Shapes: L labels, H height, W width, C channels.
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from modeling.errors import ModelingError
from modeling.explain.layers import device_of, watching
from modeling.explain.pixel_space import normalised
from modeling.images.preprocessing import Preprocessing


@dataclass(frozen=True, slots=True, eq=False)
class WeightImages:
    """What each pixel says for and against each label.

    weights_LHWC: by how much a label's logit grows when that pixel goes from black to white, all others as
        they are. This is denormalised: the network's own weight divided by the preprocessing's std.
    bias_L: the logits of an all-black image, the preprocessing's mean taken in.
    """

    weights_LHWC: NDArray[np.float32]
    bias_L: NDArray[np.float32]


def is_one_dense_layer(network: nn.Module) -> bool:
    """Whether a dense layer is all that the network has learned: whether each label has one weight a pixel."""
    learned = [module for module in network.modules() if next(module.parameters(recurse=False), None) is not None]
    return len(learned) == 1 and isinstance(learned[0], nn.Linear)


def weight_images(network: nn.Module, preprocessing: Preprocessing) -> WeightImages:
    """The weights of a network of one dense layer, in pixel space.

    They are read off as the derivative of the logits, so it does not matter how the network orders pixels.

    Raises:
        ModelingError: a network of more than one layer, whose pixels have no fixed weight.
    """
    if not is_one_dense_layer(network):
        raise ModelingError("only a network of one dense layer (a perceptron) has weight images")
    black_1CHW = torch.zeros((1, preprocessing.channels, preprocessing.height, preprocessing.width))
    black_1CHW = black_1CHW.to(device_of(network)).requires_grad_()
    with watching(network):
        bias_L = network(normalised(black_1CHW, preprocessing))[0]
        rows = [torch.autograd.grad(logit, black_1CHW, retain_graph=True)[0][0] for logit in bias_L]
    weights_LHWC = torch.stack(rows).permute(0, 2, 3, 1).contiguous()
    return WeightImages(weights_LHWC.cpu().numpy(), bias_L.detach().cpu().numpy())
