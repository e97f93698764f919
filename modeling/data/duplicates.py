"""Images that are the same picture: by their bytes, and near duplicates by their thumbnails.

Near duplicates are found in two steps. A perceptual hash brings up candidates. Each is then confirmed on the
thumbnails: what stands out from its surroundings must stand out at the same places in both. Flat images, glyphs and
products photographed twice have the same broad light and shade; only copies share the detail. Images smaller than a
thumbnail hold little of it: different hands draw the same stroke; so stricter limits hold for them.

Where a fixed camera looks at one thing after another, all images are so much alike that likeness proves nothing. So a
set of near duplicates that grows beyond a few images is taken apart again by stricter limits, and given up where
it stays as large: such images are told as look-alikes, and only exact copies among them count.

The limits were set by eye on photographs of pets, products and postcards, on CIFAR-10, on handwritten digits and on
printed characters, where they find the same picture encoded, resized, brightened, cropped by a hundredth or printed
twice, and nothing else.
"""

# Shapes: N images, P pairs, H and W 32 (a thumbnail's luma), D bytes of a thumbnail, K numbers of a sketch.
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from modeling.data.facts import GREY_SIDE, THUMBNAIL_BYTES, ImageFacts
from modeling.data.perceptual_hash import Floats, Pairs, Thumbnails, by_chunks, candidates, luma


@dataclass(frozen=True, slots=True)
class Limits:
    """When two thumbnails show the same picture.

    min_detail: correlation of their details.
    max_deviation: of any luma, in standard deviations of the image: another letter, or a thing that was moved.
    max_chroma: mean difference of 255: the same thing in another colour is another thing.
    """

    min_detail: float
    max_deviation: float
    max_chroma: float


Test = Callable[[Thumbnails, Thumbnails, Limits], NDArray[np.bool_]]
"""Whether pairs of thumbnails pass a test of theirs."""

COPY = Limits(min_detail=0.70, max_deviation=1.3, max_chroma=6.0)
SMALL = Limits(min_detail=0.90, max_deviation=0.7, max_chroma=4.0)
STRICT = Limits(min_detail=0.97, max_deviation=0.35, max_chroma=3.0)
MAX_STRETCH = 1.05  # between the aspect ratios
MAX_SET = 10  # different files that show one picture; copies of copies are seldom more
_MIN_DETAIL_LEVELS = 1.5  # of 255: detail below this is noise
_SKETCH_STEPS = 32


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
    pairs_P2 = _sketched_alike(_sketches(thumbnails_ND), pairs_P2)
    small_P = (sizes_N2.min(axis=1) < GREY_SIDE)[pairs_P2].any(axis=1)
    kept = [_confirmed(thumbnails_ND, pairs_P2[~small_P], COPY), _confirmed(thumbnails_ND, pairs_P2[small_P], SMALL)]
    pairs_P2 = np.concatenate(kept)
    few, many = _by_size(_connected(pairs_P2))
    if not many:
        return few, []
    doubtful_P2 = pairs_P2[np.isin(pairs_P2[:, 0], np.concatenate(many))]
    apart, alike = _by_size(_connected(_confirmed(thumbnails_ND, doubtful_P2, STRICT)))
    return few + apart, [position for positions in alike for position in positions]


def _by_size(sets: list[list[int]]) -> tuple[list[list[int]], list[list[int]]]:
    """Sets that may well be copies of one picture, and those that are too large for it."""
    return [found for found in sets if len(found) <= MAX_SET], [found for found in sets if len(found) > MAX_SET]


def _of_one_shape(sizes_N2: NDArray[np.int64], pairs_P2: Pairs) -> Pairs:
    """Those pairs whose images are as wide for their height."""
    aspects_N = sizes_N2[:, 0] / sizes_N2[:, 1]
    stretch_P = aspects_N[pairs_P2[:, 0]] / aspects_N[pairs_P2[:, 1]]
    return pairs_P2[np.maximum(stretch_P, 1 / stretch_P) <= MAX_STRETCH]


