"""A picture of a page that was read: the scan on the left, the recognised text on the right, doubtful ones marked."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from PIL import Image, ImageDraw, ImageOps

from orchestrator.contract.shown import printable
from orchestrator.drawing.fonts import MONO, SANS, SANS_BOLD
from orchestrator.drawing.style import (
    BAND,
    BAND_FAINT,
    DOUBTFUL,
    DOUBTFUL_EDGE,
    EDGE,
    FAINT,
    GROUND,
    SHEET,
    TYPE,
    WRONG,
    draw_fitted,
)
from orchestrator.pages.cut import Character, CutPage
from orchestrator.pages.frame import Box
from orchestrator.pages.text import lines_of

GAP_PX = 44
BAND_PX = 124
LEGEND_PX = 76
CROP_PX = 46  # of paper that stays around the print
READ_SIZE_PX = 28
READ_SPACE_PX = 17  # width of one character of the recognised text
LINE_PX = 52  # from line to line: so the recognised text stands beside its line
_SMALLEST, _LARGEST = 0.25, 3.0  # of the page in the picture


@dataclass(frozen=True, slots=True)
class Reading:
    """What is drawn for one character of the page. wrong: the true text, if it is known, says otherwise."""

    text: str
    doubtful: bool
    wrong: bool = False


@dataclass(frozen=True, slots=True)
class Caption:
    """The words of the picture. figures: numbers and what they count. wrong: None where the truth is not known."""

    title: str
    subtitle: str
    figures: Sequence[tuple[str, str]]
    doubtful: str
    wrong: str | None = None
    note: str = ""


def draw_page(page: CutPage, readings: Sequence[Reading], caption: Caption) -> Image.Image:
    """The picture: one reading a character of the page, in reading order."""
    page = _scaled(page)
    around = _printed(page)
    read_px = _num_columns(page.characters, readings) * READ_SPACE_PX + 2 * CROP_PX
    size = (around.width + read_px + 3 * GAP_PX, BAND_PX + around.height + GAP_PX + LEGEND_PX)
    picture = Image.new("RGB", size, GROUND)
    scan_at, read_at = (GAP_PX, BAND_PX + GAP_PX), (around.width + 2 * GAP_PX, BAND_PX + GAP_PX)
    draw = ImageDraw.Draw(picture)
    _draw_band(draw, size[0], caption)
    _draw_scan(picture, page, readings, around, scan_at)
    sheet = (*read_at, read_at[0] + read_px, read_at[1] + around.height)
    draw.rectangle(sheet, fill=SHEET, outline=EDGE, width=2)
    _draw_read(draw, page.characters, readings, (read_at[0] + CROP_PX, read_at[1] - around.top))
    _draw_legend(draw, (GAP_PX, size[1] - LEGEND_PX // 2), caption)
    draw.text((size[0] - GAP_PX, size[1] - LEGEND_PX // 2), caption.note, fill=FAINT, font=SANS.at(22), anchor="rm")
    return picture


def _num_columns(characters: Sequence[Character], readings: Sequence[Reading]) -> int:
    """Characters in the longest line of the recognised text."""
    widths = [
        len(printable(reading.text)) + each.space_before for each, reading in zip(characters, readings, strict=True)
    ]
    return max((sum(widths[i] for i in line) for line in lines_of(characters)), default=0)


def _scaled(page: CutPage) -> CutPage:
    """The page at a size at which its text can be printed beside it, line by line."""
    bottoms = [median(page.characters[i].box.bottom for i in line) for line in lines_of(page.characters)]
    pitches = [below - above for above, below in pairwise(bottoms) if below > above]
    if not pitches or LINE_PX <= median(pitches) < 2 * LINE_PX:
        return page
    factor = min(max(LINE_PX / median(pitches), _SMALLEST), _LARGEST)
    return page.resized(factor)


def _printed(page: CutPage) -> Box:
    """The part of the page that has print, with some paper around it; all of a page without."""
    boxes = [character.box for character in page.characters] or [Box(0, 0, page.image.width, page.image.height)]
    return Box(
        max(min(box.left for box in boxes) - CROP_PX, 0),
        max(min(box.top for box in boxes) - CROP_PX, 0),
        min(max(box.right for box in boxes) + CROP_PX, page.image.width),
        min(max(box.bottom for box in boxes) + CROP_PX, page.image.height),
    )


def _draw_band(draw: ImageDraw.ImageDraw, width: int, caption: Caption) -> None:
    draw.rectangle((0, 0, width, BAND_PX), fill=BAND)
    right = width - GAP_PX
    for number, unit in caption.figures:
        draw.text((right, 58), number, fill="white", font=SANS_BOLD.at(44), anchor="rs")
        draw.text((right, 96), unit, fill=BAND_FAINT, font=SANS.at(24), anchor="rs")
        right -= 60 + round(max(SANS_BOLD.at(44).getlength(number), SANS.at(24).getlength(unit)))
    draw_fitted(draw, (GAP_PX, 54), caption.title, SANS_BOLD.at(38), (255, 255, 255), max(right - GAP_PX, 60))
    draw_fitted(draw, (GAP_PX, 96), caption.subtitle, SANS.at(24), BAND_FAINT, max(right - GAP_PX, 60))


def _draw_scan(
    picture: Image.Image, page: CutPage, readings: Sequence[Reading], around: Box, at: tuple[int, int]
) -> None:
    """The straightened scan with a box around each doubtful or wrong character."""
    paper = ImageOps.colorize(page.image, (24, 22, 26), (255, 252, 242))
    scan = paper.crop((around.left, around.top, around.right, around.bottom))
    draw = ImageDraw.Draw(scan, "RGBA")
    for character, reading in zip(page.characters, readings, strict=True):
        _mark(draw, reading, _in_crop(character.box, around))
    picture.paste(scan, at)
    edge = (at[0], at[1], at[0] + scan.width, at[1] + scan.height)
    ImageDraw.Draw(picture).rectangle(edge, outline=EDGE, width=2)


def _in_crop(box: Box, around: Box, by: int = 5) -> tuple[int, int, int, int]:
    """The box in the coordinates of the crop, a little larger."""
    left, top = box.left - around.left - by, box.top - around.top - by
    return left, top, left + box.width + 2 * by, top + box.height + 2 * by


def _mark(draw: ImageDraw.ImageDraw, reading: Reading, box: tuple[int, int, int, int]) -> None:
    """Amber behind what is doubtful, a red frame around what is wrong."""
    if reading.doubtful:
        draw.rounded_rectangle(box, 4, fill=(*DOUBTFUL, 110), outline=DOUBTFUL_EDGE, width=2)
    if reading.wrong:
        draw.rounded_rectangle(box, 4, outline=WRONG, width=3)


def _draw_read(
    draw: ImageDraw.ImageDraw, characters: Sequence[Character], readings: Sequence[Reading], at: tuple[int, int]
) -> None:
    """The recognised text, each line at the height of its line on the scan."""
    font = MONO.at(READ_SIZE_PX)
    for line in lines_of(characters):
        bottoms = sorted(characters[i].box.bottom for i in line)
        x, y = at[0], at[1] + bottoms[len(bottoms) // 2]
        for i in line:
            reading, text = readings[i], printable(readings[i].text)
            x += READ_SPACE_PX * characters[i].space_before
            width = READ_SPACE_PX * len(text)
            cell = (x - 2, y - READ_SIZE_PX + 2, x + width, y + 8)
            if reading.doubtful:
                draw.rounded_rectangle(cell, 4, fill=DOUBTFUL)
            if reading.wrong:
                draw.rounded_rectangle(cell, 4, outline=WRONG, width=3)
            draw.text((x, y), text, fill=WRONG if reading.wrong else TYPE, font=font, anchor="ls")
            x += width


def _draw_legend(draw: ImageDraw.ImageDraw, at: tuple[int, int], caption: Caption) -> None:
    x, y = at
    draw.rounded_rectangle((x, y - 12, x + 22, y + 12), 4, fill=DOUBTFUL, outline=DOUBTFUL_EDGE, width=2)
    draw.text((x + 36, y), caption.doubtful, fill=TYPE, font=SANS.at(22), anchor="lm")
    if caption.wrong is not None:
        x += 36 + round(SANS.at(22).getlength(caption.doubtful)) + 60
        draw.rounded_rectangle((x, y - 12, x + 22, y + 12), 4, outline=WRONG, width=3)
        draw.text((x + 36, y), caption.wrong, fill=TYPE, font=SANS.at(22), anchor="lm")
