"""Finds duplicates: exact ones by the images' bytes, near duplicates by their thumbnails.

Near duplicates are found in two steps. A perceptual hash proposes candidate pairs. Each pair is then confirmed on the
thumbnails: the local detail of both must correlate. Flat images, glyphs and products photographed twice have the same
coarse light and shade; only copies share the detail. Images smaller than a thumbnail have little detail (different
hands draw the same stroke), so stricter limits apply to them.

If a fixed camera takes all images, they are so similar that similarity does not prove a copy. A set of near
duplicates with more than a few images is therefore divided again with stricter limits; if it is still as large, its
images are reported as look-alikes, and only exact copies among them count as duplicates.

All comparisons use integers, so that duplicates, and with them the split and the model, are the same on every
processor: quotients are multiplied out, and roots are squared or rounded down.

The limits were chosen by inspecting photographs of pets, products and postcards, CIFAR-10, handwritten digits and
printed characters: there they find pictures that were re-encoded, resized, brightened, cropped by 1 percent or printed
twice, and no others.
"""

# Shapes: N images, P pairs, H and W 32 (a thumbnail's luma), D bytes of a thumbnail, K numbers of a sketch.
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from modeling.data.facts import GREY_SIDE, THUMBNAIL_BYTES, ImageFacts
from modeling.data.perceptual_hash import Pairs, Thumbnails, candidate_pairs, luma, map_chunks


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
    """Thumbnails with the scale and shift that standardise each luma: (luma * scale - shift) / 2**20.

    scales_N: 0 for a flat image, whose standard deviation is below one level of 255.
    """

    thumbnails_ND: Thumbnails
    scales_N: NDArray[np.int32]
    shifts_N: NDArray[np.int32]


Test = Callable[[StandardisedThumbnails, Pairs, Limits], NDArray[np.bool_]]
"""A test of pairs of thumbnails."""

