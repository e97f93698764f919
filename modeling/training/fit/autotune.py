"""Finds the fastest precision and memory layout for training on this hardware by timing steps, and caches the result;
and the largest micro-batch that fits in memory.

Half precision on a CPU without instructions for it takes many times longer, and channels-last slows down some networks,
so both are measured. The result is cached per hardware, and the first result is final, so that repeating a request on
the same machine repeats the same run.
"""

# Shapes: B images, C channels, H height, W width.

import copy
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from modeling.durable import STRICT, decode_json, replace_durably, validated
from modeling.errors import ModelFormatError, ModelingError
from modeling.images.quotas import memory_left
from modeling.inference.engines.hardware import hardware_key
from modeling.registry.version_folder import locked
from modeling.training.fit.plan import Plan, Precision, autocast

_MAX_TIMING_S = 2.0
_MAX_FIRST_STEP_S = 0.25  # the time that the first step of a precision may take
_MIN_TIMING_S = 0.05  # total time of short steps; the fastest of many steps is reliable
_MIN_SPEEDUP = 1.15  # smaller speedups may be noise; the plan's own setting is then the safer choice
_SHORT_RUN_S = 10.0  # shorter runs keep their plan: measuring would cost more than it saves


@dataclass(frozen=True, slots=True)
class _Fastest:
    """What was measured, as it is cached."""

    precision: Precision
    channels_last: bool

    __pydantic_config__ = STRICT


def fastest_plan(
    network: nn.Module,
    plan: Plan,
    images_BCHW: Tensor,
    num_steps: int,
    cache: Path | None,
    *,
    on_note: Callable[[str], None],
) -> Plan:
    """The plan with the precision and layout that were fastest when such a run was first measured here.

    images_BCHW: a normalised micro-batch on the device. num_steps: the run's number of steps with that micro-batch.
    cache: a folder; None: no cache. on_note: receives messages about failed measurements and cache writes.
    """
    if cache is None:
        return measure_fastest_plan(network, plan, images_BCHW, num_steps, on_note=on_note)
    path = cache / "autotune" / f"{_key(network, plan, images_BCHW, num_steps)}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.parent):
            if (remembered := _read(path)) is None:
                plan = measure_fastest_plan(network, plan, images_BCHW, num_steps, on_note=on_note)
                remembered = _Fastest(plan.precision, plan.channels_last)
                replace_durably(path, json.dumps(asdict(remembered)).encode())
            return replace(plan, precision=remembered.precision, channels_last=remembered.channels_last)
    except OSError as err:
        on_note(f"the fastest precision cannot be kept in {path.parent} ({err.strerror}); every run measures it")
        return measure_fastest_plan(network, plan, images_BCHW, num_steps, on_note=on_note)


def measure_fastest_plan(
    network: nn.Module, plan: Plan, images_BCHW: Tensor, num_steps: int, *, on_note: Callable[[str], None]
) -> Plan:
    """The plan with the layout, and then the precision, whose steps are clearly faster than the plan's own.

    Runs that take only some seconds keep their plan.
    """
    best, best_s = plan, step_seconds(network, plan, images_BCHW)
    if num_steps * best_s < _SHORT_RUN_S:
        return plan
    half: Precision = "bf16"
    if images_BCHW.device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        half = "fp16"
    changes: list[tuple[str, Any]] = [("channels_last", not plan.channels_last), ("precision", half)]
    if not any(isinstance(layer, nn.Conv2d) for layer in network.modules()):
        del changes[0]  # without convolutions there is no spatial layout
    for name, value in changes:
        candidate = replace(best, **{name: value})
        try:
            seconds = _seconds_unless_slow(network, candidate, images_BCHW, best_s)
        except RuntimeError as err:  # out of memory, or a layer does not support it
            on_note(f"training continues without {name} {value}: {' '.join(str(err).split())[:200]}")
            continue
        if seconds * _MIN_SPEEDUP < best_s:
            best, best_s = candidate, seconds
    return best


def step_seconds(network: nn.Module, plan: Plan, images_BCHW: Tensor, *, repeats: int = 3) -> float:
    """Seconds of the fastest of several forward and backward passes, on a temporary copy of the network."""
    trial = copy.deepcopy(network).train()
    if plan.channels_last:
        trial = trial.to(memory_format=torch.channels_last)
        images_BCHW = images_BCHW.contiguous(memory_format=torch.channels_last)
    times: list[float] = []
    while len(times) < repeats or (repeats > 1 and sum(times) < _MIN_TIMING_S):
        started = time.perf_counter()
        with autocast(images_BCHW.device, plan.precision):
            logits_BL = trial(images_BCHW)
            loss = functional.cross_entropy(logits_BL.float(), logits_BL.argmax(dim=1))
        torch.autograd.backward(loss)
        trial.zero_grad(set_to_none=True)
        if images_BCHW.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
        if sum(times) > _MAX_TIMING_S:
            break  # such long steps need no repetition to be reliable
    return min(times)


def _seconds_unless_slow(network: nn.Module, plan: Plan, images_BCHW: Tensor, best_s: float) -> float:
    """Seconds of a step; only of the first one if that is already much too slow."""
    first_s = step_seconds(network, plan, images_BCHW, repeats=1)
    return first_s if first_s > max(_MAX_FIRST_STEP_S, 3 * best_s) else step_seconds(network, plan, images_BCHW)


def _key(network: nn.Module, plan: Plan, images_BCHW: Tensor, num_steps: int) -> str:
    """A cache key: equal for the same layers, number of steps, image shapes, settings and hardware."""
    layers = [(name, list(weight.shape), weight.requires_grad) for name, weight in network.named_parameters()]
    own = [plan.precision, plan.channels_last, plan.freeze_statistics]
    facts = [hardware_key(images_BCHW.device), list(images_BCHW.shape), num_steps, own, str(network), layers]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _read(path: Path) -> _Fastest | None:
    """The cached result; None if it is missing or not valid."""
    try:
        return validated(_Fastest, decode_json(path.read_bytes(), str(path)), str(path))
    except (OSError, ModelFormatError):
        return None


_SHARE = 0.7  # of the available memory; the rest is for decoded images and other processes
_COPIES = 4  # of the weights: weights, gradients, optimizer state, average
_TEMPORARY = 2.0  # a backward pass needs about as much memory as the forward pass keeps for it


def within_memory(network: nn.Module, plan: Plan, batch_of: Callable[[int], Tensor]) -> Plan:
    """The plan with its micro-batch halved until a step fits in memory.

    batch_of: returns a number of normalised images BCHW on the device.

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
    """The plan with a micro-batch that fits in the available memory, estimated from the memory that these images need.

    It cannot be tried: when memory runs out, Linux kills the process.
    """
    image_bytes = _TEMPORARY * kept_bytes(network, plan, images_BCHW) / len(images_BCHW)
    weights = sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())
    room = _SHARE * memory_left() - _COPIES * weights
    size = plan.micro_batch
    while size > 1 and size * image_bytes > room:
        size = -(-size // 2)
    return replace(plan, micro_batch=size)


def kept_bytes(network: nn.Module, plan: Plan, images_BCHW: Tensor) -> int:
    """Bytes that a forward pass of these images keeps for the backward pass, without the weights."""
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
