"""Cuts a scanned page into characters: straightens it, finds its lines, then the characters of each line.

Nothing here knows the text of the page. Connected pieces of ink are characters; a dot above or below another
piece belongs to it (i, j, ! ? : ;); a gap that is wide for its line is a word space.

Own code, not an OCR library: the demo's characters must repeat to the bit.
"""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from PIL import Image

from orchestrator.contract.errors import PigeonholeError
from orchestrator.pages.frame import Box, frame_character
from orchestrator.pages.ink import Blobs, Bytes, Ints, binarise, find_blobs, ink_on, skew_deg

WIDEST_IN_TALLS = 1.75  # wider pieces are two letters that touch (W has 1.5)
SMALLEST_DOT = 0.01  # of the square of a typical height; smaller pieces are specks
MOST_PIECES = 20_000  # of ink on a page
NARROWEST_SPACE_IN_TALLS = 0.25
WIDEST_LETTER_GAP_IN_TALLS = 0.55


class PageError(PigeonholeError):
    """An image that is not a page of print."""


@dataclass(frozen=True)
class Character:
    """One character cut from a page, in reading order."""

    box: Box  # on the straightened page
    line: int  # from 0
    space_before: bool  # a word space separates it from the character before, on the same line
    frame: Image.Image  # the classifier's input


@dataclass(frozen=True)
class CutPage:
    """A straightened page and its characters."""

    image: Image.Image
    skew_deg: float  # by which the scan was rotated back
    characters: tuple[Character, ...]

    def resized(self, factor: float) -> "CutPage":
        """The page and its boxes at another size; the frames stay."""
        size = (max(round(self.image.width * factor), 1), max(round(self.image.height * factor), 1))
        characters = tuple(replace(each, box=each.box.scaled(factor)) for each in self.characters)
        return CutPage(self.image.resize(size, Image.Resampling.BICUBIC), self.skew_deg, characters)


@dataclass(frozen=True)
class _Baseline:
    """The baseline of a line, the row `at + slope * x`, and the height of its tall letters."""

    at: float
    slope: float
    tall: float


def cut_page(image: Image.Image, outside: Image.Image | None = None) -> CutPage:
    """Straighten a scan and cut it into characters, line by line from the top, each from the left.

    outside: 255 where the image shows no page; None if the page fills it.
    """
    skew, characters = cut_characters(image, outside)
    grey = image.convert("L")
    paper = int(np.percentile(np.asarray(grey), 75))
    straight = grey.rotate(-skew, Image.Resampling.BICUBIC, fillcolor=paper)
    return CutPage(straight, skew, tuple(characters))


def cut_characters(image: Image.Image, outside: Image.Image | None = None) -> tuple[float, list[Character]]:
    """The scan's skew and its characters, without the straightened page."""
    ink = ink_on(image, outside)
    skew = skew_deg(binarise(ink))
    return skew, _cut_ink(ink.rotate(-skew, Image.Resampling.BICUBIC))


def _cut_ink(ink_image: Image.Image) -> list[Character]:
    blobs = find_blobs(binarise(ink_image))
    ink = np.asarray(ink_image)
    characters: list[Character] = []
    for members in _lines(blobs):
        pieces = _joined_pieces(blobs.boxes, members)
        boxes = np.array([_around(blobs.boxes[piece]) for piece in pieces])
        baseline = _find_baseline(boxes)
        parts = [part for piece in pieces for part in _split_wide(blobs, piece, baseline.tall)]
        line = characters[-1].line + 1 if characters else 0
        characters += _cut_line(ink, blobs, parts, baseline, line)
    return characters


def _lines(blobs: Blobs) -> list[Ints]:
    """The pieces of each line, from the top, each from the left, without specks and stains."""
    left, top, right, bottom = blobs.boxes.T
    height = bottom - top
    printed = blobs.areas >= 12
    if not printed.any():
        return []
    typical = float(np.median(height[printed]))
    printed = (
        (blobs.areas >= max(SMALLEST_DOT * typical**2, 5)) & (height < 5 * typical) & (right - left < 12 * typical)
    )
    if printed.sum() > MOST_PIECES:
        raise PageError(
            f"{printed.sum():,} pieces of ink are more than a page of print has (at most {MOST_PIECES:,}); give an "
            "image of one page, or of a part of it"
        )
    bodies = np.flatnonzero(printed & (height > 0.6 * typical))
    covered = np.zeros(int(bottom.max()) + 2, np.int64)
    np.add.at(covered, top[bodies], 1)
    np.add.at(covered, bottom[bodies], -1)
    edges = np.flatnonzero(np.diff(np.pad(np.cumsum(covered) > 0, 1).astype(np.int8)))
    bands = edges.reshape(-1, 2)
    middles = (top + bottom) / 2
    lines = []
    for band_top, band_bottom in bands:
        inside = printed & (middles > band_top - 0.3 * typical) & (middles < band_bottom + 0.3 * typical)
        members = np.flatnonzero(inside)
        lines.append(members[np.argsort(left[members], kind="stable")])
    return lines


