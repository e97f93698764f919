"""Colours of the pictures that commands draw, and text that fits."""

from PIL import ImageDraw

from orchestrator.contract.shown import printable
from orchestrator.drawing.fonts import Font

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
RIGHT: Colour = (46, 125, 70)
WRONG: Colour = (200, 38, 46)

_GAP = "…"
_LONGEST = 400  # characters that are measured


def fitted(text: str, font: Font, width: float) -> str:
    """The text on one line, its middle left out where it is wider than `width` pixels: names differ at their ends."""
    text = printable(text)
    if len(text) <= _LONGEST and font.getlength(text) <= width:
        return text
    fits, too_long = 0, min(len(text), _LONGEST)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if font.getlength(_shortened(text, middle)) <= width:
            fits = middle
        else:
            too_long = middle
    return _shortened(text, fits)


def _shortened(text: str, num_kept: int) -> str:
    head = -(-num_kept // 2)
    return text[:head] + _GAP + text[len(text) - num_kept + head :]


def draw_fitted(
    draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, font: Font, fill: Colour, width: float
) -> None:
    """Draw text on its baseline from the left, at most `width` pixels wide."""
    draw.text(at, fitted(text, font, width), fill=fill, font=font, anchor="ls")
