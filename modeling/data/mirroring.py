"""Whether mirroring a small image may change its class, as it does for letters and signs; needs no torch.

A linear classifier of a few hundred tiny images tells: what it learnt from them holds for the mirrored images where
classes look the same mirrored, and fails for letters.
"""

# Shapes: N images, S side, F features, L labels.
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from modeling.data.dataset import Dataset, Targets
from modeling.images.cost import before_opening, for_opened
from modeling.images.formats import MAX_PIXELS
from modeling.images.heif import open_image
from modeling.images.loader import read_image_file
from modeling.images.pixels import Pixels

MOST_IMAGES = 1000
_SIDE = 16  # px; enough to tell letters
_LARGEST = 256  # px: larger images among small ones are left out, not decoded
_THREADS = 8
_FOLDS = 3
_PENALTY = 0.1  # of the features' mean variance
_LEAST_CONTRAST = 0.05  # keeps the noise of an even image from being stretched
_SURE = 3.0  # standard errors

Values = NDArray[np.float64]


def mirroring_matters(dataset: Dataset) -> bool:
    """Whether mirrored images are recognised clearly less often than the images themselves.

    False also where nothing can be told, as from a handful of images.
    """
    step = max(1, -(-dataset.num_images // MOST_IMAGES))
    images, targets_N = _tiny_images(dataset, step), dataset.targets_N[::step]
    read = [index for index, pixels_SS in enumerate(images) if pixels_SS is not None]
    if len(read) < 2 * _FOLDS:
        return False
    order = np.random.default_rng(0).permutation(read)  # folders come class by class
    return _is_worse_mirrored(np.stack([images[index] for index in order]) / 255.0, targets_N[order])


def _tiny_images(dataset: Dataset, step: int) -> list[Pixels | None]:
    """Every `step`-th image in tiny, grey pixels SS; None for one that cannot be read."""
    if dataset.pixels_NHWC is not None:
        return [_tiny(Image.fromarray(pixels_HWC.squeeze())) for pixels_HWC in dataset.pixels_NHWC[::step]]
    with ThreadPoolExecutor(_THREADS) as threads:
        return list(threads.map(_tiny_file, dataset.files[::step]))


def _tiny_file(path: Path) -> Pixels | None:
    try:
        data = read_image_file(path)
        with before_opening(data, MAX_PIXELS), open_image(data) as image:
            if max(image.size) > _LARGEST:
                return None
            with for_opened(image, data, MAX_PIXELS):
                return _tiny(image)
    except Exception:  # broken files can raise anything; the scan reports them
        return None


def _tiny(image: Image.Image) -> Pixels:
    return np.asarray(image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BILINEAR))


def _is_worse_mirrored(tiny_NSS: Values, targets_N: Targets) -> bool:
    """Compares, by McNemar's test, how a linear classifier does on held-out images and on the same mirrored."""
    own_NF, mirrored_NF = _features(tiny_NSS), _features(tiny_NSS[:, :, ::-1])
    fold_N = np.arange(len(targets_N)) % _FOLDS
    num_own = num_mirrored = 0  # images that only one of the two gets right
    for fold in range(_FOLDS):
        held_out = fold_N == fold
        classify = _fitted(own_NF[~held_out], targets_N[~held_out])
        own, mirrored = (classify(part_NF[held_out]) == targets_N[held_out] for part_NF in (own_NF, mirrored_NF))
        num_own += int((own & ~mirrored).sum())
        num_mirrored += int((mirrored & ~own).sum())
    return num_own - num_mirrored > _SURE * math.sqrt(num_own + num_mirrored)


def _features(tiny_NSS: Values) -> Values:
    """Each image's pixels, with its own brightness and contrast taken out."""
    pixels_NF = tiny_NSS.reshape(len(tiny_NSS), -1)
    centred_NF = pixels_NF - pixels_NF.mean(axis=1, keepdims=True)
    stretched_NF: Values = centred_NF / (centred_NF.std(axis=1, keepdims=True) + _LEAST_CONTRAST)
    return stretched_NF


def _fitted(features_NF: Values, targets_N: Targets) -> Callable[[Values], Targets]:
    """A ridge regression of the classes; returns what classifies features."""
    mean_F, classes_NL = features_NF.mean(axis=0), np.eye(int(targets_N.max()) + 1)[targets_N]
    centred_NF, share_L = features_NF - mean_F, classes_NL.mean(axis=0)
    covariance_FF = centred_NF.T @ centred_NF
    penalty = _PENALTY * np.trace(covariance_FF) / len(covariance_FF) + 1e-9  # images may all be the same
    covariance_FF[np.diag_indices_from(covariance_FF)] += penalty
    weights_FL = np.linalg.solve(covariance_FF, centred_NF.T @ (classes_NL - share_L))
    return lambda others_NF: ((others_NF - mean_F) @ weights_FL + share_L).argmax(axis=1)
