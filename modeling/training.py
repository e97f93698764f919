"""Training: from a request to a model in a folder.

The same request on the same machine gives the same weights, bit for bit on CPU.
"""

# Shapes: B images in a batch, N images, H height, W width, C channels, L labels.
import copy
import hashlib
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from modeling.architectures import Recipe, get_architecture
from modeling.augmentation import random_affine
from modeling.card import CARD_FILE, WEIGHTS_FILE, ModelCard
from modeling.datasets import open_dataset
from modeling.errors import ModelingError
from modeling.networks import build_network, normalise, select_device
from modeling.train_request import TrainRequest
from modeling.training_data import TrainingData, describe, load_training_data

_EVALUATION_BATCH = 512

Emit = Callable[[dict[str, Any]], None]
State = dict[str, Tensor]


def train(request: TrainRequest, emit: Emit) -> ModelCard:
    """Train as requested and leave `model.safetensors` and `model.json` in `request.output`.

    The weights are those of the epoch with the best validation accuracy (the last of equals); the test part is
    looked at once, with them. Events go to `emit` as they happen: `decode`, `data`, `epoch`, `model`.

    Raises:
        ModelingError: the data, the device or the output folder cannot be used.
    """
    _check_output(request.output)
    device = select_device(request.device)
    dataset = open_dataset(request.data)
    data = load_training_data(dataset, request, emit)
    facts = describe(data, dataset)
    emit({"event": "data"} | facts)
    recipe = _recipe(request)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(request.seed)
        network = build_network(request.architecture, data.preprocessing, len(data.labels)).to(device)
        best = _Run(network, data, recipe, device, request.seed).fit(emit)
    card = _save(request, network, best, data, facts, recipe)
    digest = hashlib.sha256(card.to_bytes()).hexdigest()
    emit({"event": "model", "digest": digest, "metrics": card.metrics})
    return card


def _recipe(request: TrainRequest) -> Recipe:
    """The architecture's recipe with what the request says otherwise."""
    chosen = {name: getattr(request, name) for name in ("epochs", "batch_size", "learning_rate")}
    recipe = get_architecture(request.architecture).recipe
    return replace(recipe, **{name: value for name, value in chosen.items() if value is not None})


@dataclass(frozen=True, slots=True)
class _Best:
    """The epoch that is kept."""

    epoch: int
    metrics: dict[str, float]


