"""Sheets of pictures with captions; small images are enlarged to sharp blocks, without interpolation.

Own layout on Pillow, not matplotlib: every picture lies on whole pixels, and the same sheet gives the same bytes.
"""

# Shapes: H height, W width, 3 for RGB.
import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from modeling.report.canvas import LIGHT, drawable, font_file

Colours = NDArray[np.uint8]  # HW3

MARGIN, GAP, SECTION_GAP = 56, 22, 34  # px
TITLE, HEADING, TEXT = 36, 25, 20  # px: font sizes
_LINE = 1.35  # of the font size, from line to line
_BAR_WIDTH, _BAR_HEIGHT = 360, 16  # px: of the colour scale
_NARROWEST = 900  # px: of a sheet, so that its text has room
_BOLDNESS = {False: "DejaVuSans.ttf", True: "DejaVuSans-Bold.ttf"}


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """A picture with up to two lines under it, the second fainter."""

    picture_HW3: Colours
    caption: str = ""
    remark: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Section:
    """Tiles under a heading, that many a row, each that many px wide."""

    tiles: Sequence[Tile]
    columns: int
    tile_px: int
    heading: str = ""


@dataclass(frozen=True, slots=True)
class Scale:
    """The colour scale: the name of a colour map of matplotlib, and what its ends and its middle mean."""

    colours: str
    low: str
    middle: str
    high: str


@dataclass(frozen=True, slots=True, eq=False)
class Sheet:
    """A whole picture: title, sections, colour scales, and a note that explains it."""

    title: str
    sections: Sequence[Section]
    note: str
    scales: Sequence[Scale] = ()


AROUND_ZERO = "RdBu_r"
FROM_ZERO = "inferno"


def around_zero(values_HW: NDArray[np.floating], largest: float) -> Colours:
    """Red above zero, blue below, white at zero; the full colour from `largest` on."""
    return _mapped(AROUND_ZERO, 0.5 + values_HW / (2 * max(largest, 1e-12)))


def from_zero(values_HW: NDArray[np.floating], largest: float) -> Colours:
    """Dark at zero, bright at `largest` and beyond."""
    return _mapped(FROM_ZERO, values_HW / max(largest, 1e-12))


def photograph(unit_HWC: NDArray[np.floating]) -> Colours:
    """Pixels in [0, 1], grey or colour, as colours."""
    return as_colours((np.clip(unit_HWC, 0, 1) * 255).round().astype(np.uint8))


def as_colours(pixels_HWC: NDArray[np.uint8]) -> Colours:
    """Grey or colour pixels as colours."""
    return np.ascontiguousarray(np.broadcast_to(pixels_HWC, (*pixels_HWC.shape[:2], 3)))


def overlay(picture_HW3: Colours, heat_HW: NDArray[np.floating]) -> Colours:
    """A heat map in [0, 1] over a picture: dim and grey at 0, more of the colour map for more heat."""
    grey_HW1 = picture_HW3.mean(axis=2, keepdims=True)
    alpha_HW1 = 0.75 * np.clip(heat_HW, 0, 1)[:, :, None]
    mixed = (1 - alpha_HW1) * (0.25 * picture_HW3 + 0.6 * grey_HW1) + alpha_HW1 * from_zero(heat_HW, 1.0)
    colours: Colours = np.clip(mixed, 0, 255).round().astype(np.uint8)
    return colours


def draw(sheet: Sheet) -> bytes:
    """The sheet as a PNG; the same sheet gives the same bytes."""
    width = max(_NARROWEST, *(_width(section) for section in sheet.sections))
    pen = _Pen(width, _height(sheet, width))
    pen.write(sheet.title, TITLE, LIGHT.ink, bold=True)
    for section in sheet.sections:
        pen.down(SECTION_GAP if section.heading else GAP)
        if section.heading:
            pen.write(section.heading, HEADING, LIGHT.ink)
            pen.down(10)
        pen.tiles(section)
    for scale in sheet.scales:
        pen.down(SECTION_GAP)
        pen.scale(scale)
    pen.down(SECTION_GAP)
    for line in _wrapped(sheet.note, width):
        pen.write(line, TEXT, LIGHT.faint)
    buffer = io.BytesIO()
    pen.image.save(buffer, "PNG")
    return buffer.getvalue()


