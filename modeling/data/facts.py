"""What one image is: whether its file decodes, its size, mode and orientation, and a thumbnail to compare it by."""

# Shapes: N images, H height, W width, C channels (of thumbnails 3: YCbCr), S side of a thumbnail.
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from modeling.images.decode import loaded_image
from modeling.images.formats import MAX_PIXELS
from modeling.images.pixels import Pixels, orientation_of, to_mode, upright
from modeling.images.preprocessing import Preprocessing

GREY_SIDE, COLOUR_SIDE = 32, 8  # px of a thumbnail's luma, and of its two chromas
THUMBNAIL_BYTES = GREY_SIDE**2 + 2 * COLOUR_SIDE**2
_NO_COLOUR = bytes([128]) * (2 * COLOUR_SIDE**2)
_MIN_SIDE = 4 * GREY_SIDE  # px a side from which a thumbnail is made
_GREY_TOLERANCE = 2  # of 255: what JPEG makes of a grey image's chroma
_FIRST_SIDEWAYS = 5  # orientations from here on swap width and height
_RGB = Preprocessing("RGB", GREY_SIDE, GREY_SIDE)
_YCBCR = np.array(  # of RGB in 65536ths, as JFIF has it (ITU-T T.871)
    [[19595, 38470, 7471], [-11058, -21710, 32768], [32768, -27439, -5329]], dtype=np.int64
)
_CHUNK_PIXELS = 1 << 19  # averaged at a time


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What a decoded image is.

    size: width and height in px, as a viewer shows it.
    mode: Pillow's, such as RGB, L, CMYK or P. format: Pillow's, such as JPEG.
    orientation: of EXIF, 1 to 8; 1 where there is none. frames: 1 but for animations and pages.
    grey: whether it shows no colour.
    thumbnail: 32 x 32 of luma, then 8 x 8 of each chroma (YCbCr), stretched over the whole upright image.
    """

    size: tuple[int, int]
    mode: str
    format: str
    orientation: int
    frames: int
    grey: bool
    thumbnail: bytes


def check_image(data: bytes, max_pixels: int = MAX_PIXELS) -> ImageFacts:
    """Decode one encoded image to its end and say what it is.

    Raises:
        ImageError: as `decode_image` does.
    """
    with loaded_image(data, min_side=_MIN_SIDE, max_pixels=max_pixels) as (image, (width, height)):
        orientation = orientation_of(image)
        thumbnail, grey = _thumbnail(upright(image))
        return ImageFacts(
            size=(height, width) if orientation >= _FIRST_SIDEWAYS else (width, height),
            mode=image.mode,
            format=image.format or "?",
            orientation=orientation,
            frames=_num_frames(image),
            grey=grey,
            thumbnail=thumbnail,
        )


def _thumbnail(image: Image.Image) -> tuple[bytes, bool]:
    """The thumbnail of an upright image, and whether the image is grey.

    The same on every processor, as duplicates and splits follow from it. Pillow's conversions and its box filter add
    whole numbers; the filter's weights are quotients that every processor rounds alike. Decoders compute in whole
    numbers, too: libjpeg-turbo's default transform, fractions and upsampling give the same bytes with SIMD as without.
    Only lossy JPEG 2000, AVIF and CIELAB go through floats: between builds of Pillow for x86 and for Arm, a pixel may
    differ by a level.
    """
    small = to_mode(image, _RGB).resize((GREY_SIDE, GREY_SIDE), Image.Resampling.BOX)
    luma, *chromas = small.convert("YCbCr").split()
    side = (COLOUR_SIDE, COLOUR_SIDE)
    colours = [np.asarray(chroma.resize(side, Image.Resampling.BOX)) for chroma in chromas]
    return luma.tobytes() + b"".join(colour.tobytes() for colour in colours), _is_grey(small)


def _is_grey(small: Image.Image) -> bool:
    """Whether the channels of an RGB image are all the same, but for what JPEG makes of them."""
    pixels_HWC = np.asarray(small, dtype=np.int16)
    return int(np.ptp(pixels_HWC, axis=2).max()) <= _GREY_TOLERANCE


def _num_frames(image: Image.Image) -> int:
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # later frames may be broken; only the first is read
        return 1


def check_pixels(pixels_NHWC: Pixels) -> Iterator[ImageFacts]:
    """What images held as pixels are; all of them are readable, and none is turned."""
    height, width, channels = pixels_NHWC.shape[1:]
    mode = "L" if channels == 1 else "RGB"
    step = max(1, _CHUNK_PIXELS // (height * width))
    for start in range(0, len(pixels_NHWC), step):
        chunk_NHWC = pixels_NHWC[start : start + step]
        planes_CNHW = np.ascontiguousarray(np.moveaxis(chunk_NHWC, 3, 0))
        grey_N = np.ptp(planes_CNHW, axis=0).max(axis=(1, 2)) <= _GREY_TOLERANCE
        for grey, thumbnail in zip(grey_N.tolist(), _pixel_thumbnails(planes_CNHW), strict=True):
            yield ImageFacts((width, height), mode, "pixels", 1, 1, grey=grey, thumbnail=thumbnail)


def _pixel_thumbnails(planes_CNHW: Pixels) -> Iterator[bytes]:
    """The thumbnail of each image; by exact areas, which Pillow's box filter only nears."""
    sums_CNSS, area = _area_sums(planes_CNHW, GREY_SIDE)
    if len(planes_CNHW) == 1:
        yield from (luma_SS.tobytes() + _NO_COLOUR for luma_SS in _rounded(sums_CNSS[0], area))
        return
    luma_1NSS = _converted(_YCBCR[:1], sums_CNSS, area)
    chromas_CNSS = _converted(_YCBCR[1:], *_area_sums(sums_CNSS, COLOUR_SIDE, area), middle=128)
    for number, luma_SS in enumerate(luma_1NSS[0]):
        yield luma_SS.tobytes() + chromas_CNSS[:, number].tobytes()