COPY = Limits(min_detail=70, max_deviation=130, max_chroma=6)
SMALL = Limits(min_detail=90, max_deviation=70, max_chroma=4)
STRICT = Limits(min_detail=97, max_deviation=35, max_chroma=3)
MAX_STRETCH = 105  # largest ratio of two aspect ratios, in hundredths
MAX_SET = 10  # different files that show one picture; more copies are rare
_MIN_DETAIL = GREY_SIDE**2 * 27**2 // 4  # sum of squares, in ninths of a level: below 1.5 levels (RMS) it is noise
_UNIT_BITS = 20  # fractional bits of a scale: 255 levels times a scale then need 28 of 31 bits
_SKETCH_BITS = 5  # fractional bits of a sketch


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Images that show the same picture: indices, ascending; `exact` if all have the same bytes."""

    indices: tuple[int, ...]
    exact: bool


@dataclass(frozen=True, slots=True)
class DuplicateResult:
    """Sets of duplicates, in order; and indices of images that are too similar to detect copies among them."""

    duplicates: tuple[Duplicates, ...]
    look_alikes: tuple[int, ...]


def find_duplicates(digests: Sequence[str], facts: Sequence[ImageFacts | None]) -> DuplicateResult:
    """Sets of duplicates among the images that have facts; near duplicates only if all have thumbnails.

    Sets are connected components: each image is a near duplicate of some other in its set, not always of all others.
    """
    copies = defaultdict[str, list[int]](list)
    for index, (digest, fact) in enumerate(zip(digests, facts, strict=True)):
        if fact is not None:
            copies[digest].append(index)
    firsts = [indices[0] for indices in copies.values()]
    near, alike = _near_sets([facts[index] for index in firsts])
    sets = {indices[0]: indices for indices in copies.values()}
    for merged in near:
        members = [firsts[position] for position in merged]
        sets[members[0]] = sorted(index for first in members for index in sets[first])
        for first in members[1:]:
            del sets[first]
    found = (
        Duplicates(tuple(indices), exact=len({digests[index] for index in indices}) == 1)
        for indices in sets.values()
        if len(indices) > 1
    )
    return DuplicateResult(
        duplicates=tuple(sorted(found, key=lambda duplicates: duplicates.indices)),
        look_alikes=tuple(sorted(index for position in alike for index in copies[digests[firsts[position]]])),
    )


def group_numbers(num_images: int, duplicates: Iterable[Duplicates]) -> NDArray[np.int64]:
    """A number for each image, the same for duplicates: the index of the first of them."""
    groups_N = np.arange(num_images, dtype=np.int64)
    for found in duplicates:
        groups_N[list(found.indices)] = found.indices[0]
    return groups_N


def _connected(pairs_P2: Pairs) -> list[list[int]]:
    """Connected components with more than one image, each sorted."""
    component: dict[int, set[int]] = {}
    for first, second in pairs_P2.tolist():
        ours, theirs = component.get(first, {first}), component.get(second, {second})
        if ours is not theirs:
            small, large = sorted((ours, theirs), key=len)
            large |= small
            component.update(dict.fromkeys(small, large))
            component.update({first: large, second: large})
    return [sorted(found) for found in {id(found): found for found in component.values()}.values()]


def _near_sets(facts: Sequence[ImageFacts | None]) -> tuple[list[list[int]], list[int]]:
    """Positions of near duplicates by set, and of look-alikes."""
    if len(facts) < 2 or not all(fact is not None and fact.thumbnail for fact in facts):
        return [], []
    thumbnails = b"".join(fact.thumbnail for fact in facts if fact is not None)
    thumbnails_ND = np.frombuffer(thumbnails, dtype=np.uint8).reshape(-1, THUMBNAIL_BYTES)
    sizes_N2 = np.array([fact.size for fact in facts if fact is not None])
    pairs_P2 = _same_aspect_ratio(sizes_N2, candidate_pairs(thumbnails_ND))
    images = standardise(thumbnails_ND)
    pairs_P2 = _similar_sketches(_sketches(images), pairs_P2)
    small_P = (sizes_N2.min(axis=1) < GREY_SIDE)[pairs_P2].any(axis=1)
    kept = [confirm_pairs(images, pairs_P2[~small_P], COPY), confirm_pairs(images, pairs_P2[small_P], SMALL)]
    pairs_P2 = np.concatenate(kept)
    few, many = _split_by_size(_connected(pairs_P2))
    if not many:
        return few, []
    doubtful_P2 = pairs_P2[np.isin(pairs_P2[:, 0], np.concatenate(many))]
    apart, alike = _split_by_size(_connected(confirm_pairs(images, doubtful_P2, STRICT)))
    return few + apart, [position for positions in alike for position in positions]


def _split_by_size(sets: list[list[int]]) -> tuple[list[list[int]], list[list[int]]]:
    """Sets small enough to be copies of one picture, and sets that are too large."""
    return [found for found in sets if len(found) <= MAX_SET], [found for found in sets if len(found) > MAX_SET]


def _same_aspect_ratio(sizes_N2: NDArray[np.int64], pairs_P2: Pairs) -> Pairs:
    """The pairs whose images have the same aspect ratio."""
    (widths_N, heights_N), (ours_P, theirs_P) = np.ascontiguousarray(sizes_N2.T), pairs_P2.T
    our_P, their_P = widths_N[ours_P] * heights_N[theirs_P], widths_N[theirs_P] * heights_N[ours_P]
    same_P: NDArray[np.bool_] = np.maximum(our_P, their_P) * 100 <= np.minimum(our_P, their_P) * MAX_STRETCH
    return pairs_P2[same_P]


def standardise(thumbnails_ND: Thumbnails) -> StandardisedThumbnails:
    """Standardise thumbnails, so that brightness and contrast do not matter."""
    number = GREY_SIDE**2

    def moments(chunk_ND: Thumbnails) -> NDArray[np.int64]:
        flat = chunk_ND[:, :number].astype(np.int32)
        return np.stack([flat.sum(axis=1), np.einsum("nd,nd->n", flat, flat)], axis=1).astype(np.int64)

    sums_N, squares_N = map_chunks(moments, thumbnails_ND).T
    variances_N = number * squares_N - sums_N**2  # times number**2
    squared_N = (number << _UNIT_BITS) ** 2 // np.maximum(variances_N, 1)
    scales_N = np.array([math.isqrt(squared) for squared in squared_N.tolist()], dtype=np.int64)
    scales_N[variances_N < number**2] = 0  # `_same_detail` finds no detail there: it is at most 4/3 of a deviation
    shifts_N = (sums_N * scales_N + number // 2) // number
    return StandardisedThumbnails(thumbnails_ND, scales_N.astype(np.int32), shifts_N.astype(np.int32))


def _sketches(images: StandardisedThumbnails) -> NDArray[np.uint8]:
    """16 x 16 means of each standardised luma, in 32 steps per standard deviation."""
    half = GREY_SIDE // 2
    shift = _UNIT_BITS + 2 - _SKETCH_BITS

    def sketched(chosen: NDArray[np.int64]) -> NDArray[np.uint8]:
        fields = luma(images.thumbnails_ND[chosen]).reshape(-1, half, 2, half, 2).astype(np.int32)
        sums_NHW = fields[:, :, 0, :, 0] + fields[:, :, 0, :, 1] + fields[:, :, 1, :, 0] + fields[:, :, 1, :, 1]
        scales_N1, shifts_N1 = images.scales_N[chosen, None], images.shifts_N[chosen, None]
        steps_NK = (sums_NHW.reshape(len(chosen), -1) * scales_N1 - 4 * shifts_N1 + (1 << shift - 1)) >> shift
        levels_NK: NDArray[np.uint8] = (steps_NK + 128).clip(0, 255).astype(np.uint8)
        return levels_NK

    return map_chunks(sketched, np.arange(len(images.thumbnails_ND)))


def _similar_sketches(sketches_NK: NDArray[np.uint8], pairs_P2: Pairs) -> Pairs:
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
        pairs_P2 = map_chunks(partial(_filter_pairs, test, images, limits), pairs_P2)
    return pairs_P2


def _filter_pairs(test: Test, images: StandardisedThumbnails, limits: Limits, pairs_P2: Pairs) -> Pairs:
    return pairs_P2[test(images, pairs_P2, limits)]


def _same_colours(images: StandardisedThumbnails, pairs_P2: Pairs, limits: Limits) -> NDArray[np.bool_]:
    ours, theirs = (images.thumbnails_ND[pairs_P2[:, side], GREY_SIDE**2 :].astype(np.int16) for side in (0, 1))
    same_P: NDArray[np.bool_] = np.abs(ours - theirs).sum(axis=1) <= limits.max_chroma * ours.shape[1]
    return same_P


def _same_light(images: StandardisedThumbnails, pairs_P2: Pairs, limits: Limits) -> NDArray[np.bool_]:
    scales_P2 = images.scales_N[pairs_P2]
    ours, theirs = (
        images.thumbnails_ND[pairs_P2[:, side], : GREY_SIDE**2] * scales_P2[:, side, None] for side in (0, 1)
    )
    apart = ours - theirs
    apart -= np.subtract(*images.shifts_N[pairs_P2].T)[:, None]
    within_P = np.abs(apart).max(axis=1) <= (limits.max_deviation << _UNIT_BITS) // 100
    same_P: NDArray[np.bool_] = within_P & scales_P2.all(axis=1)  # flat images show nothing
    return same_P


def _same_detail(images: StandardisedThumbnails, pairs_P2: Pairs, limits: Limits) -> NDArray[np.bool_]:
    """Whether the differences from the 3 x 3 neighbourhood correlate; False if an image has only noise."""
    ours, theirs = (_detail(luma(images.thumbnails_ND[pairs_P2[:, side]])) for side in (0, 1))
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