class _Pen:
    """Draws on an image from top to bottom."""

    def __init__(self, width: int, height: int) -> None:
        self.image = Image.new("RGB", (width + 2 * MARGIN, height), LIGHT.sheet)
        self._draw = ImageDraw.Draw(self.image)
        self._y = MARGIN

    def down(self, px: int) -> None:
        """Leave a gap."""
        self._y += px

    def write(self, text: str, size: int, colour: str, *, bold: bool = False) -> None:
        """One line from the left margin; cut where the sheet ends."""
        font = _font(size, bold)
        line = _cut(text, self.image.width - 2 * MARGIN, font)
        self._draw.text((MARGIN, self._y), line, fill=colour, font=font)
        self._y += _line(size)

    def tiles(self, section: Section) -> None:
        """Rows of pictures with their captions, all rows as high as the highest tile."""
        height = _tile_height(section)
        for i, tile in enumerate(section.tiles):
            row, column = divmod(i, section.columns)
            x = MARGIN + column * (section.tile_px + GAP)
            y = self._y + row * (height + GAP)
            self._tile(tile, x, y, section.tile_px)
        num_rows = -(-len(section.tiles) // section.columns)
        self._y += num_rows * height + (num_rows - 1) * GAP

    def _tile(self, tile: Tile, x: int, y: int, side: int) -> None:
        enlarged = _enlarged(tile.picture_HW3, side)
        left = x + (side - enlarged.width) // 2
        self.image.paste(enlarged, (left, y))
        box = (left - 1, y - 1, left + enlarged.width, y + enlarged.height)
        self._draw.rectangle(box, outline=LIGHT.grid)
        below = y + enlarged.height + 8
        for text, colour in ((tile.caption, LIGHT.ink), (tile.remark, LIGHT.faint)):
            if text:
                font = _font(TEXT, False)
                self._draw.text(
                    (x + side / 2, below), _cut(text, side + GAP - 6, font), fill=colour, font=font, anchor="ma"
                )
                below += _line(TEXT)

    def scale(self, scale: Scale) -> None:
        """A bar of the colours with its ends and its middle named."""
        ramp_HW = np.tile(np.linspace(0, 1, _BAR_WIDTH), (_BAR_HEIGHT, 1))
        font = _font(TEXT, False)
        x = MARGIN + round(self._draw.textlength(drawable(scale.low), font=font)) + 14
        middle = self._y + _line(TEXT) // 2
        self._draw.text((MARGIN, middle), drawable(scale.low), fill=LIGHT.ink, font=font, anchor="lm")
        self.image.paste(Image.fromarray(_mapped(scale.colours, ramp_HW)), (x, middle - _BAR_HEIGHT // 2))
        high = (x + _BAR_WIDTH + 14, middle)
        self._draw.text(high, drawable(scale.high), fill=LIGHT.ink, font=font, anchor="lm")
        self._y += _line(TEXT)
        if scale.middle:
            place = (x + _BAR_WIDTH / 2, self._y + 2)
            self._draw.text(place, drawable(scale.middle), fill=LIGHT.faint, font=font, anchor="ma")
            self._y += _line(TEXT)


def _mapped(name: str, values_HW: NDArray[np.floating]) -> Colours:
    colours: Colours = colormaps[name](np.clip(values_HW, 0, 1), bytes=True)[..., :3]
    return np.ascontiguousarray(colours)


def _enlarged(picture_HW3: Colours, side: int) -> Image.Image:
    """The picture with its longer side `side` px long: small ones as blocks, large ones interpolated."""
    image = Image.fromarray(picture_HW3)
    longest = max(image.size)
    size = (max(round(image.width * side / longest), 1), max(round(image.height * side / longest), 1))
    blocks = longest * 3 <= side
    return image.resize(size, Image.Resampling.NEAREST if blocks else Image.Resampling.LANCZOS)


def _width(section: Section) -> int:
    columns = min(section.columns, len(section.tiles))
    return columns * section.tile_px + (columns - 1) * GAP


def _height(sheet: Sheet, width: int) -> int:
    """The height of the whole sheet with its margins, in px: the sum of what `draw` draws."""
    height = 2 * MARGIN + _line(TITLE)
    for section in sheet.sections:
        height += SECTION_GAP + _line(HEADING) + 10 if section.heading else GAP
        num_rows = -(-len(section.tiles) // section.columns)
        height += num_rows * _tile_height(section) + (num_rows - 1) * GAP
    for scale in sheet.scales:
        height += SECTION_GAP + _line(TEXT) * (2 if scale.middle else 1)
    return height + SECTION_GAP + len(_wrapped(sheet.note, width)) * _line(TEXT)


def _tile_height(section: Section) -> int:
    highest = max(_enlarged(tile.picture_HW3, section.tile_px).height for tile in section.tiles)
    return highest + (8 + _caption_lines(section) * _line(TEXT) if _caption_lines(section) else 0)


def _caption_lines(section: Section) -> int:
    return max(bool(tile.caption) + bool(tile.remark) for tile in section.tiles)


def _line(size: int) -> int:
    return round(size * _LINE)


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of a note that fit a width in px."""
    letter = _font(TEXT, False).getlength("abcdefghijklmnopqrstuvwxyz ") / 27
    return textwrap.wrap(drawable(text), max(int(width / letter), 20))


def _cut(text: str, width: float, font: ImageFont.FreeTypeFont) -> str:
    """The text, or its beginning with an ellipsis, on one line that wide."""
    shown = drawable(text)
    if font.getlength(shown) <= width:
        return shown
    while shown and font.getlength(shown + "…") > width:
        shown = shown[:-1]
    return shown + "…"


@cache
def _font(size: int, bold: bool) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(font_file().with_name(_BOLDNESS[bold])), size)
