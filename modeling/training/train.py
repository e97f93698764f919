"""Training: from a request to a model in a folder.

The same request on the same machine gives the same weights, bit for bit on a CPU, whether or not the run was
stopped and went on in between. Budgets go by the clock, and so does the choice of a precision, which is remembered in
the request's cache; `deterministic` rules both out.
"""

# Shapes: M chosen images.
import hashlib
import importlib
import time
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

from modeling.data.images import Indices
from modeling.images.progress import Emit
from modeling.networks.architectures import Architecture, get_architecture
from modeling.networks.build import build_network, normalise, select_device
from modeling.networks.families.speednet import SpeedNet
from modeling.networks.recipes import adapt_recipe
from modeling.registry.card import ModelCard
from modeling.training.data import Data, channel_statistics, choose_preprocessing, load_data, make_task
from modeling.training.fit.history import EpochRow, History
from modeling.training.fit.plan import Plan
from modeling.training.fit.ranks import join_ranks, leave_ranks, own_device
from modeling.training.fit.task import Task, answer
from modeling.training.fit.trainer import Setting, class_weights, fit_network, recipe_of
from modeling.training.model_folder import Trained, calibrate_and_test, check_output, make_model, write_model
from modeling.training.request import TrainRequest

WHITENED = 5000  # images that speednet's first layer is fitted on


def train(request: TrainRequest, emit: Emit) -> ModelCard:
    """Train as requested and leave the model in the folder `request.output`.

    Events go to `emit` as they happen: `scan`, `data`, `decode`, `features`, `probe`, `epoch`, `note`, `model`.

    Raises:
        ModelingError: the data, the weights, the device, the budget or the output folder cannot be used, or the
            training diverged.
    """
    check_output(request.output)
    device = own_device(select_device(request.device))
    ranks = join_ranks(device)
    history = History(request.work if ranks.leads else None, emit if ranks.leads else _silent)
    _import_meanwhile(
        ["modeling.networks.torchvision_networks"] if request.weights else [],
        ["matplotlib.figure", "matplotlib.backends.backend_agg"],
    )
    try:
        with determinism(request.deterministic):
            data = load_data(request, history)
            setting = Setting(request, device, ranks, history, "scratch", _deadline(request))
            return conclude(setting, data, _fit(setting, data), history.rows)
    finally:
        history.close()
        leave_ranks()


def train_folder(
    data: str | Path,
    output: str | Path,
    *,
    architecture: str = "cnn",
    emit: Emit = lambda event: None,
    **options: Any,
) -> ModelCard:
    """Train a model on labelled images and write it into the folder `output`; returns the model's card.

    data: a folder with one folder of images for each label, or another form that docs/data.md names.
    architecture: `pigeonhole models architectures` lists them. emit: called with each event, as `train` does.
    options: the other fields of `TrainRequest`, such as `epochs=4`, `device="cuda"` or `seed=1`.

    Raises:
        ModelingError: as `train`, or an option is out of its range.
        TypeError: no such option.
    """
    return train(TrainRequest(Path(data), architecture, Path(output), **options), emit)


def _import_meanwhile(*groups: list[str]) -> None:
    """Import what takes a second and is wanted later, while the main thread waits for the disk."""
    names = [name for group in groups for name in group]
    Thread(target=lambda: [importlib.import_module(name) for name in names], name="imports", daemon=True).start()


def _fit(setting: Setting, data: Data) -> Trained:
    if setting.request.weights is None:
        return fit_from_scratch(setting, data)
    from modeling.training.from_weights import fit_from_weights  # not wanted for most trainings

    return fit_from_weights(setting, data)


def fit_from_scratch(setting: Setting, data: Data) -> Trained:
    """Fit a fresh network by its recipe."""
    request, architecture = setting.request, get_architecture(setting.request.architecture)
    preprocessing = choose_preprocessing(data.dataset, architecture, request.image_size)
    plan = plan_from_scratch(request, architecture, data)
    task = make_task(data, preprocessing, setting.emit, photographs=plan.recipe.augmentation.startswith("photo"))
    mean, std = channel_statistics(task.train_images, data.split.train)
    task = replace(task, preprocessing=replace(preprocessing, mean=mean, std=std))
    with torch.random.fork_rng(devices=[setting.device] if setting.device.type == "cuda" else []):
        torch.manual_seed(request.seed)
        network = build_network(request.architecture, task.preprocessing, len(data.dataset.labels))
    if isinstance(network, SpeedNet):
        network.prepare(_some_images(task))
    plan, fitted = fit_network(setting, network, task, plan)
    facts = {"plan": plan.to_json(), "best_epoch": fitted.epoch}

    def logits_of(indices_M: Indices) -> NDArray[np.float32]:
        return answer(network, task.images, indices_M, task.preprocessing, setting.device)

    return Trained(network, task.preprocessing, logits_of, facts)


def plan_from_scratch(request: TrainRequest, architecture: Architecture, data: Data) -> Plan:
    """The architecture's recipe with what the request and the data say otherwise."""
    recipe = adapt_recipe(recipe_of(request, architecture.recipe), len(data.split.train))
    weights = class_weights(data.dataset.targets_N[data.split.train], len(data.dataset.labels))
    # Convolutions on CPUs run 1.2 to 1.6 times faster with channels last; where they do not, fit.pace finds out.
    return Plan(recipe, recipe.batch_size, class_weights=weights, channels_last=architecture.family == "small")


def _some_images(task: Task) -> Tensor:
    """Some thousand normalised training images."""
    indices = task.split.train[:: max(1, len(task.split.train) // WHITENED)]
    pixels_BHWC = next(iter(task.train_images.batches([indices])))
    return normalise(torch.from_numpy(pixels_BHWC), task.preprocessing)


def conclude(setting: Setting, data: Data, trained: Trained, history: Sequence[EpochRow]) -> ModelCard:
    """Calibrate on validation, look at the test part once, and write the model's folder."""
    tested = calibrate_and_test(data, trained, max_error=setting.request.max_error)
    model = make_model(setting.request, data, trained, tested)
    if setting.request.int8 and setting.ranks.leads:
        from modeling.training.int8 import add_int8  # OpenVINO and ONNX: not wanted for most trainings

        model = add_int8(model, data, trained, setting.emit)
    if setting.ranks.leads:
        write_model(setting.request, data, trained, tested, model, history)
    digest = hashlib.sha256(model.card.to_bytes()).hexdigest()
    setting.emit({"event": "model", "digest": digest, "metrics": model.card.metrics})
    return model.card


@contextmanager
def determinism(wanted: bool) -> Iterator[None]:
    """Deterministic kernels alone, where that is wanted; asking torch for anything here imports its compiler."""
    before = torch.are_deterministic_algorithms_enabled()
    if before or not wanted:
        yield
        return
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def _deadline(request: TrainRequest) -> float | None:
    return None if request.budget_s is None else time.monotonic() + request.budget_s


def _silent(event: dict[str, Any]) -> None:
    """Report nothing: of several processes only the first does."""
