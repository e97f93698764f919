"""The result picture: the scan on the left, the recognised text on the right, doubtful characters marked."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

from orchestrator.demo.cut import Character, CutPage
from orchestrator.demo.fonts import TRAINING_FACES
from orchestrator.demo.frame import Box
from orchestrator.demo.text import DOUBTFUL_BELOW, Reading

Colour = tuple[int, int, int]

GROUND: Colour = (247, 244, 237)
SHEET: Colour = (255, 254, 250)
EDGE: Colour = (214, 207, 192)
BAND: Colour = (31, 51, 73)
BAND_FAINT: Colour = (168, 184, 202)
TYPE: Colour = (38, 42, 48)
FAINT: Colour = (122, 124, 126)
DOUBTFUL: Colour = (255, 205, 92)
DOUBTFUL_EDGE: Colour = (214, 140, 0)
WRONG: Colour = (200, 38, 46)

GAP_PX = 44
BAND_PX = 124
LEGEND_PX = 76
CROP_PX = 46  # of paper that stays around the print
READ_SIZE_PX = 28
SANS, SANS_BOLD, MONO = TRAINING_FACES[:3]
READ_SPACE_PX = 17  # width of one character of the recognised text


def draw_result(
    page: CutPage, readings: Sequence[Reading], accuracy: float, accuracy_by_shape: float, path: Path
) -> None:
    """Write the picture as a PNG: one reading a character of the page, in reading order.

    The accuracies are the share of the original that was read correctly: in the end, and by the shapes alone.
    """
    around = _printed(page)
    num_columns = max(_num_columns(list(line)) for _, line in groupby(page.characters, lambda c: c.line))
    read_px = num_columns * READ_SPACE_PX + 2 * CROP_PX
    size = (around.width + read_px + 3 * GAP_PX, BAND_PX + around.height + GAP_PX + LEGEND_PX)
    picture = Image.new("RGB", size, GROUND)
    scan_at, read_at = (GAP_PX, BAND_PX + GAP_PX), (around.width + 2 * GAP_PX, BAND_PX + GAP_PX)
    draw = ImageDraw.Draw(picture)
    _draw_band(draw, size[0], readings, accuracy, page.skew_deg)
    _draw_scan(picture, page, readings, around, scan_at)
    sheet = (*read_at, read_at[0] + read_px, read_at[1] + around.height)
    draw.rectangle(sheet, fill=SHEET, outline=EDGE, width=2)
    _draw_read(draw, page.characters, readings, (read_at[0] + CROP_PX, read_at[1] - around.top))
    _draw_legend(draw, (GAP_PX, size[1] - LEGEND_PX // 2))
    caption = f"{100 * accuracy_by_shape:.1f} % by shape alone; neighbours settled I l 1, O 0 and S 5"
    caption_at = (size[0] - GAP_PX, size[1] - LEGEND_PX // 2)
    draw.text(caption_at, caption, fill=FAINT, font=SANS.at(22), anchor="rm")
    picture.save(path)


def _printed(page: CutPage) -> Box:
    """The part of the page that has print, with some paper around it."""
    boxes = [character.box for character in page.characters]
    return Box(
        max(min(box.left for box in boxes) - CROP_PX, 0),
        max(min(box.top for box in boxes) - CROP_PX, 0),
        min(max(box.right for box in boxes) + CROP_PX, page.image.width),
        min(max(box.bottom for box in boxes) + CROP_PX, page.image.height),
    )


def _num_columns(line: Sequence[Character]) -> int:
    return len(line) + sum(character.space_before for character in line)


def _draw_band(
    draw: ImageDraw.ImageDraw, width: int, readings: Sequence[Reading], accuracy: float, skew_deg: float
) -> None:
    draw.rectangle((0, 0, width, BAND_PX), fill=BAND)
    draw.text((GAP_PX, 54), "Pigeonhole reads a page", fill="white", font=SANS_BOLD.at(38), anchor="ls")
    caption = f"Scanned {abs(skew_deg):.1f}° askew, in fonts the classifier was not trained on."
    draw.text((GAP_PX, 96), caption, fill=BAND_FAINT, font=SANS.at(24), anchor="ls")
    num_doubtful = sum(reading.doubtful for reading in readings)
    figures = (
        (f"{num_doubtful}", "doubtful"),
        (f"{100 * accuracy:.1f} %", "read correctly"),
        (f"{len(readings)}", "characters"),
    )
    right = width - GAP_PX
    for number, unit in figures:
        draw.text((right, 58), number, fill="white", font=SANS_BOLD.at(44), anchor="rs")
        draw.text((right, 96), unit, fill=BAND_FAINT, font=SANS.at(24), anchor="rs")
        right -= 60 + round(max(SANS_BOLD.at(44).getlength(number), SANS.at(24).getlength(unit)))


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
    if not reading.right:
        draw.rounded_rectangle(box, 4, outline=WRONG, width=3)


def _draw_read(
    draw: ImageDraw.ImageDraw, characters: Sequence[Character], readings: Sequence[Reading], at: tuple[int, int]
) -> None:
    """The recognised text, each line at the height of its line on the scan."""
    font = MONO.at(READ_SIZE_PX)
    together = zip(characters, readings, strict=True)
    for _, line in groupby(together, key=lambda both: both[0].line):
        members = list(line)
        bottoms = sorted(character.box.bottom for character, _ in members)
        x, y = at[0], at[1] + bottoms[len(bottoms) // 2]
        for character, reading in members:
            x += READ_SPACE_PX * character.space_before
            cell = (x - 2, y - READ_SIZE_PX + 2, x + READ_SPACE_PX, y + 8)
            if reading.doubtful:
                draw.rounded_rectangle(cell, 4, fill=DOUBTFUL)
            if not reading.right:
                draw.rounded_rectangle(cell, 4, outline=WRONG, width=3)
            colour = TYPE if reading.right else WRONG
            draw.text((x, y), reading.text, fill=colour, font=font, anchor="ls")
            x += READ_SPACE_PX


def _draw_legend(draw: ImageDraw.ImageDraw, at: tuple[int, int]) -> None:
    x, y = at
    draw.rounded_rectangle((x, y - 12, x + 22, y + 12), 4, fill=DOUBTFUL, outline=DOUBTFUL_EDGE, width=2)
    caption = f"doubtful: scored below {100 * DOUBTFUL_BELOW:.0f} %, kept for a second look"
    draw.text((x + 36, y), caption, fill=TYPE, font=SANS.at(22), anchor="lm")
    x += 36 + round(SANS.at(22).getlength(caption)) + 60
    draw.rounded_rectangle((x, y - 12, x + 22, y + 12), 4, outline=WRONG, width=3)
    caption = "wrong: the original says otherwise"
    draw.text((x + 36, y), caption, fill=TYPE, font=SANS.at(22), anchor="lm")
