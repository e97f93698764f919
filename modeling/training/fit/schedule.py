"""How the learning rate goes, and the seeds of chance, as functions of the step: nothing to save or restore."""

import math
from typing import Literal

import torch

Decay = Literal["linear", "cosine"]

_MASK = (1 << 64) - 1
_FIRST = 0.2  # of the peak: where the warm-up begins


def learning_rate_factor(step: int, num_steps: int, *, warmup: float, decay: Decay, floor: float = 0.0) -> float:
    """The factor in [0, 1] on the peak learning rate at `step` (from 0) of `num_steps`.

    Rises linearly over the first `warmup` (a share of all steps), then falls to `floor`.
    """
    position = (step + 0.5) / max(num_steps, 1)
    if position < warmup:
        return _FIRST + (1 - _FIRST) * position / warmup
    left = min(1.0, max(0.0, (1 - position) / (1 - warmup)))
    falling = left if decay == "linear" else 0.5 - 0.5 * math.cos(math.pi * left)
    return floor + (1 - floor) * falling


def seed_of(seed: int, *place: int) -> int:
    """A seed for one place in a run (an epoch, a step), far from those of its neighbours.

    splitmix64 (Steele, Lea and Flood 2014) over the numbers in turn.
    """
    state = _mix(seed & _MASK)
    for number in place:
        state = _mix((state + number + 0x9E3779B97F4A7C15) & _MASK)
    return state >> 1  # torch takes 63 bits


def seed_network(device: torch.device, seed: int) -> None:
    """Seed the chance of dropout and the like; torch.manual_seed takes a millisecond where CUDA is not in use."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def _mix(value: int) -> int:
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
