"""Tests of pairs of thumbnails: whether both show the same picture.

The local detail of both must correlate. Flat images, glyphs and products photographed twice have the same coarse light
and shade; only copies share the detail. Images smaller than a thumbnail have little detail (different hands draw the
same stroke), so stricter limits apply to them.

All comparisons use integers, so that duplicates, and with them the split and the model, are the same on every
processor: quotients are multiplied out, and roots are squared or rounded down.

The limits were chosen by inspecting photographs of pets, products and postcards, CIFAR-10, handwritten digits and
printed characters: there they find pictures that were re-encoded, resized, brightened, cropped by 1 percent or printed
twice, and no others.
"""

# Shapes: N images, P pairs, H and W 32 (a thumbnail's luma), D bytes of a thumbnail, K numbers of a sketch.
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from modeling.data.facts import GREY_SIDE
from modeling.data.perceptual_hash import Indices, Pairs, Thumbnails, each_chunk, luma, map_chunks
from modeling.data.scratch import Keep, in_memory


@dataclass(frozen=True, slots=True)
class Limits:
    """When two thumbnails show the same picture.

    min_detail: correlation of their details, in hundredths.
    max_deviation: of any luma value, in hundredths of the image's standard deviation: rejects another letter, or an
        object that moved.
    max_chroma: mean difference in levels of 255: rejects the same object in another colour.
    """

    min_detail: int
    max_deviation: int
    max_chroma: int


@dataclass(frozen=True, slots=True, eq=False)
class StandardisedThumbnails:
    """Images by number: the rows of their thumbnails, and the scale and shift that standardise each luma:
    (luma * scale - shift) / 2**20.

    scales_N: 0 for a flat image, whose standard deviation is below one level of 255.
    """

    thumbnails_ND: Thumbnails
    rows_N: Indices
    scales_N: NDArray[np.int32]
    shifts_N: NDArray[np.int32]

    def of(self, chosen: Indices) -> Thumbnails:
        """The thumbnails of these images."""
        thumbnails_ND: Thumbnails = self.thumbnails_ND[self.rows_N[chosen]]
        return thumbnails_ND


Test = Callable[[StandardisedThumbnails, Pairs, Limits], NDArray[np.bool_]]
"""A test of pairs of thumbnails."""

COPY = Limits(min_detail=70, max_deviation=130, max_chroma=6)
SMALL = Limits(min_detail=90, max_deviation=70, max_chroma=4)
STRICT = Limits(min_detail=97, max_deviation=35, max_chroma=3)
MAX_STRETCH = 105  # largest ratio of two aspect ratios, in hundredths
_MIN_DETAIL = GREY_SIDE**2 * 27**2 // 4  # sum of squares, in ninths of a level: below 1.5 levels (RMS) it is noise
_UNIT_BITS = 20  # fractional bits of a scale: 255 levels times a scale then need 28 of 31 bits
_PAIRS_AT_ONCE = 256  # to confirm: a pair takes 30 kB meanwhile
_SKETCH_BITS = 5  # fractional bits of a sketch


def standardise(thumbnails_ND: Thumbnails, rows_N: Indices | None = None) -> StandardisedThumbnails:
    """Standardise thumbnails, so that brightness and contrast do not matter; rows_N: only these, in that order."""
    if rows_N is None:
        rows_N = np.arange(len(thumbnails_ND))
    scales_N, shifts_N = map_chunks(lambda chunk_N: _scales_and_shifts(thumbnails_ND[chunk_N]), rows_N).T
    return StandardisedThumbnails(thumbnails_ND, rows_N, scales_N.copy(), shifts_N.copy())