def _sketches(thumbnails_ND: Thumbnails) -> NDArray[np.uint8]:
    """16 x 16 means of each standardised luma, in steps of 1 / _SKETCH_STEPS deviations."""

    def sketched(chunk_ND: Thumbnails) -> NDArray[np.uint8]:
        fields = _standardised(luma(chunk_ND)).reshape(len(chunk_ND), GREY_SIDE // 2, 2, GREY_SIDE // 2, 2)
        sums_NHW = fields[:, :, 0, :, 0] + fields[:, :, 0, :, 1] + fields[:, :, 1, :, 0] + fields[:, :, 1, :, 1]
        steps_NK = np.rint(sums_NHW * (_SKETCH_STEPS / 4)).reshape(len(chunk_ND), -1)
        levels_NK: NDArray[np.uint8] = (steps_NK + 128).clip(0, 255).astype(np.uint8)
        return levels_NK

    return by_chunks(sketched, thumbnails_ND)


def _sketched_alike(sketches_NK: NDArray[np.uint8], pairs_P2: Pairs) -> Pairs:
    """Those pairs that `_same_light` may find alike, as a mean never differs by more than all that it is made of.

    Of digits, thousands of times as many pairs as there are copies come this far; this costs a fiftieth of the rest.
    """
    limit = COPY.max_deviation * _SKETCH_STEPS + 1  # both are rounded

    def kept(chunk_P2: Pairs) -> Pairs:
        ours_PK, theirs_PK = (sketches_NK[chunk_P2[:, side]] for side in (0, 1))
        apart_P = (np.maximum(ours_PK, theirs_PK) - np.minimum(ours_PK, theirs_PK)).max(axis=1)
        alike_P2: Pairs = chunk_P2[apart_P <= limit]
        return alike_P2

    return by_chunks(kept, pairs_P2)


def _confirmed(thumbnails_ND: Thumbnails, pairs_P2: Pairs, limits: Limits) -> Pairs:
    """Those pairs whose thumbnails show the same picture."""
    for test in (_same_colours, _same_light, _same_detail):  # the cheap ones first
        pairs_P2 = by_chunks(partial(_passing, test, thumbnails_ND, limits), pairs_P2)
    return pairs_P2


def _passing(test: Test, thumbnails_ND: Thumbnails, limits: Limits, pairs_P2: Pairs) -> Pairs:
    ours_PD, theirs_PD = (thumbnails_ND[pairs_P2[:, side]] for side in (0, 1))
    return pairs_P2[test(ours_PD, theirs_PD, limits)]


def _same_colours(ours_PD: Thumbnails, theirs_PD: Thumbnails, limits: Limits) -> NDArray[np.bool_]:
    ours, theirs = (chosen[:, GREY_SIDE**2 :].astype(np.int16) for chosen in (ours_PD, theirs_PD))
    same_P: NDArray[np.bool_] = np.abs(ours - theirs).mean(axis=1) <= limits.max_chroma
    return same_P


def _same_light(ours_PD: Thumbnails, theirs_PD: Thumbnails, limits: Limits) -> NDArray[np.bool_]:
    ours, theirs = (_standardised(luma(chosen)) for chosen in (ours_PD, theirs_PD))
    same_P: NDArray[np.bool_] = np.abs(ours - theirs).max(axis=1) <= limits.max_deviation
    return same_P


def _same_detail(ours_PD: Thumbnails, theirs_PD: Thumbnails, limits: Limits) -> NDArray[np.bool_]:
    return _detail_correlation(luma(ours_PD), luma(theirs_PD)) >= limits.min_detail


def _standardised(images_PHW: Floats) -> Floats:
    """Of each image: mean 0 and deviation 1, flattened; so brightness and contrast do not count."""
    flat = images_PHW.reshape(-1, GREY_SIDE**2)
    centred = flat - flat.mean(axis=1, keepdims=True)
    scaled: Floats = centred / np.maximum(centred.std(axis=1, keepdims=True), 1e-6)
    return scaled


def _detail_correlation(ours_PHW: Floats, theirs_PHW: Floats) -> Floats:
    """Correlation of what differs from its 3 x 3 surroundings; 0 where an image is flat but for noise."""
    ours, theirs = _detail(ours_PHW), _detail(theirs_PHW)
    strengths = [np.sqrt((detail**2).mean(axis=1)) for detail in (ours, theirs)]
    product = np.maximum(strengths[0] * strengths[1], 1e-6)
    correlation_P: Floats = (ours * theirs).mean(axis=1) / product
    return np.where(np.minimum(*strengths) >= _MIN_DETAIL_LEVELS, correlation_P, np.float32(0))


def _detail(images_PHW: Floats) -> Floats:
    padded = np.pad(images_PHW, ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    around = (rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]) / np.float32(9)
    detail: Floats = (images_PHW - around).reshape(-1, GREY_SIDE**2)
    return detail
