"""Settling a plan for a network and its data, and carrying it out: from a request to a fitted network."""

# Shapes: B images of a batch, H height, W width, C channels.
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from modeling.data.images import DecodedImages
from modeling.errors import ModelFormatError, ModelingError
from modeling.images.progress import Emit
from modeling.networks.architectures import get_architecture
from modeling.networks.augmentation import BatchPosition, augment
from modeling.networks.build import normalise
from modeling.networks.recipes import Recipe
from modeling.training.fit.autotune import fastest_plan, step_seconds, within_cpu_memory, within_memory
from modeling.training.fit.checkpoint import load_checkpoint
from modeling.training.fit.loop import Fitting
from modeling.training.fit.optimizer import NUM_STEPS, find_learning_rate, seed_of
from modeling.training.fit.plan import BudgetError, Plan, epochs_in_budget
from modeling.training.fit.ranks import Ranks
from modeling.training.fit.task import AnyImages, DeviceImages, Fitted, Task, to_device
from modeling.training.request import TrainRequest
from modeling.training.transfer.backbone import weights_digest

IMBALANCED = 3.0  # largest class to smallest, from which rare classes count more
_RATE_SEARCH = 4  # stream of chance of the learning rate's search, beside those of the loop
_FEW = 8  # photographs that time a step on a CPU; a GPU is timed at its full micro-batch
_DEVICE_SHARE = 0.5  # of the device's free memory that the images may take
_VOLATILE = ("output", "work", "cache", "device", "max_error", "int8")


@dataclass(frozen=True, slots=True)
class Setting:
    """Where and for whom a run is made.

    stage: tells runs of one request apart (scratch, fine-tune). deadline: when it is to be over, by
        time.monotonic(); None: whenever.
    """

    request: TrainRequest
    device: torch.device
    ranks: Ranks
    emit: Emit
    stage: str
    deadline: float | None = None

    @property
    def checkpoint(self) -> Path | None:
        """Where this stage saves, if the request says where."""
        work = self.request.work
        return None if work is None else work / f"{self.stage}.checkpoint"

    def note(self, text: str) -> None:
        """Tell people what they may want to know."""
        self.emit({"event": "note", "text": text})


def fit_network(setting: Setting, network: nn.Module, task: Task, plan: Plan) -> tuple[Plan, Fitted]:
    """Settle what the plan leaves open, then fit; goes on from the stage's checkpoint where there is one.

    Raises:
        ModelingError: the budget is too small for one epoch, nothing fits in memory, or the training diverged.
    """
    run = fingerprint(setting, task, network)
    network = network.to(setting.device)
    with torch.random.fork_rng(devices=[setting.device] if setting.device.type == "cuda" else []):
        settled = _agreed(setting.ranks, lambda: _saved_plan(setting, run) or settle(setting, network, task, plan))
    images = _on_device(task.images, setting.device)
    train_images = images if task.train_images is task.images else _on_device(task.train_images, setting.device)
    fitting = Fitting(
        network,
        replace(task, images=images, train_images=train_images),
        settled,
        seed=setting.request.seed,
        device=setting.device,
        ranks=setting.ranks,
        checkpoint=setting.checkpoint,
        run=run,
    )
    return settled, fitting.run(lambda event: setting.emit({"stage": setting.stage, **event}))


def _agreed(ranks: Ranks, find: Callable[[], Plan]) -> Plan:
    """The first process's plan, or its mistake, for all: plans of their own would differ, as they hang on clocks."""
    found: dict[str, Any] = {}
    if ranks.leads:
        try:
            found = {"plan": find().to_json()}
        except ModelingError as err:
            if ranks.size == 1:
                raise
            found = {"error": str(err), "budget": isinstance(err, BudgetError)}
    found = json.loads(ranks.say(json.dumps(found)))
    if "error" in found:
        raise (BudgetError if found["budget"] else ModelingError)(found["error"])
    return Plan.from_json(found["plan"])


