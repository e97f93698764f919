"""Facts about an image: size, mode, format and orientation, and a thumbnail for comparisons; decodes it completely."""

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
from modeling.images.pixels import Pixels, bands_of, to_mode
from modeling.images.preprocessing import Preprocessing

GREY_SIDE, COLOUR_SIDE = 32, 8  # px of a thumbnail's luma, and of its two chromas
THUMBNAIL_BYTES = GREY_SIDE**2 + 2 * COLOUR_SIDE**2
_NO_COLOUR = bytes([128]) * (2 * COLOUR_SIDE**2)
_MIN_SIDE = 4 * GREY_SIDE  # px per side that a JPEG keeps when it is decoded for a thumbnail
_GREY_TOLERANCE = 2  # levels of 255: JPEG's error in a grey image's chroma
_FIRST_SIDEWAYS = 5  # orientations from here on swap width and height
_RGB = Preprocessing("RGB", GREY_SIDE, GREY_SIDE)
_YCBCR = np.array(  # from RGB, in units of 1/65536, as JFIF defines it (ITU-T T.871)
    [[19595, 38470, 7471], [-11058, -21710, 32768], [32768, -27439, -5329]], dtype=np.int64
)
_CHUNK_PIXELS = 1 << 19  # averaged at a time


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """Facts about a decoded image.

    size: width and height in px, as a viewer shows it.
    mode: Pillow's, such as RGB, L, CMYK or P. format: Pillow's, such as JPEG.
    orientation: EXIF, 1 to 8; 1 if there is none. remarks: see `modeling.images.remarks`.
    grey: whether it has no colour.
    thumbnail: 32 x 32 of luma, then 8 x 8 of each chroma (YCbCr), stretched over the whole upright image.
    """

    size: tuple[int, int]
    mode: str
    format: str
    orientation: int
    remarks: tuple[str, ...]
    grey: bool
    thumbnail: bytes


def check_image(data: bytes, max_pixels: int = MAX_PIXELS) -> ImageFacts:
    """Decode an encoded image completely and return its facts.

    Raises:
        ImageError: as `decode_image`.
    """
    with loaded_image(data, min_side=_MIN_SIDE, max_pixels=max_pixels) as loaded:
        width, height = loaded.size
        thumbnail, grey = _thumbnail(loaded.picture)
        return ImageFacts(
            size=(height, width) if loaded.orientation >= _FIRST_SIDEWAYS else (width, height),
            mode=loaded.mode,
            format=loaded.format,
            orientation=loaded.orientation,
            remarks=loaded.remarks,
            grey=grey,
            thumbnail=thumbnail,
        )


def _thumbnail(image: Image.Image) -> tuple[bytes, bool]:
    """The thumbnail of an upright image, and whether the image is grey.

    The same on every processor, as duplicates and splits follow from it. Pillow's conversions and its box filter add
    whole numbers; the filter's weights are quotients that every processor rounds alike. It takes which axis comes
    first, as that changes what is rounded, and Pillow 13 chooses otherwise than 12. Decoders compute in whole
    numbers, too: libjpeg-turbo's default transform, fractions and upsampling give the same bytes with SIMD as without,
    but where the coefficients of a damaged file overflow. Only lossy JPEG 2000 goes through floats, and AVIF in builds
    without libyuv: there a pixel may differ by a level between x86 and Arm.
    """
    if image.width < GREY_SIDE < image.height:  # a narrow strip shrinks before it grows, or it would fill memory
        small = to_mode(image, _RGB).resize((image.width, GREY_SIDE), Image.Resampling.BOX)
    else:  # each row is scaled alone, so bands give the same as the whole, in less memory
        small = Image.new("RGB", (GREY_SIDE, image.height))
        for top, band in bands_of(image):
            small.paste(to_mode(band, _RGB).resize((GREY_SIDE, band.height), Image.Resampling.BOX), (0, top))
    small = small.resize((GREY_SIDE, GREY_SIDE), Image.Resampling.BOX)
    luma, *chromas = small.convert("YCbCr").split()
    side = (COLOUR_SIDE, COLOUR_SIDE)
    colours = [np.asarray(chroma.resize(side, Image.Resampling.BOX)) for chroma in chromas]
    return luma.tobytes() + b"".join(colour.tobytes() for colour in colours), _is_grey(small)


