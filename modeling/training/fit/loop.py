"""The training loop.

A step depends only on the plan, the seed and the step's number: the order of images and all random numbers come from
seed_of(seed, step). A run that resumes from a checkpoint therefore ends with the same weights, bit for bit, as one that
was never interrupted (on the same kind of CPU, with the same number of threads).
"""

# Shapes: N images of the data set, B images of a batch, L labels, H height, W width, C channels.
import copy
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from modeling.errors import ModelingError
from modeling.images.progress import Emit, Progress, signs_of_life
from modeling.networks.augmentation import BatchPosition, augment, mix, trivial_augment
from modeling.networks.build import normalise
from modeling.networks.families.speednet import single_view
from modeling.training.fit.checkpoint import Checkpoints
from modeling.training.fit.inputs import (
    FitInputs,
    FitProgress,
    FitResult,
    measure_accuracy,
    to_device,
    training_batches,
)
from modeling.training.fit.machine import Machine, differences
from modeling.training.fit.optimizer import (
    AveragedWeights,
    Lookahead,
    learning_rate_factor,
    make_optimizer,
    seed_network,
    seed_of,
    set_rates,
    train_mode,
)
from modeling.training.fit.plan import BudgetError, Plan, autocast
from modeling.training.fit.ranks import Ranks

CHECKPOINT_EVERY_S = 60.0
_ORDER, _CHANCE, _NETWORK = 1, 2, 3  # independent streams of random numbers
_CHECK_EVERY = 20  # steps between checks of the losses: each check waits for the device

State = dict[str, Tensor]


class DivergedError(ModelingError):
    """The loss or the weights are no longer finite."""


