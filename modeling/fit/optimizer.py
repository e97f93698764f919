"""The optimizer of a recipe: which weights decay, and how fast each part of a network learns."""

from typing import Any

import torch
from torch import nn

from modeling.fit.plan import Plan


def make_optimizer(network: nn.Module, plan: Plan, head: nn.Module | None) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, or AdamW; each group keeps its peak learning rate as `peak`.

    Weight decay falls on matrices and filters alone: biases, norms and other vectors are left free, as is usual
    since Goyal et al. 2017.
    """
    recipe = plan.recipe
    head_ids = {id(parameter) for parameter in head.parameters()} if head is not None else set()
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in network.parameters():
        if not parameter.requires_grad:
            continue
        rate = 1.0 if not head_ids or id(parameter) in head_ids else plan.backbone_rate
        decay = recipe.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    listed: list[dict[str, Any]] = [
        {"params": parameters, "lr": recipe.learning_rate * rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]
    optimizer: torch.optim.Optimizer
    if recipe.optimizer == "sgd":
        optimizer = torch.optim.SGD(listed, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=True)
    else:
        optimizer = torch.optim.AdamW(listed, lr=recipe.learning_rate, betas=(0.9, 0.99))
    for group in optimizer.param_groups:
        group["peak"] = group["lr"]
    return optimizer


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's learning rate to a share of its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
