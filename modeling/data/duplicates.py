"""Finds duplicates: exact ones by the images' bytes, near duplicates by their thumbnails.

Near duplicates are found in two steps. A perceptual hash proposes candidate pairs. Each pair is then confirmed on the
thumbnails (`same_picture.py`).

If a fixed camera takes all images, they are so similar that similarity does not prove a copy. A set of near
duplicates with more than a few images is therefore divided again with stricter limits; if it is still as large, its
images are reported as look-alikes, and only exact copies among them count as duplicates.

Pairs are not collected: each joins two sets and is forgotten, so millions of images need memory for each image, not
for each pair.
"""

# Shapes: N images, U images of different content, P pairs, D bytes of a thumbnail or a digest, G groups.
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modeling.data.components import Components
from modeling.data.facts import GREY_SIDE, THUMBNAIL_BYTES, ImageFacts
from modeling.data.perceptual_hash import Indices, Pairs, Thumbnails, candidate_pairs
from modeling.data.same_picture import (
    COPY,
    MAX_STRETCH,
    SMALL,
    STRICT,
    StandardisedThumbnails,
    confirm_pairs,
    similar_sketches,
    sketches,
    standardise,
)
from modeling.data.scratch import Keep, in_memory

MAX_SET = 10  # different files that show one picture; more copies are rare


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


@dataclass(frozen=True, slots=True, eq=False)
class Grouping:
    """The same for each image: the index of the first duplicate of it, or its own; whether all duplicates of it have
    the same bytes; whether it is a look-alike.
    """

    groups_N: Indices
    exact_N: NDArray[np.bool_]
    alike_N: NDArray[np.bool_]


def find_duplicates(digests: Sequence[str], facts: Sequence[ImageFacts | None]) -> DuplicateResult:
    """Sets of duplicates among the images that have facts; near duplicates only if all have thumbnails.

    Sets are connected components: each image is a near duplicate of some other in its set, not always of all others.
    """
    read = [index for index, fact in enumerate(facts) if fact is not None]
    number: dict[str, int] = {}
    contents_N = np.array([number.setdefault(digests[index], len(number)) for index in read], dtype=np.int64)
    held = [fact for fact in facts if fact is not None]
    sizes_N2 = np.array([fact.size for fact in held], dtype=np.int64).reshape(-1, 2)
    thumbnails_ND = None
    if all(fact.thumbnail for fact in held):
        joined = b"".join(fact.thumbnail for fact in held)
        thumbnails_ND = np.frombuffer(joined, dtype=np.uint8).reshape(-1, THUMBNAIL_BYTES)
    grouping = group_images(contents_N, thumbnails_ND, sizes_N2)
    indices_N = np.array(read, dtype=np.int64)
    return DuplicateResult(
        duplicates=tuple(
            Duplicates(tuple(indices_N[members].tolist()), exact=bool(grouping.exact_N[members[0]]))
            for members in members_of(grouping.groups_N)
        ),
        look_alikes=tuple(indices_N[grouping.alike_N].tolist()),
    )


def group_images(
    contents_N: Indices,
    thumbnails_ND: Thumbnails | None,
    sizes_N2: NDArray[np.integer],
    keep: Keep = in_memory,
) -> Grouping:
    """Group duplicates; near ones only if there are thumbnails.

    contents_N: a number for each image, the same for images with the same bytes. sizes_N2: width and height in px.
    keep: where arrays of hundreds of bytes for each image are kept.
    """
    firsts_U, content_N = _different(contents_N)
    near_U, alike_U = np.arange(len(firsts_U)), np.zeros(len(firsts_U), dtype=np.bool_)
    if thumbnails_ND is not None and len(firsts_U) > 1:
        images = standardise(thumbnails_ND, firsts_U)
        near_U, alike_U = _near_sets(images, sizes_N2[firsts_U], keep)
    alone_U = np.bincount(near_U, minlength=len(near_U))[near_U] == 1
    return Grouping(firsts_U[near_U][content_N], alone_U[content_N], alike_U[content_N])


