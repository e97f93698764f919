"""Training from pre-trained weights: a linear probe on cached features, then optional fine-tuning.

As in Kumar et al. 2022 (arXiv:2202.10054), fine-tuning starts from the probe, so that a random head does not distort
the features. The model that is better on validation is kept.
"""

# Shapes: M images in use, F features, L labels.
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from modeling.data.images import ImageFiles, Indices
from modeling.data.splits import Split
from modeling.images.preprocessing import Preprocessing
from modeling.images.progress import Emit, Progress, quiet_phase, signs_of_life
from modeling.networks.architectures import Architecture, get_architecture
from modeling.networks.build import build_network
from modeling.networks.heads import set_head
from modeling.networks.recipes import FINE_TUNING, adapt_recipe
from modeling.networks.weights import check_digest, load_weights, weights_preprocessing
from modeling.training.data import TrainingData, make_fit_inputs
from modeling.training.fit.inputs import compute_logits
from modeling.training.fit.loop import DivergedError
from modeling.training.fit.plan import BudgetError, Plan
from modeling.training.fit.trainer import RunContext, class_weights, fit_network, recipe_of
from modeling.training.model_folder import TrainedNetwork
from modeling.training.request import TrainRequest
from modeling.training.transfer.backbone import Backbone
from modeling.training.transfer.cache import FeatureCache, ImageSelection, cached_features
from modeling.training.transfer.probe import Probe, fit_probe

Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True, order=True)
class ValidationScore:
    """A network's figures on validation; compared by accuracy, then by negative log likelihood."""

    accuracy: float
    minus_nll: float


def fit_from_weights(context: RunContext, data: TrainingData) -> TrainedNetwork:
    """Fit a probe on the features of a pre-trained network, then fine-tune if epochs or a budget are given.

    Raises:
        ModelingError: the weights cannot be loaded, or belong to another architecture.
    """
    request = context.request
    network, preprocessing = load_pretrained(request, len(data.dataset.labels), context.emit)
    probed = _probe(context, data, network.to(context.device), preprocessing)
    if request.epochs is None and request.budget_s is None:
        return probed
    try:
        tuned = _fine_tune(replace(context, stage="fine-tune"), data, probed)
    except (BudgetError, DivergedError) as err:
        context.emit({"event": "warning", "text": f"no fine-tuning: {err}"})
        return probed
    return _keep_better(context, data, probed, tuned)


def load_pretrained(request: TrainRequest, num_labels: int, emit: Emit) -> tuple[nn.Module, Preprocessing]:
    """The network with its pre-trained weights and a new head, and its preprocessing.

    The preprocessing is that of the weights, but without torchvision's margin: the whole shorter side is used, because
    operators' images are already framed, and the margin is part of their content.
    """
    assert request.weights is not None
    if request.weights_pin is not None:
        check_digest(Path(request.weights), request.weights_pin.sha256)
    preprocessing = weights_preprocessing(request.architecture, request.weights, request.image_size)
    if preprocessing.resize is not None and not Path(request.weights).is_dir():
        preprocessing = replace(preprocessing, resize=max(preprocessing.height, preprocessing.width))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(request.seed)
        network = build_network(request.architecture, preprocessing, num_labels)

    def report(num_done: int, num_bytes: int | None) -> None:
        emit({"event": "download", "bytes_done": num_done, "num_bytes": num_bytes})

    update = Progress(report, report_first=True).update
    for note in load_weights(network, request.architecture, request.weights, update, key=request.weights_key):
        emit({"event": "note", "text": note})
    return network.eval(), preprocessing


def _probe(context: RunContext, data: TrainingData, network: nn.Module, preprocessing: Preprocessing) -> TrainedNetwork:
    """Fit the head on the network's features, and put it into the network."""
    request, split = context.request, data.split
    used_M = np.sort(np.concatenate([split.train, split.validation, split.test]))
    digests = [data.report.digests[index] for index in used_M]
    images = ImageFiles(partial(data.lost.pixels, preprocessing=preprocessing), preprocessing)
    selection = ImageSelection(images, used_M, digests, data.lost.mask)
    cache = FeatureCache(request.cache / "features") if request.cache else None
    backbone = Backbone(network, request.architecture, preprocessing, context.device)
    features_MF = cached_features(backbone, selection, cache, context.emit)
    data.lost.report(context.emit)
    quiet_phase(context.emit, "fitting the last layer")
    probe = _fit(data, used_M, features_MF)
    set_head(network, request.architecture, probe.weight_LF, probe.bias_L)

    def logits_of(indices: Indices) -> Logits:
        return probe.logits(features_MF[np.searchsorted(used_M, indices)]).numpy()

    found = {"l2": probe.l2, "accuracy": probe.validation_accuracy if len(split.validation) else None}
    facts = {"kept": "probe", "probe": found}
    context.emit({"event": "probe", **found})
    return TrainedNetwork(network, preprocessing, logits_of, facts)