class TrainingLoop:
    """One run: network, optimizer, averaged weights and progress; saves and restores checkpoints."""

    def __init__(
        self,
        network: nn.Module,
        inputs: FitInputs,
        plan: Plan,
        *,
        seed: int,
        device: torch.device,
        ranks: Ranks | None = None,
        checkpoints: Checkpoints | None = None,
        checkpoint_every_s: float = CHECKPOINT_EVERY_S,
        machine: Machine | None = None,
        budget_is_over: Callable[[], bool] | None = None,
    ) -> None:
        """checkpoints: to save, and to resume from. machine: this one, for a later attempt on another.

        budget_is_over: asked after every step; ends the run with the best weights so far. None: there is no budget.
        """
        self._inputs, self._plan, self._recipe = inputs, plan, plan.recipe
        self._seed, self._device, self._ranks = seed, device, ranks or Ranks()
        self._checkpoints, self._checkpoint_every_s, self._machine = checkpoints, checkpoint_every_s, machine
        self._budget_is_over = budget_is_over
        self.network = network.to(device)
        self._ranks.broadcast_weights(self.network)
        if plan.channels_last:
            self.network = self.network.to(memory_format=torch.channels_last)
        self._optimizer = make_optimizer(self.network, plan)
        self._scaler = torch.amp.GradScaler(device.type, enabled=plan.precision == "fp16")
        average = Lookahead if self._recipe.lookahead else AveragedWeights
        self._average = average(self.network, self._recipe.average) if self._recipe.average else None
        self._evaluated = copy.deepcopy(self.network)  # gets the averaged weights; is never trained
        self._best: State = _copy(self.network.state_dict())
        weights = plan.class_weights
        self._class_weights = torch.tensor(weights, device=device, dtype=torch.float32) if weights else None
        self._progress = FitProgress()
        self._history: list[dict[str, float]] = []
        self._losses: list[tuple[int, Tensor]] = []  # step and loss, not checked yet
        self._saved_at = time.monotonic()
        self._warned = False

    @property
    def num_batches(self) -> int:
        """The number of steps in an epoch."""
        return max(1, -(-(len(self._inputs.split.train) - 1) // self._recipe.batch_size))

    def run(self, emit: Emit) -> FitResult:
        """Train all remaining epochs, and load the weights of the best epoch into the network.

        Raises:
            DivergedError: the loss or the weights became infinite or NaN; the last good checkpoint stays.
            BudgetError: the budget is over before the first step.
            SupersededError: a later attempt works on this training.
        """
        if not self._restore(emit):
            self._save(emit)  # the plan: a later attempt must not measure another one
        with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
            while self._progress.epoch < self._recipe.epochs and not self._over():
                self._train_epoch(emit)
                self._end_epoch(emit)
        if self._progress.epoch < self._recipe.epochs:
            self._end_by_budget(emit)
        self.network.load_state_dict(self._best)
        if len(self._history) > 1 and self._history[-1]["loss"] > self._history[0]["loss"]:
            text = f"the loss rose from {self._history[0]['loss']:.4g} to {self._history[-1]['loss']:.4g}"
            emit({"event": "warning", "text": f"{text}: the model has not learnt; give a lower --learning-rate"})
        best = self._progress.best_accuracy
        return FitResult(self._progress.best_epoch, None if best < 0 else best, self._history)

    def _train_epoch(self, emit: Emit) -> None:
        """Train the remaining steps of one epoch."""
        epoch, first = self._progress.epoch, self._progress.step_in_epoch
        self._started, self._num_before = time.perf_counter(), first
        order = np.random.default_rng(seed_of(self._seed, _ORDER, epoch)).permutation(self._inputs.split.train)
        index_batches = training_batches(order, self._recipe.batch_size)[first:]
        shares = [self._ranks.share_of(torch.from_numpy(whole_B)).numpy() for whole_B in index_batches]
        train_mode(self.network, self._plan)
        num_images, alive = len(self._inputs.split.train), self._signs_of_life("steps", emit)
        batches = self._inputs.train_images.batches(iter(shares))
        for whole_B, indices_B, pixels_BHWC in zip(index_batches, shares, batches, strict=True):
            step = epoch * self.num_batches + self._progress.step_in_epoch
            self._step(step, epoch, torch.from_numpy(indices_B), pixels_BHWC, len(whole_B))
            self._progress.step_in_epoch += 1
            alive.update(min(self._progress.step_in_epoch * self._recipe.batch_size, num_images), num_images)
            if self._over():
                break
            if self._ranks.broadcast_flag(time.monotonic() - self._saved_at > self._checkpoint_every_s):
                self._check_losses()
                self._check_weights(step)
                self._save(emit)
        self._check_losses()
        self._check_weights(epoch * self.num_batches + self._progress.step_in_epoch - 1)

    def _over(self) -> bool:
        """Whether the budget is over, for all processes alike."""
        return self._budget_is_over is not None and self._ranks.broadcast_flag(self._budget_is_over())

    def _end_by_budget(self, emit: Emit) -> None:
        """End with what there is: an earlier attempt may have left a part of an epoch."""
        if self._progress.step_in_epoch:
            self._started, self._num_before = time.perf_counter(), self._progress.step_in_epoch
            self._end_epoch(emit)
        done, best = self._progress.epoch, self._progress.best_epoch
        if not done:
            raise BudgetError("the budget was over before the first step; train again with a larger --budget")
        text = f"the budget was over in epoch {done} of {self._recipe.epochs}"
        emit({"event": "note", "text": f"{text}; the best weights so far, of epoch {best}, are kept"})

    def _signs_of_life(self, event: str, emit: Emit) -> Progress:
        """Reports how far an epoch is, every few seconds."""
        return signs_of_life(emit, event, epoch=self._progress.epoch + 1, epochs=self._recipe.epochs)

    def _step(self, step: int, epoch: int, indices_B: Tensor, pixels: Any, num_together: int) -> None:
        """One step on a batch; `indices_B` and `pixels` are this process's share of it."""
        seed_network(self._device, seed_of(self._seed, _NETWORK, step, self._ranks.rank))
        generator = torch.Generator().manual_seed(seed_of(self._seed, _CHANCE, step, self._ranks.rank))
        num_steps = self._recipe.epochs * self.num_batches
        recipe = self._recipe
        factor = learning_rate_factor(step, num_steps, warmup=recipe.warmup, decay=recipe.decay, floor=recipe.floor)
        set_rates(self._optimizer, factor)
        self._optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self._device)
        pixels_BHWC = to_device(pixels, self._device)
        num_parts = max(1, -(-len(indices_B) // self._plan.micro_batch))
        # Parts of equal size, so that none is a single image.
        for part_B in torch.arange(len(indices_B)).tensor_split(num_parts):
            if len(part_B):
                part = slice(int(part_B[0]), int(part_B[-1]) + 1)
                place = BatchPosition(indices_B[part], epoch, generator)
                total += self._accumulate(pixels_BHWC[part], place, num_together)
        self._ranks.sum_gradients(self.network)
        if self._recipe.clip:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), self._recipe.clip)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self._average:
            self._average.update(self.network, (step + 1) / num_steps)
        self._losses.append((step, total))
        if len(self._losses) >= _CHECK_EVERY:
            self._check_losses()

    def _accumulate(self, pixels_BHWC: Tensor, place: BatchPosition, num_together: int) -> Tensor:
        """Accumulate the gradients of a micro-batch; returns its loss, summed over its images."""
        if self._recipe.augmentation == "photo_strong":
            pixels_BHWC = trivial_augment(pixels_BHWC)
        preprocessing = self._inputs.preprocessing
        images_BCHW = normalise(pixels_BHWC, preprocessing)
        size = (preprocessing.height, preprocessing.width)
        images_BCHW = augment(images_BCHW, self._recipe.augmentation, place, size=size)
        if self._plan.channels_last:
            images_BCHW = images_BCHW.contiguous(memory_format=torch.channels_last)
        targets_B = torch.from_numpy(self._inputs.targets_N[place.indices_B.numpy()]).to(self._device)
        if self._recipe.mixing:
            mixed = mix(images_BCHW, targets_B, place.generator)
            logits_BL = self._forward(mixed.images_BCHW)
            loss = mixed.share * self._loss(logits_BL, mixed.targets_B)
            loss = loss + (1 - mixed.share) * self._loss(logits_BL, mixed.other_B)
        else:
            loss = self._loss(self._forward(images_BCHW), targets_B)
        torch.autograd.backward(self._scaler.scale(loss / num_together))
        return loss.detach()

    def _forward(self, images_BCHW: Tensor) -> Tensor:
        with autocast(self._device, self._plan.precision):
            logits_BL: Tensor = self.network(images_BCHW)
        return logits_BL.float()

    def _loss(self, logits_BL: Tensor, targets_B: Tensor) -> Tensor:
        """Cross entropy, summed over the images."""
        weights_L, smoothing = self._class_weights, self._recipe.label_smoothing
        return functional.cross_entropy(
            logits_BL, targets_B, weight=weights_L, label_smoothing=smoothing, reduction="sum"
        )

    def _check_losses(self) -> None:
        """Check the losses since the last check, before they count and before a checkpoint is saved."""
        if not self._losses:
            return
        losses = self._ranks.sum(torch.stack([loss for _, loss in self._losses])).tolist()
        steps = [step for step, _ in self._losses]
        self._losses.clear()
        for step, loss in zip(steps, losses, strict=True):
            if not np.isfinite(loss):
                raise self._diverged_error(f"the loss is {loss}", step)
            self._progress.loss_sum += loss

    def _check_weights(self, step: int) -> None:
        """Check the weights before they are saved: a step may make them infinite although its loss was finite."""
        norms = torch._foreach_norm([parameter.detach() for parameter in self.network.parameters()])
        if not torch.stack(list(norms)).isfinite().all():
            raise self._diverged_error("the weights are infinite or NaN", step)

    def _diverged_error(self, what: str, step: int) -> DivergedError:
        saved = self._checkpoints.newest() if self._checkpoints is not None else None
        kept = f"; the last good checkpoint is {saved}" if saved else ""
        return DivergedError(
            f"training diverged: {what} at step {step + 1} (epoch {self._progress.epoch + 1}); "
            f"give a lower learning rate than {self._recipe.learning_rate}{kept}"
        )

    def _end_epoch(self, emit: Emit) -> None:
        """Evaluate on validation, keep the weights if they are the best so far, save, and emit the epoch event."""
        progress, seconds = self._progress, time.perf_counter() - self._started
        num_images = min(progress.step_in_epoch * self._recipe.batch_size, len(self._inputs.split.train))
        if progress.step_in_epoch == self.num_batches:  # else the budget was over
            num_images = len(self._inputs.split.train)
        loss = progress.loss_sum / num_images
        num_now = max(0, num_images - self._num_before * self._recipe.batch_size)
        accuracy = self._validation_accuracy(emit)
        progress.epoch, progress.step_in_epoch, progress.loss_sum = progress.epoch + 1, 0, 0.0
        if accuracy is None or accuracy >= progress.best_accuracy:
            progress.best_epoch, progress.best_accuracy = progress.epoch, -1.0 if accuracy is None else accuracy
            self._best = _copy(self._evaluated.state_dict())
        row = {"epoch": progress.epoch, "epochs": self._recipe.epochs, "loss": round(loss, 6)}
        row |= {"learning_rate": self._optimizer.param_groups[0]["lr"], "seconds": round(seconds, 3)}
        row |= {"images_per_sec": round(num_now / seconds, 1)} | ({} if accuracy is None else {"accuracy": accuracy})
        self._history.append(row)
        self._save(emit)
        if self._inputs.lost is not None:
            self._inputs.lost.report(emit)
        emit({"event": "epoch", "accuracy": None, **row})

    def _validation_accuracy(self, emit: Emit) -> float | None:
        """Validation accuracy of the averaged weights; None without validation images."""
        state = self._average.state if self._average else self.network.state_dict()
        self._evaluated.load_state_dict(state)
        self._ranks.broadcast_weights(self._evaluated)
        indices = self._inputs.split.validation
        if not len(indices):
            return None
        on_progress = self._signs_of_life("validate", emit).update
        with single_view(self._evaluated):
            return measure_accuracy(self._evaluated, self._inputs, indices, self._device, self._ranks, on_progress)

    def _save(self, emit: Emit) -> None:
        """Save a checkpoint; a write error does not stop the run."""
        self._saved_at = time.monotonic()
        if self._checkpoints is None or not self._ranks.is_leader:
            return
        try:
            self._checkpoints.save(self._num_steps(), self._state())
            self._warned = False
        except OSError as err:
            if not self._warned:
                text = f"no checkpoint can be saved: {err}; if this training is interrupted, it loses what it does now"
                emit({"event": "warning", "text": text})
            self._warned = True

    def _num_steps(self) -> int:
        return self._progress.epoch * self.num_batches + self._progress.step_in_epoch

    def _state(self) -> dict[str, Any]:
        progress = self._progress
        return {
            "plan": self._plan.to_json(),
            "machine": asdict(self._machine) if self._machine else None,
            "progress": {name: getattr(progress, name) for name in progress.__slots__},
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "average": [self._average.num_updates, self._average.state] if self._average else [],
            "best": self._best,
            "history": self._history,
        }

    def _restore(self, emit: Emit) -> bool:
        """Resume from the last checkpoint of this run; False if there is none."""
        state = self._checkpoints.load() if self._checkpoints is not None else None
        if state is None:
            return False
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        if self._average:
            self._average.num_updates, averaged = state["average"]
            self._average.state = {name: tensor.to(self._device) for name, tensor in averaged.items()}
        self._best = {name: tensor.to(self._device) for name, tensor in state["best"].items()}
        self._progress = FitProgress(**state["progress"])
        self._history = state["history"]
        step = self._num_steps()
        emit({"event": "resumed", "epoch": self._progress.epoch, "step": step, "history": self._history})
        if self._machine and state["machine"] and (changed := differences(Machine(**state["machine"]), self._machine)):
            text = f"its checkpoint is of another kind of machine ({changed}); the training goes on from it"
            emit({"event": "warning", "text": f"{text}, and its weights may differ from those of one machine alone"})
        return True


def _copy(state: State) -> State:
    return {name: tensor.detach().clone() for name, tensor in state.items()}