def _converted(weights_KC: NDArray[np.int64], sums: NDArray[Any], area: int, middle: int = 0) -> NDArray[np.uint8]:
    """Sums of RGB (C, ...) over so much area as the channels (K, ...) that the weights make of it."""
    whole = area << 16
    kind = np.min_scalar_type(-512 * whole)  # int32 for small areas, which is faster
    weighted = np.einsum("kc,c...->k...", weights_KC.astype(kind), sums.astype(kind))
    return _rounded(weighted + middle * whole, whole)


def _rounded(sums: NDArray[Any], area: int) -> NDArray[np.uint8]:
    """Means of sums over so much area, halves rounded up."""
    means: NDArray[np.uint8] = ((sums + area // 2) // area).clip(0, 255).astype(np.uint8)
    return means


def _area_sums(planes: NDArray[Any], side: int, area: int = 1) -> tuple[NDArray[Any], int]:
    """Planes (..., H, W) summed to (..., side, side), or stretched; and how much area each sum is over.

    In whole numbers, as a pixel is as many parts long as make an area end where a part does: the sums, and what is
    rounded from them, are the same on every processor.

    area: what each number of the planes is a sum over.
    """
    area *= math.prod(size // math.gcd(size, side) for size in planes.shape[-2:])
    kind = np.min_scalar_type(256 * area)  # small numbers are added much faster
    for axis in (-2, -1):
        planes = _summed(planes, side, axis, kind)
    return planes, area


def _summed(planes: NDArray[Any], side: int, axis: int, kind: np.dtype[Any]) -> NDArray[Any]:
    """Planes of which an axis is summed to `side`: each pixel counts by the parts of it that an area covers."""
    size = planes.shape[axis]
    if size == side:
        return planes
    parts, area = side // math.gcd(size, side), size // math.gcd(size, side)  # of a pixel, of an area
    starts = np.arange(side) * area
    summed: NDArray[Any] | None = None
    for step in range(-(-area // parts) + 1):  # the first pixel of each area, then the second, ...
        at = starts // parts + step
        covered = np.minimum(starts + area, (at + 1) * parts) - np.maximum(starts, at * parts)
        weights = covered.clip(0).astype(kind).reshape(-1, *(1,) * (-1 - axis))
        share = np.take(planes, at.clip(max=size - 1), axis=axis) * weights
        summed = share if summed is None else np.add(summed, share, out=summed)
    assert summed is not None
    return summed