def _fit(data: TrainingData, used_M: Indices, features_MF: NDArray[np.float32]) -> Probe:
    """Fit the probe; rare classes get higher weights if classes are imbalanced."""
    targets_N, num_classes, split = data.dataset.targets_N, len(data.dataset.labels), data.lost.left()
    weights_L = class_weights(targets_N[split.train], num_classes)
    weights_M = None if weights_L is None else np.asarray(weights_L)[targets_N[used_M]]
    parts = (split.train, split.validation, split.test)
    rows = Split(*(np.searchsorted(used_M, part) for part in parts))
    return fit_probe(features_MF, targets_N[used_M], rows, num_classes, sample_weight_N=weights_M)


def _fine_tune(context: RunContext, data: TrainingData, probed: TrainedNetwork) -> TrainedNetwork:
    """Train the whole network, starting from the probe, with frozen BatchNorm statistics."""
    request, architecture = context.request, get_architecture(context.request.architecture)
    network = build_network(request.architecture, probed.preprocessing, len(data.dataset.labels))
    network.load_state_dict(probed.network.state_dict())
    network = network.to(context.device)
    plan = _fine_tuning_plan(request, architecture, data, probed.preprocessing)
    photographs = plan.recipe.augmentation.startswith("photo")
    inputs = make_fit_inputs(data, probed.preprocessing, context.emit, photographs=photographs)
    plan, result = fit_network(context, network, inputs, plan)
    facts = {"kept": "fine-tuning", "probe": probed.facts["probe"], "plan": plan.to_json(), "best_epoch": result.epoch}

    def logits_of(indices: Indices) -> Logits:
        alive = signs_of_life(context.emit, "evaluate")
        return compute_logits(
            network, inputs.images, indices, inputs.preprocessing, context.device, on_progress=alive.update
        )

    return TrainedNetwork(network, inputs.preprocessing, logits_of, facts)


def _fine_tuning_plan(
    request: TrainRequest, architecture: Architecture, data: TrainingData, preprocessing: Preprocessing
) -> Plan:
    recipe = FINE_TUNING
    if architecture.family != "torchvision":
        recipe = replace(recipe, augmentation=architecture.recipe.augmentation)
    side = max(preprocessing.height, preprocessing.width)
    recipe = recipe_of(request, adapt_recipe(recipe, len(data.split.train), side))
    weights = class_weights(data.dataset.targets_N[data.split.train], len(data.dataset.labels))
    return Plan(recipe, recipe.batch_size, class_weights=weights, freeze_statistics=True)


def _keep_better(
    context: RunContext, data: TrainingData, probed: TrainedNetwork, tuned: TrainedNetwork
) -> TrainedNetwork:
    """Keep the network that is better on validation; without validation images, the fine-tuned one."""
    if not len(data.lost.kept(data.split.validation)):
        return tuned
    before, after = (_validation_score(data, trained.logits_of) for trained in (probed, tuned))
    keep = tuned if after > before else probed
    text = f"fine-tuning: validation accuracy {before.accuracy:.4f} before, {after.accuracy:.4f} after; "
    context.note(text + ("kept" if keep is tuned else "the probe is kept"))
    return keep


def _validation_score(data: TrainingData, logits_of: Callable[[Indices], Logits]) -> ValidationScore:
    logits_ML, kept_M = logits_of(data.split.validation).astype(np.float64), ~data.lost.mask(data.split.validation)
    logits_ML, targets_M = logits_ML[kept_M], data.dataset.targets_N[data.split.validation][kept_M]
    shifted_ML = logits_ML - logits_ML.max(axis=1, keepdims=True)
    log_scores_ML = shifted_ML - np.log(np.exp(shifted_ML).sum(axis=1, keepdims=True))
    accuracy = float((logits_ML.argmax(axis=1) == targets_M).mean())
    return ValidationScore(accuracy, float(log_scores_ML[np.arange(len(targets_M)), targets_M].mean()))
