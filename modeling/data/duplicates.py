"""Images that are the same picture: by their bytes, and near duplicates by their thumbnails.

Near duplicates are found in two steps. A perceptual hash brings up candidates. Each is then confirmed on the
thumbnails: what stands out from its surroundings must stand out at the same places in both. Flat images, glyphs and
products photographed twice have the same broad light and shade; only copies share the detail. Images smaller than a
thumbnail hold little of it: different hands draw the same stroke; so stricter limits hold for them.

Where a fixed camera images at one thing after another, all images are so much alike that likeness proves nothing. So a
set of near duplicates that grows beyond a few images is taken apart again by stricter limits, and given up where
it stays as large: such images are told as look-alikes, and only exact copies among them count.

All comparisons are of whole numbers, so that the duplicates, and with them the split and the model, are the same on
every processor: quotients are multiplied out, and roots are squared or rounded down.

The limits were set by eye on photographs of pets, products and postcards, on CIFAR-10, on handwritten digits and on
printed characters, where they find the same picture encoded, resized, brightened, cropped by a hundredth or printed
twice, and nothing else.
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
from modeling.data.perceptual_hash import Pairs, Thumbnails, by_chunks, candidates, luma


@dataclass(frozen=True, slots=True)
class Limits:
    """When two thumbnails show the same picture.

    min_detail: correlation of their details, in hundredths.
    max_deviation: of any luma, in hundredths of the image's standard deviation: another letter, or a thing that moved.
    max_chroma: mean difference of 255: the same thing in another colour is another thing.
    """

    min_detail: int
    max_deviation: int
    max_chroma: int


@dataclass(frozen=True, slots=True, eq=False)
class Standardised:
    """Thumbnails, and what gives the luma of each the mean 0 and the deviation 1: (luma * scale - shift) / 2**20.

    scales_N: 0 for a flat image, whose deviation is less than a level of 255.
    """

    thumbnails_ND: Thumbnails
    scales_N: NDArray[np.int32]
    shifts_N: NDArray[np.int32]


Test = Callable[[Standardised, Pairs, Limits], NDArray[np.bool_]]
"""Whether pairs of thumbnails pass a test of theirs."""

COPY = Limits(min_detail=70, max_deviation=130, max_chroma=6)
SMALL = Limits(min_detail=90, max_deviation=70, max_chroma=4)
STRICT = Limits(min_detail=97, max_deviation=35, max_chroma=3)
MAX_STRETCH = 105  # hundredths between the aspect ratios
MAX_SET = 10  # different files that show one picture; copies of copies are seldom more
_MIN_DETAIL = GREY_SIDE**2 * 27**2 // 4  # sum of squares, in ninths of a level: below 1.5 levels (RMS) it is noise
_UNIT_BITS = 20  # below the point of a deviation: 255 levels times a scale then have 28 bits of 31
_SKETCH_BITS = 5  # below the point of a deviation


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Images that show the same picture: indices, ascending; `exact` where all have the same bytes."""

    indices: tuple[int, ...]
    exact: bool


@dataclass(frozen=True, slots=True)
class Likeness:
    """Sets of duplicates, in order; and indices of images that look too much alike to tell copies among them."""

    duplicates: tuple[Duplicates, ...]
    look_alikes: tuple[int, ...]


