"""Small runs of the training loop, and images that end with their process."""

import numpy as np
import torch
from torch import nn

from modeling.data.images import DecodedImages
from modeling.data.splits import Split
from modeling.images.preprocessing import Preprocessing
from modeling.networks.recipes import Recipe
from modeling.training.fit.inputs import FitInputs
from modeling.training.fit.loop import TrainingLoop
from modeling.training.fit.plan import Plan

RECIPE = Recipe(
    epochs=3, batch_size=16, learning_rate=0.02, weight_decay=1e-2, augmentation="flip_shift", average=0.9, clip=1.0
)
PLAN = Plan(RECIPE, 16)
CPU = torch.device("cpu")


class KilledError(Exception):
    """The run was stopped from outside."""


class DyingImages(DecodedImages):
    """Gives some batches, then the process is killed."""

    def __init__(self, pixels, num_batches):
        super().__init__(pixels)
        self._num_left = num_batches

    def batches(self, index_batches):
        for batch in super().batches(index_batches):
            if self._num_left == 0:
                raise KilledError
            self._num_left -= 1
            yield batch


def inputs(train_images=None, num_images=90) -> FitInputs:
    """Two classes: bright above, bright below."""
    generator = np.random.default_rng(0)
    targets = np.arange(num_images) % 2
    pixels = generator.integers(0, 120, (num_images, 8, 8, 3)).astype(np.uint8)
    pixels[targets == 0, :4] += 60
    pixels[targets == 1, 4:] += 60
    indices = np.arange(num_images)
    split = Split(train=indices[:70], validation=indices[70:], test=indices[:0])
    images = DecodedImages(pixels)
    return FitInputs(train_images or images, images, targets, split, Preprocessing("RGB", 8, 8))


def network() -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(6 * 36, 2)
    )


def fit(inputs, plan=None, emit=lambda event: None, **options):
    fitting = TrainingLoop(network(), inputs, plan or PLAN, seed=3, device=CPU, **options)
    fitted = fitting.run(emit)
    return fitting.network.state_dict(), fitted
