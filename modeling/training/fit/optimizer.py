"""The optimizer of a recipe, its learning rate schedule, averaged weights, and the learning rate range test.

The range test follows Smith 2017 (arXiv:1506.01186). Learning rates and random seeds are functions of the step, so
there is no state to save or restore.

Own schedules, not torch's: a resumed run must repeat to the bit, without a scheduler's state.
"""

# Shapes: B images of a batch, H height, W width, C channels.
import copy
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from modeling.errors import ModelingError
from modeling.training.fit.plain_optimizers import SGD, AdamW
from modeling.training.fit.plan import Plan, autocast


def make_optimizer(network: nn.Module, plan: Plan) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, or AdamW; each group keeps its peak learning rate as `peak`.

    Weight decay applies only to matrices and filters, not to biases, norms and other vectors, as is usual since Goyal
    et al. 2017.
    """
    recipe = plan.recipe
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    listed: list[dict[str, Any]] = [
        {"params": [parameter for parameter in trained if parameter.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer: torch.optim.Optimizer
    if recipe.optimizer == "sgd":
        optimizer = SGD(listed, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=True, fused=True)
    else:
        optimizer = AdamW(listed, lr=recipe.learning_rate, betas=(0.9, 0.99), fused=True)
    for group in optimizer.param_groups:
        group["peak"] = group["lr"]
    return optimizer


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's learning rate to a share of its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor


Decay = Literal["linear", "cosine"]

_MASK = (1 << 64) - 1
_WARMUP_START = 0.2  # of the peak: the start of the warm-up


def learning_rate_factor(step: int, num_steps: int, *, warmup: float, decay: Decay, floor: float = 0.0) -> float:
    """The factor in [0, 1] on the peak learning rate at `step` (from 0) of `num_steps`.

    Rises linearly over the first `warmup` (a share of all steps), then falls to `floor`.
    """
    position = (step + 0.5) / max(num_steps, 1)
    if position < warmup:
        return _WARMUP_START + (1 - _WARMUP_START) * position / warmup
    left = min(1.0, max(0.0, (1 - position) / (1 - warmup)))
    falling = left if decay == "linear" else 0.5 - 0.5 * math.cos(math.pi * left)
    return floor + (1 - floor) * falling


def seed_of(seed: int, *place: int) -> int:
    """A seed for one position in a run (an epoch, a step), unrelated to those of neighbouring positions.

    splitmix64 (Steele, Lea and Flood 2014) over the numbers in order.
    """
    state = _mix(seed & _MASK)
    for number in place:
        state = _mix((state + number + 0x9E3779B97F4A7C15) & _MASK)
    return state >> 1  # torch takes 63 bits


def seed_network(device: torch.device, seed: int) -> None:
    """Seed dropout and other random layers; torch.manual_seed would take a millisecond if CUDA is not used."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def train_mode(network: nn.Module, plan: Plan) -> None:
    """Let the network learn; the statistics of its batch norms stay where the plan freezes them."""
    network.train()
    if plan.freeze_statistics:
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def _mix(value: int) -> int:
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


State = dict[str, Tensor]


class AveragedWeights:
    """`average = decay * average + (1 - decay) * weights`, over weights and buffers (Polyak and Juditsky 1992).

    The decay rises as (1 + n) / (10 + n) with the number n of updates, so that the random initial weights have little
    effect on a short run.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._decay = decay
        self.num_updates = 0
        self.state: State = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module, progress: float) -> None:
        """Update the average with the current weights; `progress` is the finished share of the run."""
        decay = min(self._decay, (1 + self.num_updates) / (10 + self.num_updates))
        self.num_updates += 1
        self._average(network, decay)

    def _average(self, network: nn.Module, decay: float) -> None:
        averages, currents = [], []
        for name, current in network.state_dict().items():
            if current.is_floating_point():
                averages.append(self.state[name])
                currents.append(current.detach())
            else:
                self.state[name].copy_(current)
        torch._foreach_lerp_(averages, currents, 1 - decay)


class Lookahead(AveragedWeights):
    """Every few steps, the average is updated and training continues from it (Zhang et al. 2019).

    The decay rises with the cube of the progress, as in Jordan 2024: the average has more effect late in a run.
    """

    _EVERY = 5

    @torch.no_grad()
    def update(self, network: nn.Module, progress: float) -> None:
        """Every few steps and at the end, update the average and load it into the network."""
        self.num_updates += 1
        if self.num_updates % self._EVERY and progress < 1:
            return
        self._average(network, self._decay**self._EVERY * progress**3)
        network.load_state_dict(self.state)


MIN_RATE, MAX_RATE, NUM_STEPS = 1e-6, 3.0, 100
_SMOOTHING = 0.9
_DIVERGED = 4.0  # times the lowest smoothed loss: higher rates are not tried


def find_learning_rate(network: nn.Module, plan: Plan, batches: Iterator[tuple[Tensor, Tensor]]) -> float:
    """The learning rate, on a logarithmic scale, at which the smoothed loss of a copy of the network falls fastest.

    batches: (normalised images BCHW, targets B) on the device, up to NUM_STEPS of them.

    Raises:
        ModelingError: the loss does not fall at any rate.
    """
    trial = copy.deepcopy(network)
    recipe = replace(plan.recipe, learning_rate=MAX_RATE)
    optimizer = make_optimizer(trial.train(), replace(plan, recipe=recipe))
    rates: list[float] = []
    losses: list[float] = []
    smoothed = 0.0
    for step, (images_BCHW, targets_B) in enumerate(batches):
        rate = MIN_RATE * (MAX_RATE / MIN_RATE) ** (step / (NUM_STEPS - 1))
        set_rates(optimizer, rate / MAX_RATE)
        with autocast(images_BCHW.device, plan.precision):
            logits_BL = trial(images_BCHW)
        loss = functional.cross_entropy(logits_BL.float(), targets_B)
        smoothed = _SMOOTHING * smoothed + (1 - _SMOOTHING) * loss.item()
        corrected = smoothed / (1 - _SMOOTHING ** (step + 1))
        if not math.isfinite(corrected) or (losses and corrected > _DIVERGED * min(losses)):
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
        ModelingError: the loss does not fall at any rate.
    """
    slopes = [(losses[i + 1] - losses[i - 1]) / math.log(rates[i + 1] / rates[i - 1]) for i in range(1, len(rates) - 1)]
    if not slopes or min(slopes) >= 0:
        raise ModelingError("no learning rate makes the loss fall; check the data, or give --learning-rate a number")
    return float(f"{rates[1 + slopes.index(min(slopes))]:.2g}")
