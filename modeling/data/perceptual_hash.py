"""Pairs of images that may be the same picture: candidates, brought up by a perceptual hash in nearly linear time.

64 bits an image: signs of the low frequencies of a cosine transform against their median (C. Zauner, "Implementation
and benchmarking of perceptual image hash functions", 2010). Pairs that share all bits of a band are compared.
"""

# Shapes: N images, P pairs, H and W 32 (a thumbnail's luma), D bytes of a thumbnail, F 8 frequencies a side.
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from modeling.data.facts import GREY_SIDE

T = TypeVar("T", bound=np.generic)
U = TypeVar("U", bound=np.generic)
V = TypeVar("V")
W = TypeVar("W")
Thumbnails = NDArray[np.uint8]
Pairs = NDArray[np.int64]
Floats = NDArray[np.float32]

_FREQUENCIES = 8
_MAX_HAMMING = 10  # bits: copies differ by six or fewer
_BAND_BITS = 16
_NUM_SHUFFLES = 4  # of the 64 bits into 4 bands: 98 % of pairs six bits apart share one of the 16 bands
_WINDOW = 32  # neighbours looked at in a band: bounds the work where thousands share its bits
_CHUNK = 2048  # images or pairs


def candidates(thumbnails_ND: Thumbnails) -> Pairs:
    """Pairs P2 of images whose hashes are alike, each once, in order; most that show one picture are among them."""
    return _candidates(_hashes(thumbnails_ND))


def luma(thumbnails_ND: Thumbnails) -> Floats:
    """NHW."""
    return thumbnails_ND[:, : GREY_SIDE**2].reshape(-1, GREY_SIDE, GREY_SIDE).astype(np.float32)


def by_chunks(change: Callable[[NDArray[T]], NDArray[U]], array: NDArray[T]) -> NDArray[U]:
    """What becomes of an array that is changed in pieces."""
    chunks = [array[start : start + _CHUNK] for start in range(0, max(1, len(array)), _CHUNK)]
    return np.concatenate(_in_threads(change, chunks))


def _in_threads(work: Callable[[V], W], parts: Sequence[V]) -> list[W]:
    """What comes of each part, in order; numpy lets go of the interpreter while it computes."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0)), thread_name_prefix="duplicates") as pool:
        return list(pool.map(work, parts))


def _hashes(thumbnails_ND: Thumbnails) -> NDArray[np.bool_]:
    """64 bits of each image."""
    at = np.arange(GREY_SIDE)
    waves_FH = np.cos(np.pi / GREY_SIDE * np.outer(np.arange(_FREQUENCIES), at + 0.5)).astype(np.float32)

    def hashed(chunk_ND: Thumbnails) -> NDArray[np.bool_]:
        strengths = (waves_FH @ luma(chunk_ND) @ waves_FH.T).reshape(len(chunk_ND), -1)
        strengths[:, 0] = 0  # the mean brightness says nothing
        above: NDArray[np.bool_] = strengths > np.median(strengths, axis=1, keepdims=True)
        return above

    return by_chunks(hashed, thumbnails_ND)


def _candidates(bits_N64: NDArray[np.bool_]) -> Pairs:
    """Pairs at most _MAX_HAMMING bits apart that share all bits of a band, each once, in order."""
    generator = np.random.default_rng(0)  # any fixed shuffles do
    num_images, num_bits = bits_N64.shape
    words_N = np.packbits(bits_N64, axis=1).view(np.uint64)[:, 0]
    shuffles = (generator.permutation(num_bits) for _ in range(_NUM_SHUFFLES))
    bands = [band for shuffle in shuffles for band in np.split(shuffle, num_bits // _BAND_BITS)]

    def close(band: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        keys_N = np.packbits(bits_N64[:, band], axis=1) @ np.array([256, 1])
        return [first_P * num_images + second_P for first_P, second_P in _close_in_band(keys_N, words_N)]

    found = [np.empty(0, dtype=np.int64), *chain.from_iterable(_in_threads(close, bands))]
    sorted_P = np.sort(np.concatenate(found))  # np.unique hashes, which takes 50 times longer
    return np.stack(np.divmod(sorted_P[np.diff(sorted_P, prepend=-1) > 0], num_images), axis=1)


def _close_in_band(
    keys_N: NDArray[np.int64], words_N: NDArray[np.uint64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """First and second images, the smaller first, of close pairs with equal keys, by their distance when sorted."""
    order_N = np.lexsort((words_N, keys_N))  # within a key, what is alike is near
    keys_N, words_N = keys_N[order_N], words_N[order_N]
    at = np.arange(len(keys_N))
    for step in range(1, min(_WINDOW, len(keys_N) - 1) + 1):
        at = at[at + step < len(keys_N)]
        at = at[keys_N[at] == keys_N[at + step]]  # what shares no key at one step does not at the next
        if not len(at):
            return
        close = at[np.bitwise_count(words_N[at] ^ words_N[at + step]) <= _MAX_HAMMING]
        ends_2P = np.sort(np.stack([order_N[close], order_N[close + step]]), axis=0)
        yield ends_2P[0], ends_2P[1]
