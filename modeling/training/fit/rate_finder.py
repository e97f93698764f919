"""Finding a learning rate by a range test (Smith 2017, arXiv:1506.01186)."""

# Shapes: B images of a batch, H height, W width, C channels.
import copy
import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from modeling.errors import ModelingError
from modeling.training.fit.optimizer import make_optimizer, set_rates
from modeling.training.fit.plan import Plan, autocast

LOWEST, HIGHEST, NUM_STEPS = 1e-6, 3.0, 100
_SMOOTHING = 0.9
_BLOWN_UP = 4.0  # times the lowest smoothed loss: higher rates need no look


def find_learning_rate(network: nn.Module, plan: Plan, batches: Iterator[tuple[Tensor, Tensor]]) -> float:
    """The rate at which the smoothed loss falls most steeply over its logarithm, on a copy of the network.

    batches: (normalised images BCHW, targets B) on the device, up to NUM_STEPS of them.

    Raises:
        ModelingError: the loss falls at no rate.
    """
    trial = copy.deepcopy(network)
    recipe = replace(plan.recipe, learning_rate=HIGHEST)
    optimizer = make_optimizer(trial.train(), replace(plan, recipe=recipe))
    rates: list[float] = []
    losses: list[float] = []
    smoothed = 0.0
    for step, (images_BCHW, targets_B) in enumerate(batches):
        rate = LOWEST * (HIGHEST / LOWEST) ** (step / (NUM_STEPS - 1))
        set_rates(optimizer, rate / HIGHEST)
        with autocast(images_BCHW.device, plan.precision):
            logits_BL = trial(images_BCHW)
        loss = functional.cross_entropy(logits_BL.float(), targets_B)
        smoothed = _SMOOTHING * smoothed + (1 - _SMOOTHING) * loss.item()
        corrected = smoothed / (1 - _SMOOTHING ** (step + 1))
        if not math.isfinite(corrected) or (losses and corrected > _BLOWN_UP * min(losses)):
            break
        rates.append(rate)
        losses.append(corrected)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
        if step + 1 == NUM_STEPS:
            break
    return steepest(rates, losses)


def steepest(rates: list[float], losses: list[float]) -> float:
    """The rate at which the loss falls fastest over the logarithm of the rate.

    Raises:
        ModelingError: it falls nowhere.
    """
    slopes = [(losses[i + 1] - losses[i - 1]) / math.log(rates[i + 1] / rates[i - 1]) for i in range(1, len(rates) - 1)]
    if not slopes or min(slopes) >= 0:
        raise ModelingError("no learning rate makes the loss fall; look at the data, or give --learning-rate a number")
    return float(f"{rates[1 + slopes.index(min(slopes))]:.2g}")
