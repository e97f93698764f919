"""Training: from a request to a model in a folder.

The same request on the same machine gives the same weights, bit for bit on a CPU, even if the run was interrupted and
resumed, also on another machine of the same kind: batch, precision and number of threads are those of the first
attempt. Exceptions depend on the clock: a budget, and the choice of a precision, which the request's cache stores. So
does the engine that answers the test part, and with it the last digits of the card's metrics. `deterministic` excludes
all of that.
"""

# Shapes: M chosen images.
import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modeling.data.dataset import abbreviate
from modeling.data.images import Indices
from modeling.images.preprocessing import Preprocessing
from modeling.images.progress import Emit, quiet_phase, signs_of_life
from modeling.networks.architectures import Architecture, get_architecture
from modeling.networks.build import build_network, normalise, select_device
from modeling.networks.families.speednet import SpeedNet
from modeling.networks.recipes import adapt_recipe
from modeling.registry.card import ModelCard
from modeling.training.attempt import check_last
from modeling.training.data import TrainingData, channel_statistics, choose_preprocessing, load_data, make_fit_inputs
from modeling.training.fit.budget import BudgetClock
from modeling.training.fit.history import EpochRow, History
from modeling.training.fit.inputs import FitInputs, compute_logits
from modeling.training.fit.machine import this_machine, use_first_threads
from modeling.training.fit.plan import Plan
from modeling.training.fit.ranks import join_ranks, leave_ranks, local_device
from modeling.training.fit.trainer import RunContext, class_weights, fit_network, recipe_of
from modeling.training.model_folder import TrainedNetwork, calibrate_and_test, check_output, make_model, write_model
from modeling.training.request import TrainRequest

NUM_WHITENING_IMAGES = 5000  # for fitting speednet's first layer


def train(request: TrainRequest, emit: Emit) -> ModelCard:
    """Train as requested and write the model to the folder `request.output`.

    `emit` receives events as they happen: `scan`, `data`, `decode`, `features`, `probe`, `epoch`, `note`, `model`.

    Raises:
        ModelingError: the data, the weights, the device, the budget or the output folder cannot be used, or the
            training diverged.
        SupersededError: a later attempt works on this training.
    """
    check_output(request.output)
    check_last(request.attempt)
    device = local_device(select_device(request.device))
    ranks = join_ranks(device)
    history = History(request.work if ranks.is_leader else None, emit if ranks.is_leader else lambda event: None)
    first = ["modeling.networks.torchvision_networks"] if request.weights else []
    _import_in_background([*first, "matplotlib.figure", "matplotlib.backends.backend_agg"])
    try:
        with deterministic_kernels(request.deterministic):
            machine = use_first_threads(request.work, this_machine(device, ranks.size))
            data = load_data(request, history, keep=ranks.is_leader)
            budget = None
            if request.budget_s is not None:
                budget = BudgetClock(request.budget_s, request.work if ranks.is_leader else None, request.attempt)
            context = RunContext(request, device, ranks, history, "scratch", machine, budget)
            return finish(context, data, _fit(context, data), history.rows)
    finally:
        history.close()
        leave_ranks()


def train_folder(
    data: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    architecture: str = "cnn",
    emit: Emit = lambda event: None,
    **options: Any,
) -> ModelCard:
    """Train a model on labelled images and write it into the folder `output`; returns the model's card.

    data: a folder with one folder of images for each label, or another form of docs/data.md; or several, to be joined.
    architecture: `pigeonhole models architectures` lists them. emit: receives each event, as in `train`.
    options: the other fields of `TrainRequest`, such as `epochs=4`, `device="cuda"` or `seed=1`.

    Raises:
        ModelingError: as `train`, or an option that does not exist or is out of its range.
    """
    first, *others = [data] if isinstance(data, str | Path) else data
    request = {"data": Path(first), "joined": others, "architecture": architecture, "output": Path(output)} | options
    return train(TrainRequest.from_json(request), emit)


def _import_in_background(names: list[str]) -> None:
    """Import slow modules that are needed later, while the main thread waits for the disk.

    The process waits for the thread at its exit: a daemon that Python ends inside a C++ library aborts the process.
    """
    Thread(target=lambda: [importlib.import_module(name) for name in names], name="imports").start()


def _fit(context: RunContext, data: TrainingData) -> TrainedNetwork:
    if context.request.weights is None:
        return fit_from_scratch(context, data)
    from modeling.training.from_weights import fit_from_weights  # most trainings do not need it

    return fit_from_weights(context, data)


