"""How many images a forward and backward pass may take at once: as many as fit in memory."""

# Shapes: B images, C channels, H height, W width.
import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import torch
from torch import Tensor, nn

from modeling.errors import ModelingError
from modeling.training.fit.autotune import step_seconds
from modeling.training.fit.plan import Plan, autocast

_SHARE = 0.7  # of the memory that is left; the rest is for decoded images and whoever else runs
_COPIES = 4  # of the weights: themselves, gradients, optimizer, average
_TEMPORARY = 2.0  # a backward pass needs about as much as the forward pass keeps for it
_CGROUP = Path("/sys/fs/cgroup")


def fit_memory(network: nn.Module, plan: Plan, batch_of: Callable[[int], Tensor]) -> Plan:
    """The plan with a micro-batch whose step fits in memory: halved until it does.

    batch_of: normalised images BCHW on the device, as many as asked for.

    Raises:
        ModelingError: not even one image fits.
    """
    size = plan.micro_batch
    while True:
        try:
            step_seconds(network, replace(plan, micro_batch=size), batch_of(size), repeats=1)
        except (torch.OutOfMemoryError, MemoryError) as err:
            if size == 1:
                raise ModelingError("one image does not fit in memory; give a smaller --image-size") from err
            size = max(1, size // 2)
            torch.cuda.empty_cache()
            continue
        return replace(plan, micro_batch=size)


def fit_cpu_memory(network: nn.Module, plan: Plan, images_BCHW: Tensor) -> Plan:
    """The plan with a micro-batch that fits in the memory that is left, told from what these images need.

    It is not tried: where memory runs short, Linux ends the process instead of refusing.
    """
    image_bytes = _TEMPORARY * kept_bytes(network, plan, images_BCHW) / len(images_BCHW)
    weights = sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())
    room = _SHARE * memory_left() - _COPIES * weights
    size = plan.micro_batch
    while size > 1 and size * image_bytes > room:
        size = -(-size // 2)
    return replace(plan, micro_batch=size)


def kept_bytes(network: nn.Module, plan: Plan, images_BCHW: Tensor) -> int:
    """Bytes that a forward pass of these images keeps for the backward pass, the weights not counted."""
    trial = copy.deepcopy(network).train()
    own = {parameter.untyped_storage().data_ptr() for parameter in trial.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, autocast(images_BCHW.device, plan.precision):
        trial(images_BCHW)
    return sum(storage.nbytes() for place, storage in kept.items() if place not in own)


def memory_left() -> int:
    """Bytes that this process may still take: the machine's, or those of its control group if they are fewer."""
    left: int = psutil.virtual_memory().available
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        left = min(left, limit - int((_CGROUP / "memory.current").read_text()))
    except (OSError, ValueError):
        return left  # no control group, or one without a limit
    return max(left, 0)
