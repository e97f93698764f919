"""Opens a scan or photograph of a page: upright, dark print on light paper, at a size at which it can be cut."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from modeling.images.decode import loaded_image
from modeling.images.pixels import pixels_of
from modeling.images.preprocessing import Preprocessing
from modeling.images.remarks import FURTHER_PAGES
from orchestrator.pages.cut import CutPage, cut_page
from orchestrator.pages.ink import binarise, find_blobs, ink_of

MOST_PIXELS = 9_000_000  # a sheet of A4 at 300 dpi; cutting takes a second for four million
_ENOUGH_PX = 2_400  # of the shorter side: a larger JPEG may be decoded at a fraction of its size
_SMALLEST_PX, _LARGEST_PX = 14, 60  # of a piece of print that is cut well
_SCALES = (0.5, 0.25, 0.125, 2.0, 3.0)  # that are tried where the print is smaller or larger
_STROKE_PX = 40  # wider than strokes: ink is what differs from its surroundings of this size
_GREY = Preprocessing("L", 1, 1)


@dataclass(frozen=True)
class ScannedPage:
    """A page to read. size: of the whole image, upright, in pixels. scale: pixels of `image` for one of them.

    inverted: the print is light on dark, and `image` is its negative. has_more: only the first page is here.
    """

    image: Image.Image
    size: tuple[int, int]
    scale: float
    inverted: bool
    has_more: bool

    def cut(self) -> CutPage:
        """Straighten it and cut it into characters."""
        return cut_page(self.image)


def open_page(data: bytes, *, max_pixels: int) -> ScannedPage:
    """The page of an encoded image.

    Raises:
        ImageError: it cannot be decoded, or has too many pixels.
    """
    with loaded_image(data, min_side=_ENOUGH_PX, max_pixels=max_pixels) as loaded:
        image = Image.fromarray(pixels_of(loaded.picture, _GREY)[:, :, 0])
        turned = loaded.orientation >= 5  # a quarter turn
        width, height = loaded.size[::-1] if turned else loaded.size
        has_more = FURTHER_PAGES in loaded.remarks
    if image.width * image.height > MOST_PIXELS:
        image = _resized(image, (MOST_PIXELS / (image.width * image.height)) ** 0.5)
    inverted = _is_light_on_dark(image)
    image = ImageOps.invert(image) if inverted else image
    image = _at_a_readable_size(image)
    return ScannedPage(image, (width, height), image.width / width, inverted, has_more)


def _is_light_on_dark(image: Image.Image) -> bool:
    """Print is the smaller part of a page: on which side of its surroundings the rare, strong differences lie."""
    small = image.copy()
    small.thumbnail((2000, 2000))
    around = small.filter(ImageFilter.BoxBlur(_STROKE_PX))
    difference = np.asarray(small, np.float64) - np.asarray(around, np.float64)
    return bool((difference**3).sum() > 0)


def _at_a_readable_size(image: Image.Image) -> Image.Image:
    """The page, scaled where its print is too large or too small to be cut; as it is where that finds no more print."""
    num_readable, typical = _readable_pieces(image)
    if _SMALLEST_PX <= typical <= _LARGEST_PX:
        return image
    best = image
    for scale in _SCALES:
        if min(image.size) * scale < _SMALLEST_PX or image.width * image.height * scale**2 > MOST_PIXELS:
            continue
        scaled = _resized(image, scale)
        num_found, _ = _readable_pieces(scaled)
        if num_found > num_readable:
            best, num_readable = scaled, num_found
    return best


def _readable_pieces(image: Image.Image) -> tuple[int, float]:
    """How many pieces of ink have the height of print, and the typical height of all."""
    blobs = find_blobs(binarise(ink_of(image)))
    heights = (blobs.boxes[:, 3] - blobs.boxes[:, 1])[blobs.areas >= 12]
    if not len(heights):
        return 0, 0.0
    return int(((heights >= _SMALLEST_PX) & (heights <= _LARGEST_PX)).sum()), float(np.median(heights))


def _resized(image: Image.Image, scale: float) -> Image.Image:
    size = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
    return image.resize(size, Image.Resampling.BICUBIC)
