"""Makes the classifier's input of one character, for training glyphs and page characters.

The shape alone does not tell c from C or a comma from an apostrophe: its size and place on the line do. So no
character is stretched to fill its frame. The frame spans the line, from above the tallest letter to below the
deepest, with the baseline always in the same row and the line's tall letters (capitals, b, d, h, digits) always
the same height; the character is centred horizontally.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from orchestrator.pages.ink import Bytes

FRAME_PX = 28
BASELINE_ROW = 21.0
TALL_PX = 17.0  # leaves 4 rows above for the tips of f and parentheses, 7 below for tails
FAINTEST_INK = 40  # of 255: fainter pixels are paper
FULL_INK = 420  # of 255: ink is full from three fifths of the darkest, so hairlines count like stems


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels; right and bottom are exclusive."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top

    def scaled(self, factor: float) -> "Box":
        """The same rectangle on the page at another size; it keeps a pixel."""
        left, top = round(self.left * factor), round(self.top * factor)
        return Box(left, top, max(round(self.right * factor), left + 1), max(round(self.bottom * factor), top + 1))


def frame_character(ink: Bytes, box: Box, baseline: float, tall: float) -> Image.Image:
    """The character in `box`, light on black, 28 x 28.

    `ink` is the page's ink in the box and one pixel around it, without neighbours; `baseline` is the row of the
    line's baseline, `tall` the height of the line's tall letters, both in pixels of the page.
    """
    shape = np.maximum(ink, FAINTEST_INK) - FAINTEST_INK
    darkest = max(int(shape.max(initial=0)), 1)  # faint print is raised to full black
    shape = np.minimum(shape.astype(np.uint32) * FULL_INK // darkest, 255).astype(np.uint8)
    span = FRAME_PX * tall / TALL_PX  # of the frame, in pixels of the page
    pad = int(span) + 2
    canvas = np.pad(shape, pad)
    left = (box.left + box.right - span) / 2 - max(box.left - 1, 0) + pad
    top = baseline - BASELINE_ROW * tall / TALL_PX - max(box.top - 1, 0) + pad
    left = min(max(left, 0.0), canvas.shape[1] - span)  # a blot far from its line still gets an image
    top = min(max(top, 0.0), canvas.shape[0] - span)
    window = (left, top, left + span, top + span)
    return Image.fromarray(canvas).resize((FRAME_PX, FRAME_PX), Image.Resampling.BILINEAR, box=window)
