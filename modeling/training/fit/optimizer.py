"""The optimizer of a recipe, and which weights decay."""

from typing import Any

import torch
from torch import nn

from modeling.training.fit.plan import Plan


def make_optimizer(network: nn.Module, plan: Plan) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, or AdamW; each group keeps its peak learning rate as `peak`.

    Weight decay falls on matrices and filters alone: biases, norms and other vectors are left free, as is usual
    since Goyal et al. 2017.
    """
    recipe = plan.recipe
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    listed: list[dict[str, Any]] = [
        {"params": [parameter for parameter in trained if parameter.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer: torch.optim.Optimizer
    if recipe.optimizer == "sgd":
        optimizer = torch.optim.SGD(
            listed, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=True, fused=True
        )
    else:
        optimizer = torch.optim.AdamW(listed, lr=recipe.learning_rate, betas=(0.9, 0.99), fused=True)
    for group in optimizer.param_groups:
        group["peak"] = group["lr"]
    return optimizer


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's learning rate to a share of its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
