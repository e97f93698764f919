"""A picture of a few answers: each image with its name, label, score and decision, in a grid."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from PIL import Image, ImageDraw

from modeling.errors import ImageError
from modeling.images.decode import loaded_image
from modeling.images.pixels import to_mode
from modeling.images.preprocessing import Preprocessing
from modeling.names import path_to_text
from orchestrator.contract.jobs.rows import Row
from orchestrator.drawing.fonts import SANS, SANS_BOLD, Face
from orchestrator.drawing.style import (
    DOUBTFUL_EDGE,
    EDGE,
    FAINT,
    GROUND,
    RIGHT,
    SHEET,
    TYPE,
    WRONG,
    Colour,
    draw_fitted,
)
from orchestrator.predict.rows import Limits, NamedImage

MOST_DRAWN = 400
_SIDES = ((1, 560), (4, 400), (12, 280), (60, 200), (MOST_DRAWN, 130))  # px of an image, up to so many of them
_GAP_PX, _PAD_PX, _CAPTION_PX = 14, 10, 62
_COLOURS: dict[str | None, Colour] = {"accept": RIGHT, "review": DOUBTFUL_EDGE, "reject": WRONG, None: TYPE}
_RGB = Preprocessing("RGB", 1, 1)
_font = cache(Face.at)


@dataclass(frozen=True, slots=True)
class _Cell:
    """Where an image goes: the left upper corner of its card, and the side of the square for the image."""

    left: int
    top: int
    side: int


def draw_answers(images: Sequence[NamedImage], rows: Sequence[Row], limits: Limits) -> Image.Image:
    """The first `MOST_DRAWN` images with what was answered; one that cannot be read is an empty square."""
    images, rows = images[:MOST_DRAWN], rows[:MOST_DRAWN]
    side = next(side for most, side in _SIDES if len(images) <= most)
    num_columns = min(len(images), math.ceil(math.sqrt(len(images) * 1.4)))
    num_rows = -(-len(images) // num_columns)
    width_px, height_px = side + 2 * _PAD_PX + _GAP_PX, side + 2 * _PAD_PX + _CAPTION_PX + _GAP_PX
    picture = Image.new("RGB", (num_columns * width_px + _GAP_PX, num_rows * height_px + _GAP_PX), GROUND)
    for place, (image, row) in enumerate(zip(images, rows, strict=True)):
        at_row, at_column = divmod(place, num_columns)
        cell = _Cell(_GAP_PX + at_column * width_px, _GAP_PX + at_row * height_px, side)
        _draw_card(picture, cell, image, row, limits)
    return picture


def _draw_card(picture: Image.Image, cell: _Cell, image: NamedImage, row: Row, limits: Limits) -> None:
    draw = ImageDraw.Draw(picture)
    right, bottom = cell.left + cell.side + 2 * _PAD_PX, cell.top + cell.side + 2 * _PAD_PX + _CAPTION_PX
    draw.rectangle((cell.left, cell.top, right, bottom), fill=SHEET, outline=EDGE)
    if (shown := _scaled(image, cell.side, limits)) is not None:
        left = cell.left + _PAD_PX + (cell.side - shown.width) // 2
        top = cell.top + _PAD_PX + (cell.side - shown.height) // 2
        picture.paste(shown, (left, top))
    _draw_caption(draw, cell, row)


def _draw_caption(draw: ImageDraw.ImageDraw, cell: _Cell, row: Row) -> None:
    """Label and score, decision, and the file's name."""
    prediction = row.prediction
    x, y, width = cell.left + _PAD_PX, cell.top + cell.side + 2 * _PAD_PX + 16, cell.side
    if prediction.ok:
        score = f"{prediction.scores[0]:.3f}"
        room = _font(SANS, 15).getlength(score) + 8
        draw_fitted(draw, (x, y), prediction.labels[0], _font(SANS_BOLD, 17), TYPE, width - room)
        draw.text((x + width, y), score, fill=TYPE, font=_font(SANS, 15), anchor="rs")
        said: str = prediction.decision or ""
        colour = _COLOURS[prediction.decision]
    else:
        draw_fitted(draw, (x, y), prediction.error_code or "", _font(SANS_BOLD, 17), WRONG, width)
        said, colour = prediction.error or "", FAINT
    draw_fitted(draw, (x, y + 20), said, _font(SANS, 14), colour, width)
    draw_fitted(draw, (x, y + 38), path_to_text(row.path), _font(SANS, 13), FAINT, width)


def _scaled(image: NamedImage, side: int, limits: Limits) -> Image.Image | None:
    """The image within a square, a small one enlarged to whole multiples; None if it cannot be read."""
    try:
        data = image.read(limits.max_file_bytes)
        with loaded_image(data, min_side=side, max_pixels=limits.max_pixels) as loaded:
            shown = to_mode(loaded.picture, _RGB)
            shown.thumbnail((side, side))
    except (ImageError, OSError):
        return None  # the row says why
    times = side // max(shown.size)
    if times < 2:
        return shown
    return shown.resize((shown.width * times, shown.height * times), Image.Resampling.NEAREST)
