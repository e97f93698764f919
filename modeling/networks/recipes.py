"""Recipes: the default hyperparameters for training."""

from dataclasses import dataclass, replace
from typing import Literal

MANY_PHOTOGRAPHS = 5_000  # training photographs from which stronger augmentation helps
CROPPED_FROM = 40  # px
FEWEST_STEPS, SMALLEST_BATCH = 16, 32  # batches in an epoch, and images in a batch
Augmentation = Literal["none", "affine", "elastic", "flip_shift", "photo", "photo_strong"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """The hyperparameters of a training.

    learning_rate: the peak; the rate rises to it over the first `warmup` (a share of all steps), then falls
        to `floor` (a share of the peak) by `decay`.
    weight_decay: of matrices and filters, not of biases and norms; decoupled with AdamW, in the gradient with SGD.
    momentum: Nesterov momentum of SGD; AdamW does not use it.
    label_smoothing: the share of a label that is spread over all labels.
    average: decay of the moving average of the weights that is evaluated and kept; 0: no average.
    lookahead: every five steps, training continues from the averaged weights (Zhang et al. 2019), with a decay that
        rises over the run.
    clip: largest norm of the gradient; 0: no clipping.
    mixing: whether to use mixup and CutMix.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    augmentation: Augmentation
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: float = 0.9
    warmup: float = 0.2
    decay: Literal["linear", "cosine"] = "linear"
    label_smoothing: float = 0.0
    floor: float = 0.0
    average: float = 0.0
    lookahead: bool = False
    clip: float = 0.0
    mixing: bool = False


# `make bench-accuracy` measures the accuracy and the time of these recipes.
PERCEPTRON = Recipe(
    epochs=12, batch_size=256, learning_rate=2e-3, weight_decay=1e-4, augmentation="none", average=0.998
)
MLP = Recipe(epochs=20, batch_size=256, learning_rate=2e-3, weight_decay=1e-2, augmentation="affine", average=0.995)
CNN = Recipe(epochs=5, batch_size=128, learning_rate=3e-3, weight_decay=1e-2, augmentation="affine", average=0.99)
CNN_PYRAMID = Recipe(
    epochs=6, batch_size=256, learning_rate=3e-3, weight_decay=1e-2, augmentation="affine", average=0.99
)
LENET = Recipe(
    epochs=12, batch_size=256, learning_rate=3e-3, weight_decay=1e-2, augmentation="flip_shift", average=0.99
)
SPEEDNET = Recipe(
    epochs=18,
    batch_size=512,
    learning_rate=0.75,
    weight_decay=1.33e-3,
    augmentation="flip_shift",
    optimizer="sgd",
    momentum=0.85,
    warmup=0.23,
    label_smoothing=0.1,
    floor=0.07,
    average=0.95,
    lookahead=True,
)
GLYPHNET = Recipe(
    epochs=8,
    batch_size=128,
    learning_rate=0.08,
    weight_decay=5e-4,
    augmentation="elastic",
    optimizer="sgd",
    label_smoothing=0.05,
    average=0.995,
)
PHOTOGRAPHS = Recipe(
    epochs=30,
    batch_size=32,
    learning_rate=1e-3,
    weight_decay=2e-2,
    augmentation="photo",
    decay="cosine",
    warmup=0.1,
    label_smoothing=0.1,
    average=0.998,
    clip=1.0,
)
FINE_TUNING = replace(PHOTOGRAPHS, epochs=10, learning_rate=1e-4, weight_decay=1e-2, label_smoothing=0.05, average=0.99)


def adapt_recipe(recipe: Recipe, num_images: int, side: int) -> Recipe:
    """The recipe for this number of training images, of which the network sees `side` px.

    Many photographs are mixed and augmented more strongly. Images of which a network for small ones sees more are
    cropped at random: a shift by 2 px says little of them. Few images come in smaller batches.
    """
    if recipe.augmentation == "photo" and num_images >= MANY_PHOTOGRAPHS:
        return replace(recipe, augmentation="photo_strong", mixing=True)
    if recipe.augmentation == "flip_shift" and side > CROPPED_FROM:
        recipe = replace(recipe, augmentation="photo")
    fitting = 1 << max(1, num_images // FEWEST_STEPS).bit_length() - 1  # a power of two
    batch_size = min(recipe.batch_size, max(SMALLEST_BATCH, fitting))
    rate = recipe.learning_rate
    if recipe.optimizer == "sgd":  # AdamW's step does not depend on the gradient's size
        rate *= batch_size / recipe.batch_size
    return replace(recipe, batch_size=batch_size, learning_rate=rate)