def _scales_and_shifts(thumbnails_ND: Thumbnails) -> NDArray[np.int32]:
    number = GREY_SIDE**2
    flat = thumbnails_ND[:, :number].astype(np.int32)
    sums_N = flat.sum(axis=1).astype(np.int64)
    variances_N = number * np.einsum("nd,nd->n", flat, flat).astype(np.int64) - sums_N**2  # times number**2
    squared_N = (number << _UNIT_BITS) ** 2 // np.maximum(variances_N, 1)
    scales_N = np.array([math.isqrt(squared) for squared in squared_N.tolist()], dtype=np.int64)
    scales_N[variances_N < number**2] = 0  # `_same_detail` finds no detail there: it is at most 4/3 of a deviation
    shifts_N = (sums_N * scales_N + number // 2) // number
    return np.stack([scales_N, shifts_N], axis=1).astype(np.int32)


def sketches(images: StandardisedThumbnails, keep: Keep = in_memory) -> NDArray[np.uint8]:
    """16 x 16 means of each standardised luma, in 32 steps per standard deviation."""
    half = GREY_SIDE // 2
    shift = _UNIT_BITS + 2 - _SKETCH_BITS

    def sketched(chosen: Indices) -> NDArray[np.uint8]:
        fields = luma(images.of(chosen)).reshape(-1, half, 2, half, 2).astype(np.int32)
        sums_NHW = fields[:, :, 0, :, 0] + fields[:, :, 0, :, 1] + fields[:, :, 1, :, 0] + fields[:, :, 1, :, 1]
        scales_N1, shifts_N1 = images.scales_N[chosen, None], images.shifts_N[chosen, None]
        steps_NK = (sums_NHW.reshape(len(chosen), -1) * scales_N1 - 4 * shifts_N1 + (1 << shift - 1)) >> shift
        levels_NK: NDArray[np.uint8] = (steps_NK + 128).clip(0, 255).astype(np.uint8)
        return levels_NK

    return keep(each_chunk(sketched, np.arange(len(images.rows_N))))


def similar_sketches(sketches_NK: NDArray[np.uint8], pairs_P2: Pairs) -> Pairs:
    """The pairs that `_same_light` may accept: means differ by at most the largest difference of their values.

    For digits there are thousands of times as many candidates as copies; this test costs a fiftieth of the others.
    """
    limit = (COPY.max_deviation << _SKETCH_BITS) // 100 + 1  # both are rounded

    def kept(chunk_P2: Pairs) -> Pairs:
        ours_PK, theirs_PK = (sketches_NK[chunk_P2[:, side]] for side in (0, 1))
        apart_P = (np.maximum(ours_PK, theirs_PK) - np.minimum(ours_PK, theirs_PK)).max(axis=1)
        alike_P2: Pairs = chunk_P2[apart_P <= limit]
        return alike_P2

    return map_chunks(kept, pairs_P2)


def confirm_pairs(images: StandardisedThumbnails, pairs_P2: Pairs, limits: Limits) -> Pairs:
    """The pairs whose thumbnails show the same picture."""
    for test in (_same_colours, _same_light, _same_detail):  # the cheap ones first
        pairs_P2 = map_chunks(partial(_filter_pairs, test, images, limits), pairs_P2, _PAIRS_AT_ONCE)
    return pairs_P2


def _filter_pairs(test: Test, images: StandardisedThumbnails, limits: Limits, pairs_P2: Pairs) -> Pairs:
    return pairs_P2[test(images, pairs_P2, limits)]


def _same_colours(images: StandardisedThumbnails, pairs_P2: Pairs, limits: Limits) -> NDArray[np.bool_]:
    ours, theirs = (images.of(pairs_P2[:, side])[:, GREY_SIDE**2 :].astype(np.int16) for side in (0, 1))
    same_P: NDArray[np.bool_] = np.abs(ours - theirs).sum(axis=1) <= limits.max_chroma * ours.shape[1]
    return same_P


def _same_light(images: StandardisedThumbnails, pairs_P2: Pairs, limits: Limits) -> NDArray[np.bool_]:
    scales_P2 = images.scales_N[pairs_P2]
    ours, theirs = (images.of(pairs_P2[:, side])[:, : GREY_SIDE**2] * scales_P2[:, side, None] for side in (0, 1))
    apart = ours - theirs
    apart -= np.subtract(*images.shifts_N[pairs_P2].T)[:, None]
    within_P = np.abs(apart).max(axis=1) <= (limits.max_deviation << _UNIT_BITS) // 100
    same_P: NDArray[np.bool_] = within_P & scales_P2.all(axis=1)  # flat images show nothing
    return same_P


def _same_detail(images: StandardisedThumbnails, pairs_P2: Pairs, limits: Limits) -> NDArray[np.bool_]:
    """Whether the differences from the 3 x 3 neighbourhood correlate; False if an image has only noise."""
    ours, theirs = (_detail(luma(images.of(pairs_P2[:, side]))) for side in (0, 1))
    couples = ((ours, theirs), (ours, ours), (theirs, theirs))
    both_P, our_P, their_P = (np.einsum("pd,pd->p", *couple).tolist() for couple in couples)
    passed = [  # Python integers: products have up to 78 bits
        both > 0 and min(our, their) >= _MIN_DETAIL and (100 * both) ** 2 >= limits.min_detail**2 * our * their
        for both, our, their in zip(both_P, our_P, their_P, strict=True)
    ]
    return np.array(passed, dtype=np.bool_)


def _detail(images_PHW: Thumbnails) -> NDArray[np.int64]:
    """The difference from the mean of 3 x 3 px, in ninths of a level; flattened."""
    padded = np.pad(images_PHW, ((0, 0), (1, 1), (1, 1)), mode="edge").astype(np.int16)
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    around = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    detail: NDArray[np.int64] = (9 * padded[:, 1:-1, 1:-1] - around).reshape(-1, GREY_SIDE**2).astype(np.int64)
    return detail