def _different(contents_N: Indices) -> tuple[Indices, Indices]:
    """The first image of each content, by index whatever the contents' numbers are, and which one each image has."""
    _, firsts_U, content_N = np.unique(contents_N, return_index=True, return_inverse=True)
    order_U = np.argsort(firsts_U)
    return firsts_U[order_U], np.argsort(order_U)[content_N]


def contents_of(digests_ND: NDArray[np.uint8]) -> Indices:
    """A number for each sha256, the same for equal ones."""
    words_4N = np.ascontiguousarray(digests_ND).view("<u8").T
    order_N = np.lexsort(words_4N)
    changed_N = (words_4N[:, order_N[1:]] != words_4N[:, order_N[:-1]]).any(axis=0)
    numbers_N = np.zeros(len(order_N), dtype=np.int64)
    numbers_N[order_N[1:]] = np.cumsum(changed_N)
    return numbers_N


def members_of(groups_N: Indices) -> Iterable[Indices]:
    """The images of each group with more than one, ascending; groups by their first image."""
    order_N = np.argsort(groups_N, kind="stable")
    sizes_G = np.unique(groups_N, return_counts=True)[1]
    ends_G = np.cumsum(sizes_G)
    for group in np.flatnonzero(sizes_G > 1).tolist():
        yield order_N[ends_G[group] - sizes_G[group] : ends_G[group]]


def group_numbers(num_images: int, duplicates: Iterable[Duplicates]) -> NDArray[np.int64]:
    """A number for each image, the same for duplicates: the index of the first of them."""
    groups_N = np.arange(num_images, dtype=np.int64)
    for found in duplicates:
        groups_N[list(found.indices)] = found.indices[0]
    return groups_N


def _near_sets(
    images: StandardisedThumbnails, sizes_U2: NDArray[np.integer], keep: Keep
) -> tuple[Indices, NDArray[np.bool_]]:
    """The first near duplicate of each image, or its own number; and which are look-alikes."""
    num_images = len(images.rows_N)
    near, strict = Components(num_images), Components(num_images)
    sketches_UK = sketches(images, keep)
    small_U = sizes_U2.min(axis=1) < GREY_SIDE
    for candidates_P2 in candidate_pairs(images.thumbnails_ND, images.rows_N, keep):
        apart_P2 = candidates_P2[near.are_apart(candidates_P2) | strict.are_apart(candidates_P2)]
        pairs_P2 = similar_sketches(sketches_UK, _same_aspect_ratio(sizes_U2, apart_P2))
        small_P = small_U[pairs_P2].any(axis=1)
        kept = [confirm_pairs(images, pairs_P2[~small_P], COPY), confirm_pairs(images, pairs_P2[small_P], SMALL)]
        copies_P2 = np.concatenate(kept)
        near.join(copies_P2)
        strict.join(confirm_pairs(images, copies_P2, STRICT))  # what passes the strictest limits passes all
    roots_U, strict_U = near.roots(), strict.roots()
    many_U = _sizes(roots_U) > MAX_SET
    alike_U = many_U & (_sizes(strict_U) > MAX_SET)
    near_U = np.where(many_U, strict_U, roots_U)
    return np.where(alike_U, np.arange(num_images), near_U), alike_U


def _sizes(roots_N: Indices) -> Indices:
    """The size of each image's component."""
    return np.bincount(roots_N, minlength=len(roots_N))[roots_N]


def _same_aspect_ratio(sizes_N2: NDArray[np.integer], pairs_P2: Pairs) -> Pairs:
    """The pairs whose images have the same aspect ratio."""
    ours_P2, theirs_P2 = (sizes_N2[side_P].astype(np.int64) for side_P in pairs_P2.T)
    our_P, their_P = ours_P2[:, 0] * theirs_P2[:, 1], theirs_P2[:, 0] * ours_P2[:, 1]
    same_P: NDArray[np.bool_] = np.maximum(our_P, their_P) * 100 <= np.minimum(our_P, their_P) * MAX_STRETCH
    return pairs_P2[same_P]