def _joined_pieces(boxes: Ints, members: Ints) -> list[list[int]]:
    """Groups of pieces that are one character: one is above the other, or within its width."""
    groups: list[list[int]] = []
    for member in members.tolist():
        for group in groups[-3:]:
            if _belongs(_around(boxes[group]), boxes[member]):
                group.append(member)
                break
        else:
            groups.append([member])
    return groups


def _belongs(one: Ints, other: Ints) -> bool:
    """Whether two pieces of a line are parts of one character, by their boxes."""
    shared = min(one[2], other[2]) - max(one[0], other[0])
    narrower = min(one[2] - one[0], other[2] - other[0])
    level = min(one[3], other[3]) - max(one[1], other[1])
    lower = min(one[3] - one[1], other[3] - other[1])
    stacked = level <= 0.2 * lower
    return bool(shared >= 0.5 * narrower and stacked) or bool(shared >= 0.9 * narrower)


def _around(boxes: Ints) -> Ints:
    return np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])


def _find_baseline(boxes: Ints) -> _Baseline:
    """The baseline of a line: the straight row of most bottoms, without tails and commas."""
    left, top, right, bottom = boxes.T.astype(np.float64)
    x, height = (left + right) / 2, bottom - top
    body = height > 0.5 * np.percentile(height, 80)
    at, slope = float(np.median(bottom[body])), 0.0
    for reach in (0.12, 0.07):
        near = body & (np.abs(bottom - at - slope * x) <= max(reach * float(np.max(height)), 1.5))
        if near.sum() >= 4 and np.ptp(x[near]) > 4 * np.max(height):
            slope, at = (float(value) for value in np.polyfit(x[near], bottom[near], 1))
    above = (at + slope * x - top)[body]
    highest = float(np.percentile(above, 95)) if len(above) > 8 else float(above.max())
    return _Baseline(at, slope, float(np.median(above[np.abs(above - highest) <= 0.12 * highest])))


def _split_wide(blobs: Blobs, piece: list[int], tall: float) -> list[tuple[list[int], Box]]:
    """A character's pieces and box; two where it is too wide for one letter, split where ink is least."""
    left, top, right, bottom = _around(blobs.boxes[piece]).tolist()
    if right - left <= WIDEST_IN_TALLS * tall:
        return [(piece, Box(left, top, right, bottom))]
    own = np.isin(blobs.names[top:bottom, left:right], np.array(piece) + 1)
    quarter = (right - left) // 4
    cut = quarter + int(np.argmin(own.sum(axis=0)[quarter:-quarter]))
    halves = []
    for start, stop in ((0, cut), (cut, right - left)):
        rows = np.flatnonzero(own[:, start:stop].any(axis=1))
        if len(rows):
            halves.append((piece, Box(left + start, top + int(rows[0]), left + stop, top + int(rows[-1]) + 1)))
    return halves


def _cut_line(
    ink: Bytes, blobs: Blobs, parts: list[tuple[list[int], Box]], baseline: _Baseline, line: int
) -> list[Character]:
    boxes = [box for _, box in parts]
    gaps = np.array([after.left - before.right for before, after in pairwise(boxes)], np.int64)
    word_gap = _word_gap(gaps, baseline.tall)
    characters = []
    for i, (piece, box) in enumerate(parts):
        window = np.s_[max(box.top - 1, 0) : box.bottom + 1, max(box.left - 1, 0) : box.right + 1]
        names = blobs.names[window]
        foreign = names > 0
        for name in piece:
            foreign &= names != name + 1
        row = baseline.at + baseline.slope * (box.left + box.right) / 2
        frame = frame_character(np.where(foreign, 0, ink[window]), box, row, baseline.tall)
        characters.append(Character(box, line, i > 0 and bool(gaps[i - 1] > word_gap), frame))
    return characters


def _word_gap(gaps: Ints, tall: float) -> float:
    """The gap, in pixels, above which a word ends: the value that best separates a line's gaps, within limits."""
    ordered = np.sort(np.maximum(gaps, 0)).astype(np.float64)
    if len(ordered) < 2:
        return NARROWEST_SPACE_IN_TALLS * tall
    num_narrow = np.arange(1, len(ordered))
    narrow = np.cumsum(ordered)[:-1] / num_narrow
    wide = np.cumsum(ordered[::-1])[::-1][1:] / num_narrow[::-1]
    best = int(np.argmax(num_narrow * num_narrow[::-1] * (wide - narrow) ** 2))
    parting = float(ordered[best] + ordered[best + 1]) / 2
    return min(max(parting, NARROWEST_SPACE_IN_TALLS * tall), WIDEST_LETTER_GAP_IN_TALLS * tall)
