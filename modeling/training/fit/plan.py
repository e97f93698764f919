"""A run's plan: everything that is decided before its first step, so that a resumed run continues identically."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from modeling.errors import ModelingError
from modeling.networks.recipes import Recipe


class BudgetError(ModelingError):
    """The budget is too small for one epoch."""


Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True, slots=True)
class Plan:
    """The settings of a run.

    micro_batch: images in one forward pass; gradients are accumulated over the micro-batches of a batch.
    precision: of the forward and backward pass (autocast); weights stay float32.
    class_weights: weight of each label's images in the loss, with mean 1 over the images; None: all 1.
    freeze_statistics: BatchNorm keeps its running statistics, as fine-tuning on few images requires.
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


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The autocast context of this precision."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32")


def epochs_in_budget(left_s: float, epoch_s: float, requested: int) -> int:
    """The number of the requested epochs that fit into the remaining budget.

    Raises:
        BudgetError: not even one epoch fits.
    """
    if epoch_s > left_s:
        raise BudgetError(
            f"one epoch takes about {epoch_s:.0f} s here, and {max(0.0, left_s):.0f} s of the budget are left; give "
            f"--budget at least {epoch_s - left_s + 1:.0f} s more, fewer images, or a smaller network"
        )
    return max(1, min(requested, int(left_s / epoch_s)))
