"""Samples of more than 8 bits, or with a sign, to 8 bits: which value is black and which is white.

Integers span their type unless the file states fewer bits. Floats do not state their range: white is the first of 1,
255 and 65,535 that the values keep, and what is a little above it (up to twice as much, or a few outliers) is white
too. Values of no known range are scaled by their own least and largest. Where the range is a guess, that is remarked.
"""

# Shapes: H height, W width, R rows of a strip.
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any]

_WHITES = (1.0, 255.0, 65535.0)  # of floats, in the order in which they are tried
_OVERSHOOT = 2.0  # times white, up to which a value is taken for a bright one and clipped
_UNDERSHOOT = 0.1  # times white, below 0
_OUTLIERS = 1000  # one value in so many may be beyond that
_FEWER_BITS = 14  # values that never exceed them may have fewer bits than their type
_DARK = 4  # wider values that do not reach a quarter of white have no known range
_STRIP_VALUES = 1 << 20  # converted at a time, which bounds the memory


@dataclass(frozen=True, slots=True)
class Samples:
    """What a file says of its samples.

    kind: `u`, `i` or `f`: unsigned, signed, float. bits: of a sample. white: the value that the file states for white;
    0 if it states none. inverted: 0 is white. scaled: the format that states `white` requires that fewer bits are
    scaled to the whole range (PNG), which not every writer does.
    """

    kind: str
    bits: int
    white: float = 0.0
    inverted: bool = False
    scaled: bool = False


def to_8_bits(values_HW: Values, samples: Samples) -> tuple[NDArray[np.uint8], bool]:
    """The samples scaled to 0..255, and whether their range is known."""
    black, white, known = _range(values_HW, samples)
    grey_HW = np.empty(values_HW.shape, np.uint8)
    scale = 255.0 / (white - black) if white > black else 0.0
    for rows, strip_RW in _strips(values_HW):
        if black == 0 and white == 65535 and strip_RW.dtype.itemsize == 2:
            grey_HW[rows] = (strip_RW.astype(np.uint32) + 128) // 257
        else:
            grey_HW[rows] = np.rint((_finite(strip_RW, black, white) - black) * scale).clip(0, 255)
    return (255 - grey_HW if samples.inverted else grey_HW), known


def _range(values_HW: Values, samples: Samples) -> tuple[float, float, bool]:
    """The values of black and white, and whether they are known."""
    if samples.kind == "f":
        return _float_range(values_HW, samples.white)
    low, high = int(values_HW.min()), int(values_HW.max())
    if samples.white and low >= 0 and high <= samples.white and not (samples.scaled and _is_scaled(values_HW, samples)):
        return 0, samples.white, True
    if samples.bits == 8:
        return -128, 127, low < 0  # TIFF: the default is the whole range of the type
    largest = 2**samples.bits - 1 if samples.kind == "u" else 2 ** (samples.bits - 1) - 1
    if samples.bits > 16 and low >= 0 and high <= 65535:
        largest = 65535  # 16 bits in a wider type, as many programs write them
    elif low < 0 or (samples.bits > 16 and high * _DARK < largest):
        return low, high, False
    return 0, largest, samples.scaled or high == 0 or high >= 1 << _FEWER_BITS


def _is_scaled(values_HW: Values, samples: Samples) -> bool:
    """Whether all values may be those of fewer bits, scaled to the whole range by shifting or by multiplying."""
    whole = 2**samples.bits - 1
    step = (whole + 1) // (int(samples.white) + 1)
    for _, strip_RW in _strips(values_HW):
        nearest_RW = np.rint(np.rint(strip_RW * (samples.white / whole)) * (whole / samples.white))
        if not ((strip_RW % step == 0) | (nearest_RW == strip_RW)).all():
            return False
    return True


def _float_range(values_HW: Values, stated: float) -> tuple[float, float, bool]:
    """The values of black and white of floats, and whether they are known."""
    if stated:
        return 0.0, stated, True
    limits = [(strip.min(), strip.max()) for strip in (_finite(each, 0.0, 0.0) for _, each in _strips(values_HW))]
    least, largest = float(min(low for low, _ in limits)), float(max(high for _, high in limits))
    few = _num_between(values_HW, 0.0, np.inf) // _OUTLIERS
    white = next((white for white in _WHITES if _num_between(values_HW, _OVERSHOOT * white, np.inf) <= few), 0.0)
    if not white or _num_between(values_HW, -np.inf, -_UNDERSHOOT * min(white, largest)) > few:
        return least, largest, False
    return 0.0, white, largest == 0 or _num_between(values_HW, white / _DARK, np.inf) > few


def _num_between(values_HW: Values, low: float, high: float) -> int:
    """How many values lie between the two; neither infinite ones nor NaN."""
    return sum(int(np.count_nonzero((strip_RW > low) & (strip_RW < high))) for _, strip_RW in _strips(values_HW))


def _finite(strip_RW: Values, black: float, white: float) -> NDArray[np.float64]:
    """The values as float64; NaN is 0, infinity is black or white."""
    with np.errstate(invalid="ignore"):  # a signalling NaN
        wide_RW = strip_RW.astype(np.float64)
    return np.nan_to_num(wide_RW, nan=0.0, posinf=white, neginf=black)


def _strips(values_HW: Values) -> Iterator[tuple[slice, Values]]:
    """Some rows at a time, and where they are."""
    num_rows = max(1, _STRIP_VALUES // max(1, values_HW.shape[1]))
    for top in range(0, len(values_HW), num_rows):
        rows = slice(top, top + num_rows)
        yield rows, values_HW[rows]
