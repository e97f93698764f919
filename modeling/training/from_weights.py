"""Training from pre-trained weights: cached features and a linear probe, then fine-tuning where time is given.

The order of Kumar et al. 2022 (arXiv:2202.10054): a probe first, then fine-tuning that starts from it, so that a
random head does not spoil the features. Whichever is better on validation is kept.
"""

# Shapes: M images in use, F features, L labels.
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from modeling.data.images import ImageFiles, Indices
from modeling.data.splits import Split
from modeling.images.preprocessing import Preprocessing
from modeling.images.progress import Emit, Progress
from modeling.networks.architectures import Architecture, get_architecture
from modeling.networks.build import build_network
from modeling.networks.heads import set_head
from modeling.networks.recipes import FINE_TUNING, adapt_recipe
from modeling.networks.weights import load_weights, weights_preprocessing
from modeling.training.data import Data, make_task
from modeling.training.fit.loop import DivergedError
from modeling.training.fit.plan import BudgetError, Plan
from modeling.training.fit.task import answer
from modeling.training.fit.trainer import Setting, class_weights, fit_network, recipe_of
from modeling.training.model_folder import Trained
from modeling.training.request import TrainRequest
from modeling.training.transfer.backbone import Backbone
from modeling.training.transfer.cache import FeatureCache, Wanted, cached_features
from modeling.training.transfer.probe import Probe, fit_probe

Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Merit:
    """How good a network is on validation; more is better, the first number first."""

    accuracy: float
    minus_nll: float

    def beats(self, other: "Merit") -> bool:
        """Whether it is the better of two."""
        return (self.accuracy, self.minus_nll) > (other.accuracy, other.minus_nll)


def fit_from_weights(setting: Setting, data: Data) -> Trained:
    """Fit a probe on the features of a pre-trained network, then fine-tune where epochs or a budget ask for it.

    Raises:
        ModelingError: the weights cannot be had, or are not those of the architecture.
    """
    request = setting.request
    network, preprocessing = pretrained(request, len(data.dataset.labels), setting.emit)
    probed = _probe(setting, data, network.to(setting.device), preprocessing)
    if request.epochs is None and request.budget_s is None:
        return probed
    try:
        tuned = _fine_tune(replace(setting, stage="fine-tune"), data, probed)
    except (BudgetError, DivergedError) as err:
        setting.emit({"event": "warning", "text": f"no fine-tuning: {err}"})
        return probed
    return _better(setting, data, probed, tuned)


def pretrained(request: TrainRequest, num_labels: int, emit: Emit) -> tuple[nn.Module, Preprocessing]:
    """The network with its pre-trained weights and a fresh head, and the preprocessing that goes with it.

    It is the one that the weights were made for, but for torchvision's margin: that is not cut away, so the whole
    shorter side is seen. Operators' images are framed already: the margin is part of what they show.
    """
    assert request.weights is not None
    preprocessing = weights_preprocessing(request.architecture, request.weights, request.image_size)
    if preprocessing.resize is not None and not Path(request.weights).is_dir():
        preprocessing = replace(preprocessing, resize=max(preprocessing.height, preprocessing.width))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(request.seed)
        network = build_network(request.architecture, preprocessing, num_labels)
    load_weights(network, request.architecture, request.weights, _download_progress(emit).update)
    return network.eval(), preprocessing


def _download_progress(emit: Emit) -> Progress:
    """Reports a download in bytes."""
    return Progress(
        lambda num_done, num_bytes: emit({"event": "download", "bytes_done": num_done, "num_bytes": num_bytes}),
        report_first=True,
    )


def _probe(setting: Setting, data: Data, network: nn.Module, preprocessing: Preprocessing) -> Trained:
    """The network with the head that fits its features best."""
    request, split = setting.request, data.split
    used_M = np.sort(np.concatenate([split.train, split.validation, split.test]))
    wanted = Wanted(ImageFiles(data.dataset, preprocessing), used_M, [data.report.digests[index] for index in used_M])
    cache = FeatureCache(request.cache / "features") if request.cache else None
    backbone = Backbone(network, request.architecture, preprocessing, setting.device)
    features_MF = cached_features(backbone, wanted, cache, setting.emit)
    probe = _fit(data, used_M, features_MF)
    set_head(network, request.architecture, probe.weight_LF, probe.bias_L)

    def logits_of(indices: Indices) -> Logits:
        return probe.logits(features_MF[np.searchsorted(used_M, indices)]).numpy()

    found = {"l2": probe.l2, "accuracy": probe.validation_accuracy if len(split.validation) else None}
    facts = {"kept": "probe", "probe": found}
    setting.emit({"event": "probe", **found})
    return Trained(network, preprocessing, logits_of, facts)