def settle(setting: Setting, network: nn.Module, task: Task, plan: Plan) -> Plan:
    """The plan with what has to be measured: precision, micro-batch, learning rate and number of epochs."""
    request, architecture = setting.request, get_architecture(setting.request.architecture)
    on_cuda = setting.device.type == "cuda"
    wanted = plan.micro_batch
    if on_cuda:
        plan = within_memory(network, plan, lambda size: _sample(setting, task, plan, size)[0])
    else:
        plan = within_cpu_memory(network, plan, _sample(setting, task, plan, 2)[0])  # batch norm wants two
    if plan.micro_batch < wanted:
        images = "1 image" if plan.micro_batch == 1 else f"{plan.micro_batch} images"
        setting.note(f"{images} at a time, as memory is short; a step is made of {wanted} all the same")
    if not request.deterministic:
        few = architecture.family == "torchvision" and not on_cuda
        size = min(_FEW, plan.micro_batch) if few else plan.micro_batch
        images_BCHW, _ = _sample(setting, task, plan, size)
        num_steps = plan.recipe.epochs * -(-len(task.split.train) // size)
        plan = fastest_plan(network, plan, images_BCHW, num_steps, request.cache, tell=setting.note)
    if request.learning_rate == "auto":
        torch.manual_seed(seed_of(request.seed, _RATE_SEARCH))  # dropout, whatever the trials before drew
        rate = find_learning_rate(network, plan, _samples(setting, task, plan))
        setting.note(f"learning rate {rate:g} found by a range test")
        plan = replace(plan, recipe=replace(plan.recipe, learning_rate=rate))
    if setting.deadline is not None:
        plan = _within_budget(setting, network, task, plan, setting.deadline)
    return plan


def _within_budget(setting: Setting, network: nn.Module, task: Task, plan: Plan, deadline: float) -> Plan:
    """The plan with as many epochs as there is time for, by the measured time of a step."""
    size = plan.micro_batch if setting.device.type == "cuda" else min(_FEW, plan.micro_batch)
    images_BCHW, _ = _sample(setting, task, plan, size)
    train_s = step_seconds(network, plan, images_BCHW) / len(images_BCHW) * len(task.split.train)
    epoch_s = (train_s + train_s / 3 * len(task.split.validation) / len(task.split.train)) / setting.ranks.size
    left_s = deadline - time.monotonic()
    epochs = epochs_in_budget(left_s, epoch_s * 1.15, plan.recipe.epochs)  # decoding, optimizer
    if epochs < plan.recipe.epochs:
        setting.note(f"{epochs} epochs of {plan.recipe.epochs} fit into the {left_s:.0f} s that are left")
    return replace(plan, recipe=replace(plan.recipe, epochs=epochs))


def recipe_of(request: TrainRequest, base: Recipe) -> Recipe:
    """The recipe with what the request says otherwise."""
    rate = base.learning_rate if request.learning_rate in (None, "auto") else float(request.learning_rate)
    return replace(
        base,
        epochs=request.epochs or base.epochs,
        batch_size=request.batch_size or base.batch_size,
        learning_rate=rate,
    )


def class_weights(targets_M: np.ndarray[Any, np.dtype[np.int64]], num_classes: int) -> tuple[float, ...] | None:
    """Weights of the classes in the loss where one has three times the images of another; else None.

    By the root of the inverse count, between none and full correction, with mean 1 over the images.
    """
    counts_L = np.bincount(targets_M, minlength=num_classes).astype(np.float64)
    if counts_L.max() < IMBALANCED * counts_L.min():
        return None
    weights_L = np.sqrt(counts_L.mean() / np.maximum(counts_L, 1))
    weights_L /= (weights_L * counts_L).sum() / counts_L.sum()
    return tuple(round(float(weight), 6) for weight in weights_L)


def fingerprint(setting: Setting, task: Task, network: nn.Module) -> str:
    """The same for two runs that are to end with the same weights: request, images, and what they start from."""
    request = {name: value for name, value in setting.request.to_json().items() if name not in _VOLATILE}
    digest = hashlib.sha256(json.dumps([setting.stage, request, version("torch")], sort_keys=True).encode())
    digest.update(json.dumps(task.preprocessing.to_json()).encode())
    for part in (task.split.train, task.split.validation, task.targets_N):
        digest.update(part.tobytes())
    digest.update(task.contents.encode())
    if setting.request.weights is not None:  # a file of that name may hold others now
        digest.update(weights_digest(network, setting.request.architecture).encode())
    return digest.hexdigest()


def _saved_plan(setting: Setting, run: str) -> Plan | None:
    """The plan of the checkpoint to go on from; a damaged one is set aside, and the training starts over."""
    if setting.checkpoint is None:
        return None
    try:
        state = load_checkpoint(setting.checkpoint, run=run)
    except ModelFormatError as err:
        setting.note(f"{err}; starting over")
        setting.checkpoint.replace(setting.checkpoint.with_suffix(".damaged"))
        return None
    return None if state is None else Plan.from_json(state["plan"])


def _on_device(images: AnyImages, device: torch.device) -> AnyImages:
    """Images in memory as one tensor on the device, where it has room for them."""
    if not isinstance(images, DecodedImages):
        return images
    if device.type == "cuda" and images.pixels_MHWC.nbytes > _DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]:
        return images
    return DeviceImages(images, device)


def _sample(setting: Setting, task: Task, plan: Plan, size: int) -> tuple[Tensor, Tensor]:
    """Some training images, augmented, with their targets, on the device; an image may come more than once."""
    return next(_samples(setting, task, plan, size))


def _samples(setting: Setting, task: Task, plan: Plan, size: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    """Random augmented batches with their targets."""
    generator = np.random.default_rng(seed_of(setting.request.seed, _RATE_SEARCH))
    preprocessing = task.preprocessing
    groups = [generator.choice(task.split.train, size or plan.micro_batch) for _ in range(1 if size else NUM_STEPS)]
    batches: Iterator[Any] = iter(task.train_images.batches(iter(groups)))
    for number, (group, pixels) in enumerate(zip(groups, batches, strict=True)):
        chance = torch.Generator().manual_seed(seed_of(setting.request.seed, _RATE_SEARCH, number))
        images_BCHW = normalise(to_device(pixels, setting.device), preprocessing)
        place = BatchPosition(torch.from_numpy(group), 0, chance)
        shape = (preprocessing.height, preprocessing.width)
        images_BCHW = augment(images_BCHW, plan.recipe.augmentation, place, size=shape)
        yield images_BCHW, torch.from_numpy(task.targets_N[group]).to(setting.device)
