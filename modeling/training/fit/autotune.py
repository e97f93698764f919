"""In which precision and memory layout a network trains fastest here: found by timing steps, and remembered.

Half precision on a CPU without instructions for it takes many times longer, and channels-last slows some networks
down: so both are timed, never assumed. What was found is written down with the hardware's name, and the first to do so
decides for all, so that the same request on the same machine is the same run again.
"""

# Shapes: B images, C channels, H height, W width.

import copy
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch.nn import functional

from modeling.durable import replace_durably
from modeling.errors import ModelingError
from modeling.inference.engines.hardware import hardware_key
from modeling.registry.version_folder import locked
from modeling.training.fit.plan import Plan, Precision, autocast

_LONG_S = 2.0
_FIRST_S = 0.25  # that getting ready for a precision may take
_ENOUGH_S = 0.05  # of short steps: the fastest of many is no noise
_CLEARLY = 1.15  # faster by less is noise, and what the plan says is the safer choice
_SHORT_S = 10.0  # a run that is over by then is left as it is: there is less to win than to measure


def fastest_plan(
    network: nn.Module,
    plan: Plan,
    images_BCHW: Tensor,
    num_steps: int,
    cache: Path | None,
    *,
    tell: Callable[[str], None],
) -> Plan:
    """The plan in the precision and layout whose steps were fastest when such a run was first made here.

    images_BCHW: a micro-batch, normalised, on the device. num_steps: on as many images, that the run has.
    cache: a folder; None: nothing is remembered. tell: told what cannot be measured, or be remembered.
    """
    if cache is None:
        return time_plans(network, plan, images_BCHW, num_steps, tell=tell)
    path = cache / "pace" / f"{_key(network, plan, images_BCHW, num_steps)}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.parent):
            if (remembered := _read(path)) is None:
                plan = time_plans(network, plan, images_BCHW, num_steps, tell=tell)
                remembered = {"precision": plan.precision, "channels_last": plan.channels_last}
                replace_durably(path, json.dumps(remembered).encode())
            return replace(plan, **remembered)
    except OSError as err:
        tell(f"the fastest precision cannot be kept in {path.parent} ({err.strerror}); every run measures it")
        return time_plans(network, plan, images_BCHW, num_steps, tell=tell)


def time_plans(
    network: nn.Module, plan: Plan, images_BCHW: Tensor, num_steps: int, *, tell: Callable[[str], None]
) -> Plan:
    """The plan in the layout, and then in the precision, whose steps measure clearly faster than the plan's own.

    A run of some seconds stays as it is planned.
    """
    best, best_s = plan, step_seconds(network, plan, images_BCHW)
    if num_steps * best_s < _SHORT_S:
        return plan
    half: Precision = "bf16"
    if images_BCHW.device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        half = "fp16"
    changes: list[tuple[str, Any]] = [("channels_last", not plan.channels_last), ("precision", half)]
    if not any(isinstance(layer, nn.Conv2d) for layer in network.modules()):
        del changes[0]  # without places there is no layout
    for name, value in changes:
        candidate = replace(best, **{name: value})
        try:
            seconds = _seconds_if_hopeful(network, candidate, images_BCHW, best_s)
        except RuntimeError as err:  # out of memory, or a layer that lacks it
            tell(f"training goes on without {name} {value}: {' '.join(str(err).split())[:200]}")
            continue
        if seconds * _CLEARLY < best_s:
            best, best_s = candidate, seconds
    return best


def step_seconds(network: nn.Module, plan: Plan, images_BCHW: Tensor, *, repeats: int = 3) -> float:
    """Seconds of the fastest of some forward and backward passes, on a copy that is thrown away."""
    trial = copy.deepcopy(network).train()
    if plan.channels_last:
        trial = trial.to(memory_format=torch.channels_last)
        images_BCHW = images_BCHW.contiguous(memory_format=torch.channels_last)
    times: list[float] = []
    while len(times) < repeats or (repeats > 1 and sum(times) < _ENOUGH_S):
        started = time.perf_counter()
        with autocast(images_BCHW.device, plan.precision):
            logits_BL = trial(images_BCHW)
            loss = functional.cross_entropy(logits_BL.float(), logits_BL.argmax(dim=1))
        torch.autograd.backward(loss)
        trial.zero_grad(set_to_none=True)
        if images_BCHW.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
        if sum(times) > _LONG_S:
            break  # what takes so long needs no repeating to be told from noise
    return min(times)


def _seconds_if_hopeful(network: nn.Module, plan: Plan, images_BCHW: Tensor, best_s: float) -> float:
    """Seconds of a step; of the first one alone where even that is hopelessly long."""
    first_s = step_seconds(network, plan, images_BCHW, repeats=1)
    return first_s if first_s > max(_FIRST_S, 3 * best_s) else step_seconds(network, plan, images_BCHW)


def _key(network: nn.Module, plan: Plan, images_BCHW: Tensor, num_steps: int) -> str:
    """The same for runs as long with networks of the same layers, on the same images and hardware."""
    layers = [(name, list(weight.shape), weight.requires_grad) for name, weight in network.named_parameters()]
    own = [plan.precision, plan.channels_last, plan.freeze_statistics]
    facts = [hardware_key(images_BCHW.device), list(images_BCHW.shape), num_steps, own, str(network), layers]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _read(path: Path) -> dict[str, Any] | None:
    """What was written down, where it can be read and says something that there is."""
    try:
        value = json.loads(path.read_bytes())
        precision, channels_last = value["precision"], value["channels_last"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    usable = precision in ("fp32", "bf16", "fp16") and isinstance(channels_last, bool)
    return {"precision": precision, "channels_last": channels_last} if usable else None


_SHARE = 0.7  # of the memory that is left; the rest is for decoded images and whoever else runs
_COPIES = 4  # of the weights: themselves, gradients, optimizer, average
_TEMPORARY = 2.0  # a backward pass needs about as much as the forward pass keeps for it
_CGROUP = Path("/sys/fs/cgroup")


def within_memory(network: nn.Module, plan: Plan, batch_of: Callable[[int], Tensor]) -> Plan:
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


def within_cpu_memory(network: nn.Module, plan: Plan, images_BCHW: Tensor) -> Plan:
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
