"""Completes the plan of a run by measurements, and runs it."""

# Shapes: B images of a batch, H height, W width, C channels.
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from modeling.data.images import DecodedImages
from modeling.errors import ModelingError
from modeling.images.progress import Emit, quiet_phase
from modeling.networks.architectures import get_architecture
from modeling.networks.augmentation import BatchPosition, augment
from modeling.networks.build import normalise
from modeling.networks.recipes import Recipe
from modeling.training.fit.autotune import fastest_plan, step_seconds, within_cpu_memory, within_memory
from modeling.training.fit.budget import BudgetClock
from modeling.training.fit.checkpoint import Checkpoints
from modeling.training.fit.inputs import AnyImages, DeviceImages, FitInputs, FitResult, to_device
from modeling.training.fit.loop import TrainingLoop
from modeling.training.fit.machine import Machine, differences
from modeling.training.fit.optimizer import NUM_STEPS, find_learning_rate, seed_of
from modeling.training.fit.plan import BudgetError, Plan, epochs_in_budget
from modeling.training.fit.ranks import Ranks
from modeling.training.request import TrainRequest
from modeling.training.transfer.backbone import weights_digest

IMBALANCED = 3.0  # ratio of largest to smallest class from which rare classes get higher weights
_RATE_SEARCH = 4  # random stream of the learning rate search, distinct from those of the loop
_NUM_TIMED = 8  # photographs for timing a step on a CPU; on a GPU the full micro-batch is timed
_DEVICE_SHARE = 0.5  # of the device's free memory that the images may use
_VOLATILE = (
    "output", "work", "attempt", "cache", "engines", "device", "max_error", "int8", "weights", "weights_pin", "chosen",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RunContext:
    """The context of a run: request, device, ranks and event callback.

    stage: distinguishes the runs of one request (scratch, fine-tune). budget: None: no limit.
    """

    request: TrainRequest
    device: torch.device
    ranks: Ranks
    emit: Emit
    stage: str
    machine: Machine
    budget: BudgetClock | None = None

    def checkpoints(self, run: str) -> Checkpoints | None:
        """The checkpoints of this stage; None if the request has no work folder."""
        work = self.request.work
        return None if work is None else Checkpoints(work, self.stage, run=run, attempt=self.request.attempt)

    def note(self, text: str) -> None:
        """Emit a note for people."""
        self.emit({"event": "note", "text": text})

    def warn(self, text: str) -> None:
        """Emit a warning, which is also shown at the end."""
        self.emit({"event": "warning", "text": text})


def fit_network(context: RunContext, network: nn.Module, inputs: FitInputs, plan: Plan) -> tuple[Plan, FitResult]:
    """Complete the plan, then train; resumes from the stage's checkpoint if there is one.

    Raises:
        ModelingError: the budget is too small for one epoch, nothing fits in memory, or the training diverged.
    """
    run = fingerprint(context, inputs, network)
    network = network.to(context.device)
    with torch.random.fork_rng(devices=[context.device] if context.device.type == "cuda" else []):
        complete = _shared_plan(
            context.ranks,
            lambda: _saved_plan(context, network, inputs, run) or complete_plan(context, network, inputs, plan),
        )
    images = _on_device(inputs.images, context.device)
    train_images = images if inputs.train_images is inputs.images else _on_device(inputs.train_images, context.device)
    loop = TrainingLoop(
        network,
        replace(inputs, images=images, train_images=train_images),
        complete,
        seed=context.request.seed,
        device=context.device,
        ranks=context.ranks,
        checkpoints=context.checkpoints(run),
        machine=context.machine,
        budget_is_over=context.budget.is_over if context.budget else None,
    )
    return complete, loop.run(lambda event: context.emit({"stage": context.stage, **event}))


def _shared_plan(ranks: Ranks, find: Callable[[], Plan]) -> Plan:
    """The first process's plan (or error) for all processes: own plans would differ, because they depend on timing."""
    found: dict[str, Any] = {}
    if ranks.is_leader:
        try:
            found = {"plan": find().to_json()}
        except ModelingError as err:
            if ranks.size == 1:
                raise
            found = {"error": str(err), "budget": isinstance(err, BudgetError)}
    found = json.loads(ranks.broadcast_text(json.dumps(found)))
    if "error" in found:
        raise (BudgetError if found["budget"] else ModelingError)(found["error"])
    return Plan.from_json(found["plan"])


def complete_plan(context: RunContext, network: nn.Module, inputs: FitInputs, plan: Plan) -> Plan:
    """Complete the plan by measuring precision, micro-batch, learning rate and number of epochs."""
    quiet_phase(context.emit, "measuring what is fastest here")
    request, architecture = context.request, get_architecture(context.request.architecture)
    on_cuda = context.device.type == "cuda"
    plan = _fit_memory(context, network, inputs, plan)
    if not request.deterministic:
        few = architecture.family == "torchvision" and not on_cuda
        size = min(_NUM_TIMED, plan.micro_batch) if few else plan.micro_batch
        images_BCHW, _ = _sample(context, inputs, plan, size)
        num_steps = plan.recipe.epochs * -(-len(inputs.split.train) // size)
        plan = fastest_plan(network, plan, images_BCHW, num_steps, request.cache, on_note=context.note)
    if request.learning_rate == "auto":
        torch.manual_seed(seed_of(request.seed, _RATE_SEARCH))  # for dropout, independent of previous trials
        rate = find_learning_rate(network, plan, _samples(context, inputs, plan))
        context.note(f"learning rate {rate:g} found by a range test")
        plan = replace(plan, recipe=replace(plan.recipe, learning_rate=rate))
    if context.budget is not None:
        plan = _limit_epochs(context, network, inputs, plan, context.budget.left_s)
    return plan


def _fit_memory(context: RunContext, network: nn.Module, inputs: FitInputs, plan: Plan) -> Plan:
    """The plan with a micro-batch for which the memory suffices."""
    requested = plan.micro_batch
    if context.device.type == "cuda":
        plan = within_memory(network, plan, lambda size: _sample(context, inputs, plan, size)[0])
    else:
        plan = within_cpu_memory(network, plan, _sample(context, inputs, plan, 2)[0])  # batch norm needs two
    if plan.micro_batch < requested:
        images = "1 image" if plan.micro_batch == 1 else f"{plan.micro_batch} images"
        context.note(f"memory is low: micro-batches of {images}; a step still uses {requested}")
    return plan


def _limit_epochs(context: RunContext, network: nn.Module, inputs: FitInputs, plan: Plan, left_s: float) -> Plan:
    """The plan with as many epochs as the budget allows, estimated from the measured time of a step."""
    size = plan.micro_batch if context.device.type == "cuda" else min(_NUM_TIMED, plan.micro_batch)
    images_BCHW, _ = _sample(context, inputs, plan, size)
    train_s = step_seconds(network, plan, images_BCHW) / len(images_BCHW) * len(inputs.split.train)
    epoch_s = (train_s + train_s / 3 * len(inputs.split.validation) / len(inputs.split.train)) / context.ranks.size
    epochs = epochs_in_budget(left_s, epoch_s * 1.15, plan.recipe.epochs)  # decoding, optimizer
    if epochs < plan.recipe.epochs:
        context.note(f"{epochs} epochs of {plan.recipe.epochs} fit into the {left_s:.0f} s that are left")
    return replace(plan, recipe=replace(plan.recipe, epochs=epochs))


def recipe_of(request: TrainRequest, base: Recipe) -> Recipe:
    """The recipe with the request's overrides."""
    rate = base.learning_rate if request.learning_rate in (None, "auto") else float(request.learning_rate)
    epochs, batch_size = request.epochs or base.epochs, request.batch_size or base.batch_size
    return replace(base, epochs=epochs, batch_size=batch_size, learning_rate=rate)


def class_weights(targets_M: np.ndarray[Any, np.dtype[np.int64]], num_classes: int) -> tuple[float, ...] | None:
    """Weights of the classes in the loss if one has at least three times the images of another; else None.

    Proportional to the inverse square root of the count, between no and full correction, with mean 1 over the images.
    """
    counts_L = np.bincount(targets_M, minlength=num_classes).astype(np.float64)
    if counts_L.max() < IMBALANCED * counts_L.min():
        return None
    weights_L = np.sqrt(counts_L.mean() / np.maximum(counts_L, 1))
    weights_L /= (weights_L * counts_L).sum() / counts_L.sum()
    return tuple(round(float(weight), 6) for weight in weights_L)


def fingerprint(context: RunContext, inputs: FitInputs, network: nn.Module) -> str:
    """A digest of request, images and initial weights: equal for runs that must end with the same weights."""
    request = {name: value for name, value in context.request.to_json().items() if name not in _VOLATILE}
    digest = hashlib.sha256(json.dumps([context.stage, request], sort_keys=True).encode())
    digest.update(json.dumps(inputs.preprocessing.to_json()).encode())
    for part in (inputs.split.train, inputs.split.validation, inputs.targets_N):
        digest.update(part.tobytes())
    digest.update(inputs.contents.encode())
    if context.request.weights is not None:  # what counts is what they hold, not where they lie
        digest.update(weights_digest(network, context.request.architecture).encode())
    return digest.hexdigest()


def _saved_plan(context: RunContext, network: nn.Module, inputs: FitInputs, run: str) -> Plan | None:
    """The plan of the checkpoint to resume from; on another kind of machine, its micro-batch must fit there, too."""
    checkpoints = context.checkpoints(run)
    state = checkpoints.load(context.warn) if checkpoints is not None else None
    if state is None:
        return None
    plan = Plan.from_json(state["plan"])
    if state["machine"] and differences(Machine(**state["machine"]), context.machine):
        return _fit_memory(context, network, inputs, plan)
    return plan


def _on_device(images: AnyImages, device: torch.device) -> AnyImages:
    """Images in memory as one tensor on the device, if they fit there."""
    if not isinstance(images, DecodedImages):
        return images
    if device.type == "cuda" and images.pixels_MHWC.nbytes > _DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]:
        return images
    return DeviceImages(images, device)


def _sample(context: RunContext, inputs: FitInputs, plan: Plan, size: int) -> tuple[Tensor, Tensor]:
    """A random augmented batch with targets, on the device; an image may occur more than once."""
    return next(_samples(context, inputs, plan, size))


def _samples(
    context: RunContext, inputs: FitInputs, plan: Plan, size: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Random augmented batches with their targets."""
    generator = np.random.default_rng(seed_of(context.request.seed, _RATE_SEARCH))
    preprocessing = inputs.preprocessing
    index_batches = [
        generator.choice(inputs.split.train, size or plan.micro_batch) for _ in range(1 if size else NUM_STEPS)
    ]
    batches: Iterator[Any] = iter(inputs.train_images.batches(iter(index_batches)))
    for number, (indices_B, pixels) in enumerate(zip(index_batches, batches, strict=True)):
        chance = torch.Generator().manual_seed(seed_of(context.request.seed, _RATE_SEARCH, number))
        images_BCHW = normalise(to_device(pixels, context.device), preprocessing)
        place = BatchPosition(torch.from_numpy(indices_B), 0, chance)
        shape = (preprocessing.height, preprocessing.width)
        images_BCHW = augment(images_BCHW, plan.recipe.augmentation, place, size=shape)
        yield images_BCHW, torch.from_numpy(inputs.targets_N[indices_B]).to(context.device)