def _is_grey(small: Image.Image) -> bool:
    """Whether all channels of an RGB image are equal, up to JPEG's error."""
    pixels_HWC = np.asarray(small, dtype=np.int16)
    return int(np.ptp(pixels_HWC, axis=2).max()) <= _GREY_TOLERANCE


def check_pixels(pixels_NHWC: Pixels) -> Iterator[ImageFacts]:
    """The facts of images that are stored as pixels; all are readable and upright."""
    height, width, channels = pixels_NHWC.shape[1:]
    mode = "L" if channels == 1 else "RGB"
    step = max(1, _CHUNK_PIXELS // (height * width))
    for start in range(0, len(pixels_NHWC), step):
        chunk_NHWC = pixels_NHWC[start : start + step]
        planes_CNHW = np.ascontiguousarray(np.moveaxis(chunk_NHWC, 3, 0))
        grey_N = np.ptp(planes_CNHW, axis=0).max(axis=(1, 2)) <= _GREY_TOLERANCE
        for grey, thumbnail in zip(grey_N.tolist(), _pixel_thumbnails(planes_CNHW), strict=True):
            yield ImageFacts((width, height), mode, "pixels", 1, (), grey=grey, thumbnail=thumbnail)


def _pixel_thumbnails(planes_CNHW: Pixels) -> Iterator[bytes]:
    """The thumbnail of each image, from exact areas, which Pillow's box filter only approximates."""
    sums_CNSS, area = _area_sums(planes_CNHW, GREY_SIDE)
    if len(planes_CNHW) == 1:
        yield from (luma_SS.tobytes() + _NO_COLOUR for luma_SS in _rounded(sums_CNSS[0], area))
        return
    luma_1NSS = _converted(_YCBCR[:1], sums_CNSS, area)
    chromas_CNSS = _converted(_YCBCR[1:], *_area_sums(sums_CNSS, COLOUR_SIDE, area), middle=128)
    for number, luma_SS in enumerate(luma_1NSS[0]):
        yield luma_SS.tobytes() + chromas_CNSS[:, number].tobytes()


def _converted(weights_KC: NDArray[np.int64], sums: NDArray[Any], area: int, middle: int = 0) -> NDArray[np.uint8]:
    """Convert sums of RGB (C, ...) over an area to means of the channels (K, ...) that the weights define."""
    whole = area << 16
    kind = np.min_scalar_type(-512 * whole)  # int32 for small areas, which is faster
    weighted = np.einsum("kc,c...->k...", weights_KC.astype(kind), sums.astype(kind))
    return _rounded(weighted + middle * whole, whole)


def _rounded(sums: NDArray[Any], area: int) -> NDArray[np.uint8]:
    """Sums divided by the area, halves rounded up."""
    means: NDArray[np.uint8] = ((sums + area // 2) // area).clip(0, 255).astype(np.uint8)
    return means


def _area_sums(planes: NDArray[Any], side: int, area: int = 1) -> tuple[NDArray[Any], int]:
    """Sum planes (..., H, W) to (..., side, side), or stretch them; returns the sums and the area of each.

    Pixels are divided into so many parts that every area ends at a part's end. All numbers are therefore integers, and
    the sums and their rounded means are the same on every processor.

    area: the area of each number in the planes.
    """
    area *= math.prod(size // math.gcd(size, side) for size in planes.shape[-2:])
    kind = np.min_scalar_type(256 * area)  # small integer types are added much faster
    for axis in (-2, -1):
        planes = _summed(planes, side, axis, kind)
    return planes, area


def _summed(planes: NDArray[Any], side: int, axis: int, kind: np.dtype[Any]) -> NDArray[Any]:
    """Sum one axis of planes to `side`: each pixel is weighted by the parts of it that an area covers."""
    size = planes.shape[axis]
    if size == side:
        return planes
    parts, area = side // math.gcd(size, side), size // math.gcd(size, side)  # parts per pixel, and per area
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