class _Run:
    """One training run: its tensors on the device, its optimiser and its source of chance."""

    def __init__(self, network: nn.Module, data: TrainingData, recipe: Recipe, device: torch.device, seed: int) -> None:
        self._network = network
        self._recipe = recipe
        self._preprocessing = data.preprocessing
        self._pixels_NHWC = torch.from_numpy(data.pixels_NHWC).to(device)
        self._targets_N = torch.from_numpy(data.targets).to(device)
        self._train, self._validation, self._test = (
            torch.from_numpy(part) for part in (data.split.train, data.split.validation, data.split.test)
        )
        self._generator = torch.Generator().manual_seed(seed)
        self._optimizer = torch.optim.AdamW(
            network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        num_batches = -(-len(self._train) // recipe.batch_size)
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimizer, max_lr=recipe.learning_rate, total_steps=recipe.epochs * num_batches + 1
        )

    def fit(self, emit: Emit) -> _Best:
        """Train every epoch and leave the best one's weights in the network."""
        best_epoch, best_accuracy, best_state = 0, -1.0, copy.deepcopy(self._network.state_dict())
        for epoch in range(1, self._recipe.epochs + 1):
            started = time.perf_counter()
            loss = self._train_epoch()
            seconds = time.perf_counter() - started
            accuracy = self._accuracy(self._validation)
            if accuracy is None or accuracy >= best_accuracy:
                best_epoch, best_accuracy = epoch, -1.0 if accuracy is None else accuracy
                best_state = copy.deepcopy(self._network.state_dict())
            emit(
                {
                    "event": "epoch",
                    "epoch": epoch,
                    "epochs": self._recipe.epochs,
                    "loss": round(loss, 6),
                    "accuracy": accuracy,
                    "images_per_sec": round(len(self._train) / seconds, 1),
                }
            )
        self._network.load_state_dict(best_state)
        return self._measured(best_epoch, None if best_accuracy < 0 else best_accuracy)

    def _train_epoch(self) -> float:
        """Mean loss of one pass over the training images in a new order."""
        self._network.train()
        total = torch.zeros((), device=self._pixels_NHWC.device)
        order = self._train[torch.randperm(len(self._train), generator=self._generator)]
        for indices_B in torch.split(order, self._recipe.batch_size):
            images_BCHW, targets_B = self._batch(indices_B)
            if self._recipe.augmentation == "affine":
                images_BCHW = random_affine(images_BCHW, self._generator)
            loss = functional.cross_entropy(self._network(images_BCHW), targets_B)
            self._optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            self._optimizer.step()
            self._schedule.step()
            total += loss.detach() * len(indices_B)
        mean = float(total) / len(order)
        if mean != mean or mean == float("inf"):
            raise ModelingError(
                f"training diverged (loss {mean}) at learning rate {self._recipe.learning_rate}; give a lower one"
            )
        return mean

    def _batch(self, indices_B: Tensor) -> tuple[Tensor, Tensor]:
        indices_B = indices_B.to(self._pixels_NHWC.device)
        return normalise(self._pixels_NHWC[indices_B], self._preprocessing), self._targets_N[indices_B]

    def _accuracy(self, part: Tensor) -> float | None:
        """Share of a part's images whose best label is right, in [0, 1]; None where the part is empty."""
        if not len(part):
            return None
        self._network.eval()
        num_right = 0
        with torch.inference_mode():
            for indices_B in torch.split(part, _EVALUATION_BATCH):
                images_BCHW, targets_B = self._batch(indices_B)
                num_right += int((self._network(images_BCHW).argmax(dim=1) == targets_B).sum())
        return num_right / len(part)

    def _measured(self, epoch: int, validation_accuracy: float | None) -> _Best:
        accuracies = {
            "validation_accuracy": validation_accuracy,
            "test_accuracy": self._accuracy(self._test),
        }
        counts = {"num_train": self._train, "num_validation": self._validation, "num_test": self._test}
        metrics: dict[str, float] = {name: len(part) for name, part in counts.items()}
        metrics |= {name: value for name, value in accuracies.items() if value is not None}
        return _Best(epoch, metrics)


def _check_output(output: Path) -> None:
    """Refuse to write over anything but an earlier result of ours."""
    if output.exists() and not (output.is_dir() and set(os.listdir(output)) <= {CARD_FILE, WEIGHTS_FILE}):
        raise ModelingError(f"output {output} exists and holds something else than a model; give another folder")


def _save(
    request: TrainRequest,
    network: nn.Module,
    best: _Best,
    data: TrainingData,
    facts: dict[str, Any],
    recipe: Recipe,
) -> ModelCard:
    """Write weights and card to a folder beside the output, and rename it into place."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    weights = safetensors.torch.save(state)
    card = ModelCard(
        architecture=request.architecture,
        labels=data.labels,
        preprocessing=data.preprocessing,
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        metrics=best.metrics,
        training={
            "data": facts,
            "seed": request.seed,
            "recipe": recipe.to_json(),
            "best_epoch": best.epoch,
            "versions": _versions(),
        },
    )
    request.output.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{request.output.name}-", dir=request.output.parent))
    try:
        for name, content in ((WEIGHTS_FILE, weights), (CARD_FILE, card.to_bytes())):
            with open(staging / name, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        staging.chmod(0o755)  # mkdtemp keeps others out
        if request.output.exists():
            shutil.rmtree(request.output)  # an earlier result of ours, as _check_output saw
        staging.rename(request.output)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return card


def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: version(name) for name in ("torch", "numpy", "pillow")}