def fit_from_scratch(context: RunContext, data: TrainingData) -> TrainedNetwork:
    """Train a new network by its recipe."""
    request, architecture = context.request, get_architecture(context.request.architecture)
    preprocessing = choose_preprocessing(data.dataset, architecture, request.image_size)
    plan = plan_from_scratch(request, architecture, data, preprocessing)
    inputs = make_fit_inputs(
        data, preprocessing, context.emit, photographs=plan.recipe.augmentation.startswith("photo")
    )
    mean, std = channel_statistics(inputs.train_images, data.split.train)
    inputs = replace(inputs, preprocessing=replace(preprocessing, mean=mean, std=std))
    with torch.random.fork_rng(devices=[context.device] if context.device.type == "cuda" else []):
        torch.manual_seed(request.seed)
        network = build_network(request.architecture, inputs.preprocessing, len(data.dataset.labels))
    if isinstance(network, SpeedNet):
        network.prepare(_sample_images(inputs))
    plan, result = fit_network(context, network, inputs, plan)
    facts = {"plan": plan.to_json(), "best_epoch": result.epoch}

    def logits_of(indices_M: Indices) -> NDArray[np.float32]:
        alive = signs_of_life(context.emit, "evaluate")
        return compute_logits(
            network, inputs.images, indices_M, inputs.preprocessing, context.device, on_progress=alive.update
        )

    return TrainedNetwork(network, inputs.preprocessing, logits_of, facts)


def plan_from_scratch(
    request: TrainRequest, architecture: Architecture, data: TrainingData, preprocessing: Preprocessing
) -> Plan:
    """The architecture's recipe, adapted to the data and the request."""
    side = max(preprocessing.height, preprocessing.width)
    recipe = recipe_of(request, adapt_recipe(architecture.recipe, len(data.split.train), side))
    weights = class_weights(data.dataset.targets_N[data.split.train], len(data.dataset.labels))
    # Convolutions on CPUs are usually 1.2 to 1.6 times faster with channels last; if not, fit.autotune finds out.
    return Plan(recipe, recipe.batch_size, class_weights=weights, channels_last=architecture.family == "small")


def _sample_images(inputs: FitInputs) -> Tensor:
    """About NUM_WHITENING_IMAGES normalised training images."""
    indices = inputs.split.train[:: max(1, len(inputs.split.train) // NUM_WHITENING_IMAGES)]
    pixels_BHWC = next(iter(inputs.train_images.batches([indices])))
    return normalise(torch.from_numpy(pixels_BHWC), inputs.preprocessing)


def finish(context: RunContext, data: TrainingData, trained: TrainedNetwork, history: Sequence[EpochRow]) -> ModelCard:
    """Calibrate on validation, evaluate once on the test part, and write the model's folder."""
    held_out = calibrate_and_test(data, trained, max_error=context.request.max_error)
    if held_out.evaluation and (absent := held_out.evaluation.classes_without_images):
        text = f"class {abbreviate(absent)} has no {held_out.part} images: nothing is measured for it"
        context.emit({"event": "warning", "text": text})
    _share_lost(context, data)
    data.lost.report(context.emit)
    data = data.without_lost()
    model = make_model(context.request, data, trained, held_out)
    if context.request.int8 and context.ranks.is_leader:
        from modeling.training.int8 import add_int8  # imports OpenVINO and ONNX, which most trainings do not need

        quiet_phase(context.emit, "quantising the network")
        model = add_int8(model, data, trained, context.emit)
        data.lost.report(context.emit)
    if context.ranks.is_leader:
        if context.request.engines is not None and not context.request.deterministic and held_out.part == "test":
            from modeling.training.engine_answers import answer_by_engine  # imports engines, which others do not need

            quiet_phase(context.emit, "preparing the engine that answers the test images")
            held_out, model = answer_by_engine(
                context.request, data, held_out, model, str(context.device), context.emit
            )
        quiet_phase(context.emit, "writing the model and its report")
        check_last(context.request.attempt)
        write_model(context.request, data, trained, held_out, model, history)
    context.emit({"event": "model", "digest": model.card.digest, "metrics": model.card.metrics})
    return model.card


def _share_lost(context: RunContext, data: TrainingData) -> None:
    """Note the images that any process has lost: each reads its own share of a batch."""
    if context.ranks.size == 1:
        return
    indices_N = np.arange(data.dataset.num_images)
    counts_N = torch.from_numpy(data.lost.mask(indices_N).astype(np.int32)).to(context.device)
    for index in context.ranks.sum(counts_N).nonzero().flatten().tolist():
        data.lost.add(index, "another process of this training could not read it again")


@contextmanager
def deterministic_kernels(enabled: bool) -> Iterator[None]:
    """Use only deterministic kernels if `enabled`; otherwise do not call torch, which would import its compiler."""
    before = torch.are_deterministic_algorithms_enabled()
    if before or not enabled:
        yield
        return
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