def _fit(data: Data, used_M: Indices, features_MF: NDArray[np.float32]) -> Probe:
    """The probe, with rare classes weighing more where classes are far from even."""
    targets_N, num_classes = data.dataset.targets_N, len(data.dataset.labels)
    weights_L = class_weights(targets_N[data.split.train], num_classes)
    weights_M = None if weights_L is None else np.asarray(weights_L)[targets_N[used_M]]
    parts = (data.split.train, data.split.validation, data.split.test)
    rows = Split(*(np.searchsorted(used_M, part) for part in parts))
    return fit_probe(features_MF, targets_N[used_M], rows, num_classes, sample_weight_N=weights_M)


def _fine_tune(setting: Setting, data: Data, probed: Trained) -> Trained:
    """The whole network trained on from the probe, BatchNorm's statistics frozen."""
    request, architecture = setting.request, get_architecture(setting.request.architecture)
    network = _copy(probed.network, request, probed.preprocessing, len(data.dataset.labels)).to(setting.device)
    plan = _fine_tuning_plan(request, architecture, data)
    photographs = plan.recipe.augmentation.startswith("photo")
    task = make_task(data, probed.preprocessing, setting.emit, photographs=photographs)
    plan, fitted = fit_network(setting, network, task, plan)
    facts = {"kept": "fine-tuning", "probe": probed.facts["probe"], "plan": plan.to_json(), "best_epoch": fitted.epoch}

    def logits_of(indices: Indices) -> Logits:
        return answer(network, task.images, indices, task.preprocessing, setting.device)

    return Trained(network, task.preprocessing, logits_of, facts)


def _fine_tuning_plan(request: TrainRequest, architecture: Architecture, data: Data) -> Plan:
    recipe = recipe_of(request, FINE_TUNING)
    if architecture.family != "torchvision":
        recipe = replace(recipe, augmentation=architecture.recipe.augmentation)
    recipe = adapt_recipe(recipe, len(data.split.train))
    weights = class_weights(data.dataset.targets_N[data.split.train], len(data.dataset.labels))
    return Plan(recipe, recipe.batch_size, class_weights=weights, freeze_statistics=True)


def _copy(network: nn.Module, request: TrainRequest, preprocessing: Preprocessing, num_labels: int) -> nn.Module:
    """A network of its own with the same weights."""
    copied = build_network(request.architecture, preprocessing, num_labels)
    copied.load_state_dict(network.state_dict())
    return copied


def _better(setting: Setting, data: Data, probed: Trained, tuned: Trained) -> Trained:
    """The one that answers the validation images better; without any, the fine-tuned one."""
    if not len(data.split.validation):
        return tuned
    before, after = (_merit(data, trained.logits_of) for trained in (probed, tuned))
    keep = tuned if after.beats(before) else probed
    text = f"fine-tuning: validation accuracy {before.accuracy:.4f} before, {after.accuracy:.4f} after; "
    setting.note(text + ("kept" if keep is tuned else "the probe is kept"))
    return keep


def _merit(data: Data, logits_of: Callable[[Indices], Logits]) -> Merit:
    logits_ML = logits_of(data.split.validation).astype(np.float64)
    targets_M = data.dataset.targets_N[data.split.validation]
    shifted_ML = logits_ML - logits_ML.max(axis=1, keepdims=True)
    log_scores_ML = shifted_ML - np.log(np.exp(shifted_ML).sum(axis=1, keepdims=True))
    accuracy = float((logits_ML.argmax(axis=1) == targets_M).mean())
    return Merit(accuracy, float(log_scores_ML[np.arange(len(targets_M)), targets_M].mean()))
