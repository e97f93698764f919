"""Finds candidate pairs of near duplicates with a perceptual hash, in nearly linear time.

The hash has 64 bits per image: whether each low frequency of a cosine transform is above their median (C. Zauner,
"Implementation and benchmarking of perceptual image hash functions", 2010). Pairs that share all bits of a band are
compared. Memory: some tens of bytes for each image, about a hundred more where the caller has them kept, and the pairs
of a step or two.

All computations use integers: in a symmetric glyph many frequencies are exactly zero, and with floats their signs, and
so the duplicates, would depend on the processor's order of additions.
"""

# Shapes: N images, P pairs, H and W 32 (a thumbnail's luma), D bytes of a thumbnail, F and G 8 frequencies a side.
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from modeling.data.facts import GREY_SIDE
from modeling.data.scratch import Keep, in_memory
from modeling.images.loader import load_ahead
from modeling.images.quotas import num_cores

T = TypeVar("T", bound=np.generic)
U = TypeVar("U", bound=np.generic)
Thumbnails = NDArray[np.uint8]
Indices = NDArray[np.int64]
Pairs = NDArray[np.int64]

_FREQUENCIES = 8
_AMPLITUDE = 4096  # of a cosine: no value is within 0.02 of a half, so every implementation rounds to the same integer
_MAX_HAMMING = 10  # bits: copies differ by six or fewer
# One band per row: four shuffles of the 64 bits, each divided into four; 98 % of pairs six bits apart share a band.
# Any shuffles work if they are always the same: they are listed here because NumPy's may change with its version.
_BAND_TABLE = """
    16 36 27  8 44 23 53  4 58 50 10  2 42 34 19 47
    11 57 37 20 18 61  3  1 30 24 17 46 21 35 28 43
     0  6 22 26 51 48 62 32 25 55  9 38 59 52 40 13
    12  7 45 39 63  5 49 14 54 29 41 60 56 33 15 31
    53 42 62 31 35 37 59 57 45 33 49 50 54 38  5  0
    13 14 30 21 52 41 28 58  1  3 61 48 12 17 29 16
    11 15 24  7 23 39 36 20 51 34 10 27 32 63 43 26
     8 40 60  9 47 55 22 19 56  6 46 18 44  2  4 25
    51  7 12 52 47 46  1 20 40 21 26  4 57  0 35 59
     8 58  5 56  2 60 37  6 38 29 39 18 10 30 33 43
    13 34 27 45 54 49 63 17 28 24 53 15 25 41 44 16
    42 14 19 62 22 11 36 50 61 55 31 48  3 32  9 23
     9  7 28 42 38  3 51 36 43 46 23 14 55 20 22 50
    32 57  0 35 18 61 41 53 19 10 27 44 48 63 31 56
    25 16  1 12 29 15  6 40 58 26 37 17 39 47 11 60
    13 33 52 59 21  4 30 45 49 24 54  5  2  8 62 34
"""
_BANDS = [np.array([int(bit) for bit in row.split()]) for row in _BAND_TABLE.strip().splitlines()]
_WINDOW = 32  # neighbours compared in a band: bounds the time if thousands of images share its bits
_HASH_BYTES = 8  # and two for each band behind them
_CHUNK = 2048  # images or pairs
_IMAGES_AT_ONCE = 1 << 18  # of a band
_PAIRS_AT_ONCE = 1 << 18  # of small steps


def candidate_pairs(
    thumbnails_ND: Thumbnails, rows_N: Indices | None = None, keep: Keep = in_memory
) -> Iterator[Pairs]:
    """Pairs P2 of images with similar hashes, each once; they include most pairs that show one picture.

    Hashes at most _MAX_HAMMING bits apart that share all bits of a band are similar. rows_N: the images are these rows,
    in that order; None: all. keep: where a hundred bytes for each image are kept.
    """
    rows_N = np.arange(len(thumbnails_ND)) if rows_N is None else rows_N
    packed_N40 = keep(each_chunk(lambda chunk_N: _packed(hashes(thumbnails_ND[chunk_N])), rows_N))
    yield from _joined(_all_bands(packed_N40, keep))


