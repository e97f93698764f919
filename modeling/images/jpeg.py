"""Decodes JPEGs with libjpeg-turbo directly, without a Pillow image in between.

Measured with `python -m benchmarks.decode`, simplejpeg was chosen over torchcodec (as fast at full size, but it cannot
decode at reduced size) and over Pillow (whose images take four bytes a pixel and are copied twice). Pillow decodes
what simplejpeg cannot, and reports what is wrong with it.
"""

# Shapes: H height, W width, C channels.
import io
from collections.abc import Iterator

import simplejpeg
from PIL import Image

from modeling.images.pixels import Pixels, Size, orientation_of

_SIGNATURE = b"\xff\xd8\xff"
_METADATA = (b"Exif\0\0", b"http://ns.adobe.com/xap/")  # segments that may contain an orientation
_COLOUR_SPACES = ("YCbCr", "Gray")  # Pillow decodes CMYK, YCCK and RGB
_EXIF = b"Exif\0\0"
_APP1, _APP12, _SCAN = 0xE1, 0xEC, 0xDA  # markers: EXIF; a segment that decoders ignore; pixels
_END = b"\xff\xd9"
_MORE_DATA = bytes(256)  # zeros decode as coefficients with the shortest codes
_FACTORS = (8, 4, 2)  # libjpeg-turbo has SIMD code for these factors only


def jpeg_size(data: bytes) -> Size | None:
    """Width and height from the header of a JPEG; None if Pillow has to read the file."""
    if not data.startswith(_SIGNATURE):
        return None
    try:
        height, width, colour_space, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    return (width, height) if colour_space in _COLOUR_SPACES else None


def decode_jpeg(data: bytes, size: Size, *, min_side: int, grey: bool) -> tuple[Pixels, Size] | None:
    """Upright pixels HWC of a JPEG of that size, with one channel or three, and its upright size.

    Decoded at 1/8, 1/4 or 1/2 of the size if both sides keep `min_side` px. If the factor does not divide a side, the
    last pixel extends beyond the image: `pixels.scale_to` uses the full size to correct for that. An image with an
    orientation is decoded only at factors that divide both sides, because its last pixels may become the first. Grey
    is the file's own luma. Returns None if Pillow has to read the file, and for damage that a lenient decoder would
    ignore (such as missing data).
    """
    orientation = exif_orientation(data)
    fractions = (
        factor
        for factor in _FACTORS
        if min(size) >= factor * min_side and (orientation == 1 or not any(side % factor for side in size))
    )
    factor = next(fractions, 1)
    smallest = [-(-side // factor) for side in size]
    try:
        pixels_HWC: Pixels = simplejpeg.decode_jpeg(
            data, "GRAY" if grey else "RGB", min_width=smallest[0], min_height=smallest[1], min_factor=factor
        )
    except ValueError:
        return None
    return apply_orientation(pixels_HWC, orientation), size if orientation < 5 else (size[1], size[0])


def apply_orientation(pixels_HWC: Pixels, orientation: int) -> Pixels:
    """A view of the pixels with EXIF orientation 1 to 8 applied."""
    if orientation >= 5:
        pixels_HWC = pixels_HWC.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels_HWC = pixels_HWC[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels_HWC = pixels_HWC[::-1]
    return pixels_HWC


def exif_orientation(data: bytes) -> int:
    """The orientation that Pillow reads from EXIF or XMP; 1 for files without metadata, which are most."""
    if not _has_metadata(data):
        return 1
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            return orientation_of(image)
    except Exception:  # broken metadata can raise anything; the pixels are still usable
        return 1


def _has_metadata(data: bytes) -> bool:
    """Whether a segment before the pixels may contain an orientation; any bytes count if segments are not readable."""
    for at in _segments(data):
        if data[at + 1] == _SCAN:
            return False
        if data[at + 1] == _APP1 and data.startswith(_METADATA, at + 4):
            return True
    return any(word in data for word in _METADATA)


def _segments(data: bytes | bytearray) -> Iterator[int]:
    """Offsets of the segments up to the pixels; stops early at anything that is not a segment."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        yield at
        if data[at + 1] == _SCAN:
            return
        at += 2 + int.from_bytes(data[at + 2 : at + 4])


def without_exif(data: bytes) -> bytearray:
    """A copy of a JPEG with its EXIF segments renamed, for decoders that would apply the orientation themselves.

    torchcodec applies the EXIF orientation on CPUs and on GPUs; Pigeonhole does so itself, because XMP may override it.
    """
    copy = bytearray(data)
    for at in _segments(data):
        if data[at + 1] == _APP1 and data.startswith(_EXIF, at + 4):
            copy[at + 1] = _APP12
    return copy


def with_padding(data: bytearray) -> bytearray:
    """A copy of a JPEG with more data before its end: it changes the pixels only of an image that lacks data."""
    scan = max(_segments(data), default=0)
    end = data.find(_END, scan)
    return data[:end] + _MORE_DATA + data[end:] if end >= 0 else bytearray(data)
