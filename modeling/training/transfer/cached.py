"""Features of a data set's images, from the cache where they are known."""

# Shapes: N images that are wanted, M images that are not in the cache, F features.
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from modeling.data.images import Images, Indices
from modeling.training.transfer.backbone import Backbone
from modeling.training.transfer.cache import FeatureCache
from modeling.training.transfer.features import Emit, Extractor, Features, extract_features

_SAVE_EVERY = 4096  # images; what an interrupted run has to compute again at most


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """Images of which features are wanted: the source, their indices in it, and the sha256 of their bytes."""

    images: Images
    indices_N: Indices
    digests_N: Sequence[str]


def cached_features(backbone: Backbone, wanted: Wanted, cache: FeatureCache | None, emit: Emit) -> Features:
    """Features NF of the wanted images in their order; computes those that the cache lacks, and keeps them there.

    A cache that cannot be written costs the next run time, and this one a note.

    Events: `{"event": "features", "num_done", "num_images"}`, where images from the cache count as done.

    Raises:
        DataError: an image cannot be read.
    """
    key, num_images = backbone.key(), len(wanted.indices_N)
    features_NF = np.zeros((num_images, backbone.num_features), dtype=np.float32)
    known_N = np.zeros(num_images, dtype=np.bool_)
    if cache is not None:
        features_NF, known_N = cache.load(key, wanted.digests_N, backbone.num_features)
    num_known = int(known_N.sum())
    emit({"event": "features", "num_done": num_known, "num_images": num_images})
    if num_known == num_images:
        return features_NF
    extractor = Extractor(backbone)
    missing_M = np.flatnonzero(~known_N)
    for start in range(0, len(missing_M), _SAVE_EVERY):
        rows = missing_M[start : start + _SAVE_EVERY]
        counts = _Counts(emit, num_known + start, num_images)
        features_NF[rows] = extract_features(extractor, wanted.images, wanted.indices_N[rows], counts)
        if cache is not None:
            _save(cache, key, [wanted.digests_N[row] for row in rows], features_NF[rows], emit)
    return features_NF


@dataclass(frozen=True, slots=True)
class _Counts:
    """Passes events on, counting those done before and all that are wanted."""

    emit: Emit
    num_before: int
    num_images: int

    def __call__(self, event: dict[str, object]) -> None:
        num_done = event["num_done"]
        assert isinstance(num_done, int)
        self.emit({**event, "num_done": self.num_before + num_done, "num_images": self.num_images})


def _save(cache: FeatureCache, key: str, digests_M: list[str], features_MF: Features, emit: Emit) -> None:
    try:
        cache.save(key, digests_M, features_MF)
    except OSError as err:
        emit({"event": "note", "text": f"the features were not kept for the next run: {err}"})
