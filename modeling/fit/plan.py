"""All that is settled before a run's first step, so that a run that goes on later is the same run."""

# Shapes: B images, C channels, H height, W width.
import copy
import time
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from modeling.errors import ModelingError
from modeling.recipes import Recipe


class BudgetError(ModelingError):
    """A budget too small for one epoch."""


Precision = Literal["fp32", "bf16", "fp16"]

_LONG_S = 2.0
_CLEARLY = 1.15  # faster by less is noise, and full precision is the safer choice


@dataclass(frozen=True, slots=True)
class Plan:
    """How a run goes.

    micro_batch: images in one forward pass; a batch is made of as many as it needs, and steps once.
    precision: of the forward and backward pass (autocast); weights stay float32.
    class_weights: weight of each label's images in the loss, mean 1 over the images; None: all 1.
    freeze_statistics: BatchNorm keeps its running statistics, as fine-tuning on few images needs.
    """

    recipe: Recipe
    micro_batch: int
    precision: Precision = "fp32"
    channels_last: bool = False
    class_weights: tuple[float, ...] | None = None
    freeze_statistics: bool = False

    def to_json(self) -> dict[str, Any]:
        """A dict that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Plan":
        """The reverse of `to_json`."""
        weights = value["class_weights"]
        return cls(
            **value | {"recipe": Recipe(**value["recipe"]), "class_weights": tuple(weights) if weights else None}
        )


def choose_precision(network: nn.Module, plan: Plan, images_BCHW: Tensor) -> Plan:
    """The plan with the precision and memory layout whose steps measure fastest here.

    Half precision on a CPU without instructions for it takes many times longer, so it is timed, never assumed.
    """
    device = images_BCHW.device
    halves: tuple[Precision, ...] = ("bf16",)
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        halves = ("fp16",)
    best, best_s = plan, step_seconds(network, plan, images_BCHW)
    candidates = [replace(plan, channels_last=True)]
    candidates += [replace(plan, channels_last=True, precision=half) for half in halves]
    for candidate in candidates:
        first_s = step_seconds(network, candidate, images_BCHW, repeats=1)
        if first_s > 3 * best_s:
            continue  # hopeless even for a first step
        seconds = step_seconds(network, candidate, images_BCHW)
        if seconds * _CLEARLY < best_s:
            best, best_s = candidate, seconds
    return best


def step_seconds(network: nn.Module, plan: Plan, images_BCHW: Tensor, *, repeats: int = 3) -> float:
    """Seconds of the fastest of some forward and backward passes, on a copy that is thrown away."""
    trial = copy.deepcopy(network).train()
    if plan.channels_last:
        trial = trial.to(memory_format=torch.channels_last)
        images_BCHW = images_BCHW.contiguous(memory_format=torch.channels_last)
    fastest = float("inf")
    begun = time.perf_counter()
    for _ in range(repeats):
        started = time.perf_counter()
        with autocast(images_BCHW.device, plan.precision):
            logits_BL = trial(images_BCHW)
            loss = functional.cross_entropy(logits_BL.float(), logits_BL.argmax(dim=1))
        torch.autograd.backward(loss)
        trial.zero_grad(set_to_none=True)
        if images_BCHW.device.type == "cuda":
            torch.cuda.synchronize()
        fastest = min(fastest, time.perf_counter() - started)
        if time.perf_counter() - begun > _LONG_S:
            break  # what takes so long needs no repeating to be told from noise
    return fastest


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The context that computes in this precision."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32")


def epochs_in_budget(left_s: float, epoch_s: float, wanted: int) -> int:
    """How many of the wanted epochs fit into what is left of a budget.

    Raises:
        BudgetError: not even one.
    """
    if epoch_s > left_s:
        raise BudgetError(
            f"one epoch takes about {epoch_s:.0f} s here, and {max(0.0, left_s):.0f} s of the budget are left; give "
            f"--budget at least {epoch_s - left_s + 1:.0f} s more, fewer images, or a smaller network"
        )
    return max(1, min(wanted, int(left_s / epoch_s)))