def _packed(bits_N64: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The eight bytes of each hash, then two for each band."""
    return np.concatenate([np.packbits(bits, axis=1) for bits in (bits_N64, *(bits_N64[:, b] for b in _BANDS))], axis=1)


def _all_bands(packed_N40: NDArray[np.uint8], keep: Keep) -> Iterator[Pairs]:
    words_N = np.ascontiguousarray(packed_N40[:, :_HASH_BYTES]).view("<u8")[:, 0]
    places_BN: list[NDArray[np.int32]] = []  # of each image in the order of each band before
    for band in range(len(_BANDS)):
        keys_N = _keys(packed_N40, band)
        order_N = np.lexsort((words_N, keys_N))  # within a key, similar words are neighbours
        for pairs_P2 in _close_in_band(keys_N[order_N], words_N[order_N], order_N):
            yield pairs_P2[~_were_found(pairs_P2, packed_N40, places_BN)]
        places_N = np.empty(len(order_N), dtype=np.int32)
        places_N[order_N] = np.arange(len(order_N), dtype=np.int32)
        places_BN.append(keep(iter((places_N[:, None],)))[:, 0])


def _keys(packed_P40: NDArray[np.uint8], band: int) -> NDArray[np.uint16]:
    """The two bytes of a band as a number."""
    first = _HASH_BYTES + 2 * band
    keys_P: NDArray[np.uint16] = np.ascontiguousarray(packed_P40[:, first : first + 2]).view(">u2")[:, 0]
    return keys_P.astype(np.uint16)


def _close_in_band(
    keys_N: NDArray[np.uint16], words_N: NDArray[np.uint64], order_N: NDArray[np.int64]
) -> Iterator[Pairs]:
    """Close pairs with equal keys, each ascending, a stretch of the sorted order after another.

    keys and words are sorted.
    """
    for first in range(0, len(keys_N), _IMAGES_AT_ONCE):
        at = np.arange(first, min(first + _IMAGES_AT_ONCE, len(keys_N)))
        for step in range(1, _WINDOW + 1):
            at = at[at + step < len(keys_N)]
            at = at[keys_N[at] == keys_N[at + step]]  # images that share no key at one step do not at the next
            if not len(at):
                break
            close = at[np.bitwise_count(words_N[at] ^ words_N[at + step]) <= _MAX_HAMMING]
            yield np.sort(np.stack([order_N[close], order_N[close + step]], axis=1), axis=1)


def _were_found(
    pairs_P2: Pairs, packed_N40: NDArray[np.uint8], places_BN: Sequence[NDArray[np.int32]]
) -> NDArray[np.bool_]:
    """Whether one of these bands has given a pair already."""
    found_P = np.zeros(len(pairs_P2), dtype=np.bool_)
    ours_P, theirs_P = pairs_P2.T
    ours_P40, theirs_P40 = packed_N40[ours_P], packed_N40[theirs_P]
    for band, places_N in enumerate(places_BN):
        near_P = np.abs(places_N[ours_P] - places_N[theirs_P]) <= _WINDOW
        found_P |= near_P & (_keys(ours_P40, band) == _keys(theirs_P40, band))
    return found_P


def _joined(parts: Iterable[Pairs]) -> Iterator[Pairs]:
    """Small arrays of pairs as fewer large ones: each step of the comparison costs threads."""
    waiting: list[Pairs] = []
    for pairs_P2 in parts:
        waiting.append(pairs_P2)
        if sum(map(len, waiting)) >= _PAIRS_AT_ONCE:
            yield np.concatenate(waiting)
            waiting = []
    if waiting:
        yield np.concatenate(waiting)


def luma(thumbnails_ND: Thumbnails) -> Thumbnails:
    """The luma of thumbnails, NHW."""
    return thumbnails_ND[:, : GREY_SIDE**2].reshape(-1, GREY_SIDE, GREY_SIDE)


def map_chunks(function: Callable[[NDArray[T]], NDArray[U]], array: NDArray[T], chunk: int = _CHUNK) -> NDArray[U]:
    """Apply a function to chunks of an array, in threads, and concatenate the results."""
    if len(array) <= chunk:
        return function(array)
    return np.concatenate(list(each_chunk(function, array, chunk)))


def each_chunk(
    function: Callable[[NDArray[T]], NDArray[U]], array: NDArray[T], chunk: int = _CHUNK
) -> Iterator[NDArray[U]]:
    """The result for each chunk, in order, few ahead; numpy releases the GIL while it computes."""
    chunks = (array[start : start + chunk] for start in range(0, max(1, len(array)), chunk))
    return load_ahead(chunks, function, num_ahead=4 * num_cores())


def hashes(thumbnails_ND: Thumbnails) -> NDArray[np.bool_]:
    """The 64 bits of each image."""
    columns_NFW = np.einsum("fh,nhw->nfw", _COSINES_FH, luma(thumbnails_ND).astype(np.int32))  # sums of 26 bits
    strengths_NFG = np.einsum("nfw,gw->nfg", columns_NFW.astype(np.int64), _COSINES_FH.astype(np.int64))
    strengths = strengths_NFG.reshape(len(thumbnails_ND), -1)
    strengths[:, 0] = 0  # the mean brightness is not used
    half = strengths.shape[1] // 2
    middle_two = np.sort(strengths, axis=1)[:, half - 1 : half + 1]
    above: NDArray[np.bool_] = 2 * strengths > middle_two.sum(axis=1, keepdims=True)  # above the median
    return above


def _cosines() -> NDArray[np.int32]:
    """FH: the cosines of each frequency, as integers."""
    angles_FH = np.outer(np.arange(_FREQUENCIES), 2 * np.arange(GREY_SIDE) + 1) % (4 * GREY_SIDE)
    circle = [round(_AMPLITUDE * math.cos(math.pi * angle / (2 * GREY_SIDE))) for angle in range(4 * GREY_SIDE)]
    return np.array(circle, dtype=np.int32)[angles_FH]


_COSINES_FH = _cosines()
