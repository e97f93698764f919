"""Opens a scan or photograph of a page: upright, dark print on light paper, at a size at which it can be cut."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from modeling.images.decode import loaded_image
from modeling.images.pixels import pixels_of
from modeling.images.preprocessing import Preprocessing
from modeling.images.remarks import FURTHER_PAGES
from orchestrator.pages.cut import CutPage, cut_page
from orchestrator.pages.ink import FAINTEST_PRINT, binarise, find_blobs, ink_on
from orchestrator.pages.surroundings import find_surroundings

MOST_PIXELS = 9_000_000  # a sheet of A4 at 300 dpi; cutting takes a second for four million
_ENOUGH_PX = 2_400  # of the shorter side: a larger JPEG may be decoded at a fraction of its size
_LEAST_PX = 8  # of a side of a page with print
_SMALLEST_PX, _LARGEST_PX = 14, 48  # of a piece of print that is cut well
_STROKE_PX = 40  # wider than strokes: ink is what differs from its surroundings of this size
_GREY = Preprocessing("L", 1, 1)


@dataclass(frozen=True)
class ScannedPage:
    """A page to read. size: of the whole image, upright, in pixels. scale: pixels of `image` for one of them.

    outside: 255 where the image shows no page but what it lies on; None if the page fills it. inverted: the print is
    light on dark, and `image` is its negative. has_more: only the first page is here.
    """

    image: Image.Image
    outside: Image.Image | None
    size: tuple[int, int]
    scale: float
    inverted: bool
    has_more: bool

    def cut(self) -> CutPage:
        """Straighten it and cut it into characters."""
        return cut_page(self.image, self.outside)


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
    if _is_blank(image):
        return ScannedPage(Image.new("L", image.size, 255), None, (width, height), 1.0, False, has_more)
    inverted = _is_light_on_dark(image)
    outside = None if inverted else find_surroundings(image)
    image = ImageOps.invert(image) if inverted else image
    image = _at_a_readable_size(image, outside)
    outside = None if outside is None else outside.resize(image.size, Image.Resampling.NEAREST)
    return ScannedPage(image, outside, (width, height), image.width / width, inverted, has_more)


def _is_blank(image: Image.Image) -> bool:
    darkest, lightest = np.percentile(np.asarray(image), (0, 100))
    return min(image.size) < _LEAST_PX or lightest - darkest < FAINTEST_PRINT


def _is_light_on_dark(image: Image.Image) -> bool:
    """Print is the smaller part of a page: on which side of its surroundings the rare, strong differences lie."""
    small = image.copy()
    small.thumbnail((2000, 2000))
    around = small.filter(ImageFilter.BoxBlur(_STROKE_PX))
    difference = np.asarray(small, np.float64) - np.asarray(around, np.float64)
    return bool((difference**3).sum() > 0)


def _at_a_readable_size(image: Image.Image, outside: Image.Image | None) -> Image.Image:
    """The page, smaller where its strokes are hollow, and larger where its print is small."""
    num_pieces, typical = _pieces(image, outside)
    while typical >= _SMALLEST_PX and min(image.size) >= 4 * _LEAST_PX:
        half = _resized(image, 0.5)
        num_half, typical_half = _pieces(half, outside)
        # Print has half the height at half the size; pieces that do not are the outlines of larger strokes.
        if typical <= _LARGEST_PX and typical_half < 0.75 * typical:
            break
        image, num_pieces, typical = half, num_half, typical_half
    if not 0 < typical < _SMALLEST_PX:
        return image
    best = image
    for scale in (2.0, 3.0):
        if image.width * image.height * scale**2 <= MOST_PIXELS:
            num_found, _ = _pieces(scaled := _resized(image, scale), outside)
            best, num_pieces = (scaled, num_found) if num_found > num_pieces else (best, num_pieces)
    return best


def _pieces(image: Image.Image, outside: Image.Image | None) -> tuple[int, float]:
    """How many pieces of ink have the height of print, and the typical height of all."""
    blobs = find_blobs(binarise(ink_on(image, outside)))
    heights = (blobs.boxes[:, 3] - blobs.boxes[:, 1])[blobs.areas >= 12]
    if not len(heights):
        return 0, 0.0
    return int(((heights >= _SMALLEST_PX) & (heights <= _LARGEST_PX)).sum()), float(np.median(heights))


def _resized(image: Image.Image, scale: float) -> Image.Image:
    size = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
    return image.resize(size, Image.Resampling.BICUBIC)
