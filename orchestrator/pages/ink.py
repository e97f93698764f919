"""From a grey scan to ink: which pixels are print, the skew of the sheet, and connected pieces.

Own code, not scikit-image or OpenCV: the demo's data and text must repeat to the bit.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Mask = NDArray[np.bool_]
Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]

PAPER_CELL_PX = 24  # cells to measure the paper's brightness in: larger than a stroke, smaller than a shadow
PAPER_QUANTILE = 0.8  # ink rarely covers more than four fifths of a cell
HAIRLINE = 0.7  # of Otsu's threshold: thin strokes break before thick ones join
FAINTEST_PRINT = 30  # of 255: an empty sheet has no print


def ink_of(image: Image.Image) -> Image.Image:
    """How much ink each pixel has, 0 to 255: its grey relative to the paper around it, which removes shadows."""
    grey = np.asarray(image.convert("L"), np.float32)
    height, width = grey.shape
    rows, cols = -(-height // PAPER_CELL_PX), -(-width // PAPER_CELL_PX)
    padding = ((0, rows * PAPER_CELL_PX - height), (0, cols * PAPER_CELL_PX - width))
    padded = np.pad(grey, padding, mode="edge")
    cells = padded.reshape(rows, PAPER_CELL_PX, cols, PAPER_CELL_PX).swapaxes(1, 2).reshape(rows, cols, -1)
    nth = int(cells.shape[2] * PAPER_QUANTILE)
    paper = Image.fromarray(np.partition(cells, nth, axis=2)[:, :, nth].astype(np.uint8))
    paper = paper.filter(ImageFilter.MedianFilter(3)).filter(ImageFilter.BoxBlur(1))
    full = paper.resize((cols * PAPER_CELL_PX, rows * PAPER_CELL_PX), Image.Resampling.BILINEAR)
    paper_of = np.maximum(np.asarray(full, np.float32)[:height, :width], 1)
    return Image.fromarray((255 * np.clip(1 - grey / paper_of, 0, 1)).astype(np.uint8))


def ink_on(image: Image.Image, outside: Image.Image | None) -> Image.Image:
    """The same, without what is outside of the page: 255 in a mask of any size."""
    ink = ink_of(image)
    if outside is not None:
        ink.paste(0, mask=outside.resize(image.size, Image.Resampling.NEAREST))
    return ink


def binarise(ink: Image.Image) -> Mask:
    """Which pixels are print: a little below the level that best separates ink from paper (Otsu, 1979)."""
    smooth = ink.filter(ImageFilter.GaussianBlur(0.6))
    counts = np.array(smooth.histogram(), np.float64)
    levels, below, total = np.arange(256), np.cumsum(counts), counts.sum()
    sums = np.cumsum(counts * levels)
    apart = (sums[-1] * below / total - sums) ** 2 / np.maximum(below * (total - below), 1)
    otsu = int(np.argmax(apart[:-1])) + 1
    return np.asarray(smooth) > max(HAIRLINE * otsu, FAINTEST_PRINT)


def skew_deg(print_mask: Mask, widest_deg: float = 6.0) -> float:
    """The angle by which the lines rise, counter-clockwise: where the profile of the rows is sharpest."""
    rows, cols = np.nonzero(print_mask)
    if len(rows) == 0:
        return 0.0
    keep = slice(None, None, max(len(rows) // 40_000, 1))
    ys, xs = rows[keep].astype(np.float64), cols[keep].astype(np.float64)
    best, step = 0.0, 0.5
    angles = np.arange(-widest_deg, widest_deg + step, step)
    while step > 0.01:
        best = float(max(angles, key=lambda angle: _sharpness(ys, xs, float(angle))))
        step /= 4
        angles = best + step * np.arange(-4, 5)
    return best


def _sharpness(ys: NDArray[np.float64], xs: NDArray[np.float64], angle_deg: float) -> float:
    """How steeply the number of ink pixels changes from row to row, if the sheet is rotated back by the angle."""
    slope = np.tan(np.radians(angle_deg))
    rows = np.round(ys + xs * slope).astype(np.int64)
    profile = np.bincount(rows - rows.min())
    return float((np.diff(profile) ** 2).sum())


@dataclass(frozen=True)
class Blobs:
    """The connected pieces of a mask; `names` holds each pixel's piece, counted from 1, 0 where there is none."""

    names: NDArray[np.int32]
    boxes: Ints  # left, top, right, bottom (beyond the last pixel), one row a piece
    areas: Ints  # in pixels


def find_blobs(mask: Mask) -> Blobs:
    """The connected pieces of a mask (8-connectivity), found by joining runs of pixels."""
    row, start, stop = _runs(mask)
    names = np.zeros(mask.shape, np.int32)
    if len(row) == 0:
        return Blobs(names, np.zeros((0, 4), np.int64), np.zeros(0, np.int64))
    _, piece = np.unique(_joined(row, start, stop, mask.shape[1] + 2), return_inverse=True)
    num = int(piece.max()) + 1
    boxes = np.empty((num, 4), np.int64)
    boxes[:, :2], boxes[:, 2:] = max(mask.shape), 0
    np.minimum.at(boxes[:, 0], piece, start)
    np.minimum.at(boxes[:, 1], piece, row)
    np.maximum.at(boxes[:, 2], piece, stop)
    np.maximum.at(boxes[:, 3], piece, row + 1)
    names[mask] = np.repeat(piece + 1, stop - start)  # runs come in the order of the pixels
    return Blobs(names, boxes, np.bincount(piece, weights=stop - start, minlength=num).astype(np.int64))


def _runs(mask: Mask) -> tuple[Ints, Ints, Ints]:
    """Row, first column and exclusive last column of each horizontal run, from top left."""
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    row, start = np.nonzero(edges == 1)
    _, stop = np.nonzero(edges == -1)
    return row, start, stop


def _joined(row: Ints, start: Ints, stop: Ints, width: int) -> Ints:
    """For each run, the lowest index of a run that it is connected with."""
    first = np.searchsorted(row * width + stop, (row + 1) * width + start)
    beyond = np.searchsorted(row * width + start, (row + 1) * width + stop, side="right")
    num_below = np.maximum(beyond - first, 0)
    upper = np.repeat(np.arange(len(row)), num_below)
    nth = np.arange(len(upper)) - np.repeat(np.cumsum(num_below) - num_below, num_below)
    lower = np.repeat(first, num_below) + nth
    name = np.arange(len(row))
    while True:
        apart = name[upper] != name[lower]
        if not apart.any():
            return name
        upper, lower = upper[apart], lower[apart]
        lowest = np.minimum(name[upper], name[lower])
        np.minimum.at(name, name[upper], lowest)
        np.minimum.at(name, name[lower], lowest)
        while (name[name] != name).any():
            name = name[name]