def find_duplicates(digests: Sequence[str], facts: Sequence[ImageFacts | None]) -> Likeness:
    """Sets of duplicates among the images that have facts; near ones only where there are thumbnails.

    Sets are connected: in one of near duplicates, each image is a copy of some other, not always of all others.
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
    found = (Duplicates(tuple(indices), _same(digests, indices)) for indices in sets.values() if len(indices) > 1)
    return Likeness(
        duplicates=tuple(sorted(found, key=lambda duplicates: duplicates.indices)),
        look_alikes=tuple(sorted(index for position in alike for index in copies[digests[firsts[position]]])),
    )


def group_numbers(num_images: int, duplicates: Iterable[Duplicates]) -> NDArray[np.int64]:
    """A number for each image, the same for duplicates: the index of the first of them."""
    groups_N = np.arange(num_images, dtype=np.int64)
    for found in duplicates:
        groups_N[list(found.indices)] = found.indices[0]
    return groups_N


def _same(digests: Sequence[str], indices: Sequence[int]) -> bool:
    return len({digests[index] for index in indices}) == 1


def _connected(pairs_P2: Pairs) -> list[list[int]]:
    """Connected components of more than one, each in order."""
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
    pairs_P2 = _of_one_shape(sizes_N2, candidates(thumbnails_ND))
    images = standardised(thumbnails_ND)
    pairs_P2 = _sketched_alike(_sketches(images), pairs_P2)
    small_P = (sizes_N2.min(axis=1) < GREY_SIDE)[pairs_P2].any(axis=1)
    kept = [confirmed(images, pairs_P2[~small_P], COPY), confirmed(images, pairs_P2[small_P], SMALL)]
    pairs_P2 = np.concatenate(kept)
    few, many = _by_size(_connected(pairs_P2))
    if not many:
        return few, []
    doubtful_P2 = pairs_P2[np.isin(pairs_P2[:, 0], np.concatenate(many))]
    apart, alike = _by_size(_connected(confirmed(images, doubtful_P2, STRICT)))
    return few + apart, [position for positions in alike for position in positions]


def _by_size(sets: list[list[int]]) -> tuple[list[list[int]], list[list[int]]]:
    """Sets that may well be copies of one picture, and those that are too large for it."""
    return [found for found in sets if len(found) <= MAX_SET], [found for found in sets if len(found) > MAX_SET]


def _of_one_shape(sizes_N2: NDArray[np.int64], pairs_P2: Pairs) -> Pairs:
    """Those pairs whose images are as wide for their height."""
    (widths_N, heights_N), (ours_P, theirs_P) = np.ascontiguousarray(sizes_N2.T), pairs_P2.T
    our_P, their_P = widths_N[ours_P] * heights_N[theirs_P], widths_N[theirs_P] * heights_N[ours_P]
    same_P: NDArray[np.bool_] = np.maximum(our_P, their_P) * 100 <= np.minimum(our_P, their_P) * MAX_STRETCH
    return pairs_P2[same_P]


def standardised(thumbnails_ND: Thumbnails) -> Standardised:
    """Thumbnails with what standardises them; so brightness and contrast do not count."""
    number = GREY_SIDE**2

    def moments(chunk_ND: Thumbnails) -> NDArray[np.int64]:
        flat = chunk_ND[:, :number].astype(np.int32)
        return np.stack([flat.sum(axis=1), np.einsum("nd,nd->n", flat, flat)], axis=1).astype(np.int64)

    sums_N, squares_N = by_chunks(moments, thumbnails_ND).T
    variances_N = number * squares_N - sums_N**2  # number**2 times as large
    squared_N = (number << _UNIT_BITS) ** 2 // np.maximum(variances_N, 1)
    scales_N = np.array([math.isqrt(squared) for squared in squared_N.tolist()], dtype=np.int64)
    scales_N[variances_N < number**2] = 0  # `_same_detail` finds no detail there: 4/3 of a deviation is the most
    shifts_N = (sums_N * scales_N + number // 2) // number
    return Standardised(thumbnails_ND, scales_N.astype(np.int32), shifts_N.astype(np.int32))


def _sketches(images: Standardised) -> NDArray[np.uint8]:
    """16 x 16 means of each standardised luma, in 32 steps to a deviation."""
    half = GREY_SIDE // 2
    shift = _UNIT_BITS + 2 - _SKETCH_BITS

    def sketched(chosen: NDArray[np.int64]) -> NDArray[np.uint8]:
        fields = luma(images.thumbnails_ND[chosen]).reshape(-1, half, 2, half, 2).astype(np.int32)
        sums_NHW = fields[:, :, 0, :, 0] + fields[:, :, 0, :, 1] + fields[:, :, 1, :, 0] + fields[:, :, 1, :, 1]
        scales_N1, shifts_N1 = images.scales_N[chosen, None], images.shifts_N[chosen, None]
        steps_NK = (sums_NHW.reshape(len(chosen), -1) * scales_N1 - 4 * shifts_N1 + (1 << shift - 1)) >> shift
        levels_NK: NDArray[np.uint8] = (steps_NK + 128).clip(0, 255).astype(np.uint8)
        return levels_NK

    return by_chunks(sketched, np.arange(len(images.thumbnails_ND)))


def _sketched_alike(sketches_NK: NDArray[np.uint8], pairs_P2: Pairs) -> Pairs:
    """Those pairs that `_same_light` may find alike, as a mean never differs by more than all that it is made of.

    Of digits, thousands of times as many pairs as there are copies come this far; this costs a fiftieth of the rest.
    """
    limit = (COPY.max_deviation << _SKETCH_BITS) // 100 + 1  # both are rounded

    def kept(chunk_P2: Pairs) -> Pairs:
        ours_PK, theirs_PK = (sketches_NK[chunk_P2[:, side]] for side in (0, 1))
        apart_P = (np.maximum(ours_PK, theirs_PK) - np.minimum(ours_PK, theirs_PK)).max(axis=1)
        alike_P2: Pairs = chunk_P2[apart_P <= limit]
        return alike_P2

    return by_chunks(kept, pairs_P2)


def confirmed(images: Standardised, pairs_P2: Pairs, limits: Limits) -> Pairs:
    """Those pairs whose thumbnails show the same picture."""
    for test in (_same_colours, _same_light, _same_detail):  # the cheap ones first
        pairs_P2 = by_chunks(partial(_passing, test, images, limits), pairs_P2)
    return pairs_P2


def _passing(test: Test, images: Standardised, limits: Limits, pairs_P2: Pairs) -> Pairs:
    return pairs_P2[test(images, pairs_P2, limits)]


def _same_colours(images: Standardised, pairs_P2: Pairs, limits: Limits) -> NDArray[np.bool_]:
    ours, theirs = (images.thumbnails_ND[pairs_P2[:, side], GREY_SIDE**2 :].astype(np.int16) for side in (0, 1))
    same_P: NDArray[np.bool_] = np.abs(ours - theirs).sum(axis=1) <= limits.max_chroma * ours.shape[1]
    return same_P


def _same_light(images: Standardised, pairs_P2: Pairs, limits: Limits) -> NDArray[np.bool_]:
    scales_P2 = images.scales_N[pairs_P2]
    ours, theirs = (
        images.thumbnails_ND[pairs_P2[:, side], : GREY_SIDE**2] * scales_P2[:, side, None] for side in (0, 1)
    )
    apart = ours - theirs
    apart -= np.subtract(*images.shifts_N[pairs_P2].T)[:, None]
    within_P = np.abs(apart).max(axis=1) <= (limits.max_deviation << _UNIT_BITS) // 100
    same_P: NDArray[np.bool_] = within_P & scales_P2.all(axis=1)  # what is flat shows nothing
    return same_P


def _same_detail(images: Standardised, pairs_P2: Pairs, limits: Limits) -> NDArray[np.bool_]:
    """Whether what differs from its 3 x 3 surroundings correlates; never where an image is flat but for noise."""
    ours, theirs = (_detail(luma(images.thumbnails_ND[pairs_P2[:, side]])) for side in (0, 1))
    couples = ((ours, theirs), (ours, ours), (theirs, theirs))
    both_P, our_P, their_P = (np.einsum("pd,pd->p", *couple).tolist() for couple in couples)
    passed = [  # in Python's integers, as products have up to 78 bits
        both > 0 and min(our, their) >= _MIN_DETAIL and (100 * both) ** 2 >= limits.min_detail**2 * our * their
        for both, our, their in zip(both_P, our_P, their_P, strict=True)
    ]
    return np.array(passed, dtype=np.bool_)


def _detail(images_PHW: Thumbnails) -> NDArray[np.int64]:
    """What differs from the mean of 3 x 3 px, in ninths of a level; flattened."""
    padded = np.pad(images_PHW, ((0, 0), (1, 1), (1, 1)), mode="edge").astype(np.int16)
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    around = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    detail: NDArray[np.int64] = (9 * padded[:, 1:-1, 1:-1] - around).reshape(-1, GREY_SIDE**2).astype(np.int64)
    return detail
