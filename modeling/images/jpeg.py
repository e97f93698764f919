"""JPEG, the format of nearly every photograph, by libjpeg-turbo without the detour over a Pillow image.

simplejpeg was chosen by measurement over torchcodec (as fast at full size, but it cannot decode at a fraction) and
over Pillow, whose images have four bytes a pixel and are copied twice (`python -m benchmarks.decode`). What it
cannot or will not decode is left to Pillow, which then says what is wrong.
"""

# Shapes: H height, W width, C channels.
import io
from collections.abc import Iterator

import simplejpeg
from PIL import Image

from modeling.images.pixels import Pixels, Size, orientation_of

_SIGNATURE = b"\xff\xd8\xff"
_METADATA = (b"Exif\0\0", b"http://ns.adobe.com/xap/")  # where an orientation may stand
_COLOUR_SPACES = ("YCbCr", "Gray")  # CMYK, YCCK and RGB are Pillow's affair
_EXIF = b"Exif\0\0"
_APP1, _APP12, _SCAN = 0xE1, 0xEC, 0xDA  # markers: of EXIF, of what no decoder heeds, of the pixels
_END = b"\xff\xd9"
_MORE_DATA = bytes(256)  # zeros stand for coefficients with the shortest codes
_FACTORS = (8, 4, 2)  # libjpeg-turbo has vector code for these fractions only


def jpeg_size(data: bytes) -> Size | None:
    """Width and height that the header of a JPEG states; None where Pillow has to read the file."""
    if not data.startswith(_SIGNATURE):
        return None
    try:
        height, width, colour_space, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    return (width, height) if colour_space in _COLOUR_SPACES else None


def decode_jpeg(data: bytes, size: Size, *, needed: int, grey: bool) -> tuple[Pixels, Size] | None:
    """Pixels HWC of a JPEG of that size, upright, one channel or three, and the size that it has upright.

    None where Pillow has to read it. Decoded at an eighth, a quarter or a half while both sides keep `needed` px. Where
    a side is no multiple of that, the last pixels reach beyond it: `pixels.scale_to` takes the size into account,
    and one that is turned is decoded at another fraction, lest they come to lie in front. Grey is the file's own luma.
    Damage that a lenient decoder would pass over (missing data, say) gives None, too.
    """
    orientation = exif_orientation(data)
    fractions = (
        factor
        for factor in _FACTORS
        if min(size) >= factor * needed and (orientation == 1 or not any(side % factor for side in size))
    )
    factor = next(fractions, 1)
    smallest = [-(-side // factor) for side in size]
    try:
        pixels_HWC: Pixels = simplejpeg.decode_jpeg(
            data, "GRAY" if grey else "RGB", min_width=smallest[0], min_height=smallest[1], min_factor=factor
        )
    except ValueError:
        return None
    return turned(pixels_HWC, orientation), size if orientation < 5 else (size[1], size[0])


def turned(pixels_HWC: Pixels, orientation: int) -> Pixels:
    """A view of the pixels as EXIF orientation 1 to 8 wants them seen."""
    if orientation >= 5:
        pixels_HWC = pixels_HWC.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels_HWC = pixels_HWC[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels_HWC = pixels_HWC[::-1]
    return pixels_HWC


def exif_orientation(data: bytes) -> int:
    """As Pillow reads it, from EXIF or XMP; most files have neither."""
    if not _has_metadata(data):
        return 1
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            return orientation_of(image)
    except Exception:  # broken metadata raise anything, and the pixels are fine all the same
        return 1


def _has_metadata(data: bytes) -> bool:
    """Whether a segment before the pixels may hold an orientation; in files that are not plain, anything may."""
    for at in _segments(data):
        if data[at + 1] == _SCAN:
            return False
        if data[at + 1] == _APP1 and data.startswith(_METADATA, at + 4):
            return True
    return any(word in data for word in _METADATA)


def _segments(data: bytes | bytearray) -> Iterator[int]:
    """Where the segments before the pixels begin, and their data; it ends early where something else stands."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        yield at
        if data[at + 1] == _SCAN:
            return
        at += 2 + int.from_bytes(data[at + 2 : at + 4])


def without_exif(data: bytes) -> bytearray:
    """A copy of a JPEG whose EXIF segments are marked as something else, for decoders that would heed an orientation.

    On processors torchcodec turns images by it, and on GPUs, too; here that is done once, as XMP may have the word.
    """
    copy = bytearray(data)
    for at in _segments(data):
        if data[at + 1] == _APP1 and data.startswith(_EXIF, at + 4):
            copy[at + 1] = _APP12
    return copy


def with_more_data(data: bytearray) -> bytearray:
    """A copy of a JPEG with more data before its end: a whole image stays as it is, one that lacks data does not."""
    scan = max(_segments(data), default=0)
    end = data.find(_END, scan)
    return data[:end] + _MORE_DATA + data[end:] if end >= 0 else bytearray(data)
