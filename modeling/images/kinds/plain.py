"""Loaded Pillow images of any kind with 8 bits a channel, and what is to be remarked about them."""

from typing import Any

import numpy as np
from PIL import GifImagePlugin, Image, TiffImagePlugin

from modeling.images.kinds.gif import has_further_frames
from modeling.images.kinds.png_metadata import PngFacts
from modeling.images.kinds.samples import Samples, to_8_bits
from modeling.images.kinds.tiff import bits_of, fix_palette, has_further_pages, is_signed, samples_of
from modeling.images.png import decode_deep_png

_DEEP_COLOURS = ("RGB", "RGBA", "CMYK")  # of which Pillow keeps the upper 8 bits
_DARK = 0x40  # of those bits: no value exceeds 16,383


def in_8_bits(image: Image.Image, data: bytes, png: PngFacts | None) -> tuple[Image.Image, bool]:
    """The image with 8 bits a channel, and whether the range of its values is known.

    data: the file. png: what the metadata say, if it is a PNG.
    """
    if image.mode.startswith(("I", "F")):
        return _wide(image, png)
    if png is not None:
        return _png(image, data, png)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return _tiff(image)
    return image, True


def _wide(image: Image.Image, png: PngFacts | None) -> tuple[Image.Image, bool]:
    """Grey of more than 8 bits."""
    values_HW = np.asarray(image)
    if png is not None:
        samples = _png_samples(png)
    elif isinstance(image, TiffImagePlugin.TiffImageFile):
        samples = samples_of(image)
        if (samples.kind, samples.bits) == ("u", 32):
            values_HW = values_HW.view(np.uint32)  # Pillow takes them for signed ones
    else:  # JPEG 2000 and PPM state their bits, and Pillow scales them to 16
        samples = Samples("f", 32) if image.mode == "F" else Samples("u", 16, white=65535.0)
    grey_HW, known = to_8_bits(values_HW, samples)
    grey = Image.fromarray(grey_HW)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey = Image.merge("LA", (grey, Image.fromarray(np.where(values_HW == transparent, 0, 255).astype(np.uint8))))
    return grey, known


def _png(image: Image.Image, data: bytes, png: PngFacts) -> tuple[Image.Image, bool]:
    """A PNG that Pillow has brought to 8 bits."""
    transparent = image.info.get("transparency")
    if png.bits == 16 and image.mode in _DEEP_COLOURS:
        return _deep_png(image, data, png)
    if png.bits in (2, 4) and image.mode == "L" and isinstance(transparent, int):
        image.info["transparency"] = transparent * 255 // (2**png.bits - 1)  # Pillow scales the pixels alone
    return image, True


def _deep_png(image: Image.Image, data: bytes, png: PngFacts) -> tuple[Image.Image, bool]:
    """A PNG with colours or alpha of 16 bits, of which Pillow keeps the upper 8: those of a dark one are too few."""
    samples, dark = _png_samples(png), _is_dark(image)
    transparent = image.info.pop("transparency", None)  # Pillow compares 8 bits with 16
    values_HWC = decode_deep_png(data) if transparent or (dark and samples.white) else None
    if values_HWC is None:
        return image, not dark
    picture, known = image, not dark
    if dark and samples.white:
        rgb_HW, known = to_8_bits(values_HWC.reshape(len(values_HWC), -1), samples)
        picture = Image.fromarray(rgb_HW.reshape(values_HWC.shape))
    if image.mode == "RGBA":
        picture.putalpha(_alpha(image, samples))
    elif transparent:
        shown_HW = (values_HWC != np.array(transparent)).any(axis=2)
        picture.putalpha(Image.fromarray(shown_HW.astype(np.uint8) * 255))
    return picture, known


def _alpha(image: Image.Image, samples: Samples) -> Image.Image:
    """The alpha of a dark picture: of as few bits as its colours, if it never exceeds them."""
    alpha, opaque = image.getchannel("A"), int(samples.white) >> 8  # the upper 8 of 16 bits
    highest: Any = alpha.getextrema()
    if not 0 < highest[1] <= opaque:
        return alpha
    return alpha.point([min(255, value * 255 // opaque) for value in range(256)])


def _png_samples(png: PngFacts) -> Samples:
    stated = 8 <= png.significant_bits <= 16
    return Samples("u", 16, white=2.0**png.significant_bits - 1 if stated else 0.0, scaled=stated)


def _tiff(image: TiffImagePlugin.TiffImageFile) -> tuple[Image.Image, bool]:
    """A TIFF that Pillow has brought to 8 bits."""
    if image.mode == "P":
        fix_palette(image)
    elif image.mode == "L" and is_signed(image):
        grey_HW, known = to_8_bits(np.asarray(image).view(np.int8), samples_of(image))
        return Image.fromarray(grey_HW), known
    return image, not (image.mode in _DEEP_COLOURS and bits_of(image) == 16 and _is_dark(image))


def _is_dark(image: Image.Image) -> bool:
    """Whether no colour exceeds a quarter of white; not for black images."""
    extrema: Any = image.getextrema()
    return 0 < max(int(high) for _, high in extrema[:3]) < _DARK


def is_one_of_several(image: Image.Image, data: bytes) -> bool:
    """Whether the file has further frames or pages; found without decoding or counting them."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return has_further_pages(data)
    if isinstance(image, GifImagePlugin.GifImageFile):
        return has_further_frames(data)
    return int(getattr(image, "n_frames", 1)) > 1
