"""Decodes JPEGs with libjpeg-turbo directly, without a Pillow image in between.

Measured with `python -m benchmarks.decode`, simplejpeg was chosen over torchcodec (as fast at full size, but it cannot
decode at reduced size) and over Pillow (whose images take four bytes a pixel and are copied twice). Pillow decodes
what simplejpeg cannot, and reports what is wrong with it.
"""

# Shapes: H height, W width, C channels.
import functools
import io
import re
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image

from modeling.errors import ImageError
from modeling.images.pixels import Pixels, Size, orientation_of

_SIGNATURE = b"\xff\xd8\xff"
_METADATA = (b"Exif\0\0", b"http://ns.adobe.com/xap/")  # segments that may contain an orientation
_COLOUR_SPACES = ("YCbCr", "Gray")  # Pillow's header is needed for CMYK, YCCK and RGB
_CHANNELS = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}  # by Pillow's mode
_EXIF, _MULTI_PICTURE = b"Exif\0\0", b"MPF\0"
_APP1, _APP2, _APP12, _SCAN = 0xE1, 0xE2, 0xEC, 0xDA  # markers: EXIF; more pictures; a segment to ignore; pixels
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # markers of the header with size and components
_FILL = 0xFF  # may precede a marker
_ALONE = frozenset([0x00, 0x01, *range(0xD0, 0xDA)])  # markers without a length
_NOTED = _FRAMES | _ALONE | {_APP1, _APP2, _SCAN, _FILL}
_TRANSFORMED = frozenset([0xC0, 0xC1, 0xC2, 0xC9, 0xCA])  # frames whose pixels a decoder can scale; not lossless ones
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
_END = b"\xff\xd9"
_SCAN_OR_END = re.compile(b"\xff[\xda\xd9]")  # pixels cannot hold the two bytes of a marker
_MAX_SCANS = 1000  # that are looked at
_ALL_COEFFICIENTS = (1 << 64) - 1
# What libjpeg-turbo says of a file that ends early, and of scan data that end early; and of harmless bytes after them.
_NO_END, _LACKS_DATA, _SKIPS_DATA = "Premature end of JPEG file", "premature end of data segment", "instead of RST"
_MORE_BYTES = "extraneous bytes before marker"
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


class Outline(NamedTuple):
    """Where the segments before the pixels of a JPEG lie, as far as they matter here.

    They must be read as libjpeg-turbo reads them: see `_decoded`.

    has_metadata: a segment may contain an orientation. may_have_pictures: the file may contain several. frame, scan:
    offsets of the first frame header and of the first scan; 0 if the segments are not readable.
    """

    has_metadata: bool
    may_have_pictures: bool
    frame: int
    scan: int


def outline_of(data: bytes) -> Outline:
    """The outline of a JPEG; if its segments are not readable, any bytes count as metadata."""
    metadata, pictures, frame = False, False, 0
    at, last = 2, len(data) - 4
    while at <= last and data[at] == 0xFF:  # as `_segments`, but a microsecond faster
        marker = data[at + 1]
        if marker in _NOTED:
            if marker == _SCAN:
                return Outline(metadata, pictures, frame, at)
            if marker == _APP1:
                metadata = metadata or data.startswith(_METADATA, at + 4)
            elif marker == _APP2:
                pictures = pictures or data.startswith(_MULTI_PICTURE, at + 4)
            elif marker == _FILL:
                at += 1
                continue
            elif marker in _ALONE:
                break
            else:
                frame = frame or at
        at += 2 + (data[at + 2] << 8 | data[at + 3])
    return Outline(any(word in data for word in _METADATA), _MULTI_PICTURE in data, 0, 0)


def decode_jpeg(data: bytes, size: Size, outline: Outline, *, min_side: int, grey: bool) -> tuple[Pixels, Size] | None:
    """Upright pixels HWC of a JPEG of that size, with one channel or three, and its upright size.

    Decoded at 1/8, 1/4 or 1/2 of the size if both sides keep `min_side` px. If the factor does not divide a side, the
    last pixel extends beyond the image: `pixels.scale_to` uses the full size to correct for that. An image with an
    orientation is decoded only at factors that divide both sides, because its last pixels may become the first. Grey
    is the file's own luma. Returns None if Pillow has to read the file, and for damage that a lenient decoder would
    ignore.

    Raises:
        ImageError: `truncated`.
    """
    orientation = exif_orientation(data, outline)
    fractions = (
        factor
        for factor in _FACTORS
        if min(size) >= factor * min_side and (orientation == 1 or not any(side % factor for side in size))
    )
    pixels_HWC = _decoded(data, size, outline, next(fractions, 1), "GRAY" if grey else "RGB")
    if pixels_HWC is None:
        return None
    return apply_orientation(pixels_HWC, orientation), size if orientation < 5 else (size[1], size[0])


def load_jpeg(image: Image.Image, data: bytes, *, min_side: int) -> Image.Image | None:
    """The pixels of a JPEG whose header Pillow has read, as Pillow would load them at a fraction; None if it has to.

    CMYK is inverted if the file has Adobe's marker, whose writers store it so.

    Raises:
        ImageError: `truncated`.
    """
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    if (width, height) != image.size or image.mode not in _CHANNELS:
        return None
    factor = next((factor for factor in _FACTORS if min(image.size) >= factor * min_side), 1)
    pixels_HWC = _decoded(data, image.size, outline_of(data), factor, _CHANNELS[image.mode])
    if pixels_HWC is None:
        return None
    if image.mode == "CMYK" and is_inverted(image):
        np.subtract(255, pixels_HWC, out=pixels_HWC)
    size = pixels_HWC.shape[1], pixels_HWC.shape[0]
    return Image.frombuffer(image.mode, size, pixels_HWC, "raw", image.mode, 0, 1)


def is_inverted(image: Image.Image) -> bool:
    """Whether a CMYK JPEG has Adobe's marker, so that 255 is no ink."""
    return "adobe_transform" in image.info


def _decoded(data: bytes, size: Size, outline: Outline, factor: int, channels: str) -> Pixels | None:
    """Pixels HWC at a fraction; None if the file is damaged or not of a common kind.

    Raises:
        ImageError: `truncated`: scan data are missing. A file that lacks only its end marker is whole.
    """
    if not is_common(data, outline):
        return None  # simplejpeg does not see that a lossless JPEG has no fractions, and writes beyond its memory
    if lacks_scans(data, outline):
        raise ImageError("truncated", f"the JPEG ends before all of its scans, after {len(data)} bytes")
    fraction = _Fraction(channels, -(-size[0] // factor), -(-size[1] // factor), factor)
    try:
        return fraction.decode(data)
    except ValueError as err:
        problem = str(err)
    try:
        if _NO_END in problem:
            return fraction.decode(data + _END)
        if _LACKS_DATA in problem or _SKIPS_DATA in problem or (_MORE_BYTES not in problem and fraction.lacks(data)):
            raise ImageError("truncated", f"pixels are missing before the end of the JPEG ({len(data)} bytes)")
    except ValueError:
        pass  # Pillow says why
    return None


class _Fraction(NamedTuple):
    """A decoder to a fraction of the size, of at least `width` x `height` px."""

    channels: str
    width: int
    height: int
    factor: int

    def decode(self, data: bytes, *, strict: bool = True) -> Pixels:
        """Pixels HWC. Raises ValueError for damage, if `strict` also for damage that can be decoded."""
        pixels_HWC: Pixels = simplejpeg.decode_jpeg(
            data, self.channels, min_width=self.width, min_height=self.height, min_factor=self.factor, strict=strict
        )
        return pixels_HWC

    def lacks(self, data: bytes) -> bool:
        """Whether more data before the end of the file change the pixels. Raises ValueError as `decode`."""
        longer = bytes(with_padding(bytearray(data)))
        return not np.array_equal(self.decode(data, strict=False), self.decode(longer, strict=False))


def is_common(data: bytes, outline: Outline) -> bool:
    """Whether a JPEG has transformed blocks of 8 bits, which can be decoded at fractions, and readable segments."""
    return data[outline.frame + 1] in _TRANSFORMED and data[outline.frame + 4] == 8


def lacks_scans(data: bytes, outline: Outline) -> bool:
    """Whether a JPEG of several scans has too few: of a component, or, if it is progressive, of its last bits."""
    frame, scan = outline.frame, outline.scan
    if not frame or not scan or len(data) < scan + 8:
        return False
    progressive, num_components = data[frame + 1] in _PROGRESSIVE, data[frame + 9]
    if not progressive and data[scan + 4] >= num_components:
        return False  # one scan, which holds everything
    components = data[frame + 10 : frame + 10 + 3 * num_components : 3]
    return not _is_complete(progressive, components, tuple(_scan_headers(data, scan)))


@functools.lru_cache(maxsize=256)  # most files follow one of a few scripts
def _is_complete(progressive: bool, components: bytes, headers: tuple[bytes, ...]) -> bool:
    """Whether scans with these headers hold all coefficients of all components to the last bit."""
    left = dict.fromkeys(components, _ALL_COEFFICIENTS)
    for header in headers:
        if not header or len(header) != 4 + 2 * header[0]:
            continue  # cut by the end of the file
        first, last, bits = header[-3:] if progressive else (0, 63, 0)
        if bits & 15 == 0 and first <= last < 64:
            seen = (1 << (last + 1)) - (1 << first)
            left.update((component, left.get(component, 0) & ~seen) for component in header[1:-3:2])
    return not any(left.values())


def _scan_headers(data: bytes, at: int) -> Iterator[bytes]:
    """The headers of the scans from the first one, which is at `at`, up to the end marker."""
    for found in islice(_SCAN_OR_END.finditer(data, at), _MAX_SCANS):
        place = found.end()
        if data[place - 1] != _SCAN:
            return
        yield data[place + 2 : place + 6 + 2 * data[place + 2]] if place + 2 < len(data) else b""


def apply_orientation(pixels_HWC: Pixels, orientation: int) -> Pixels:
    """A view of the pixels with EXIF orientation 1 to 8 applied."""
    if orientation >= 5:
        pixels_HWC = pixels_HWC.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels_HWC = pixels_HWC[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels_HWC = pixels_HWC[::-1]
    return pixels_HWC


def exif_orientation(data: bytes, outline: Outline) -> int:
    """The orientation that Pillow reads from EXIF or XMP; 1 for files without metadata, which are most."""
    if not outline.has_metadata:
        return 1
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            return orientation_of(image)
    except Exception:  # broken metadata can raise anything; the pixels are still usable
        return 1


def has_further_pictures(data: bytes) -> bool:
    """Whether the file contains several pictures, as Pillow counts them; a gain map is none."""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            return int(getattr(image, "n_frames", 1)) > 1
    except Exception:  # broken metadata can raise anything; the pixels are still usable
        return False


def unsupported_jpeg(data: bytes) -> ImageError | None:
    """The error for a JPEG that Pillow cannot open because of its bits or channels; None for any other reason."""
    frame = outline_of(data).frame
    if not frame or len(data) < frame + 10:
        return None
    bits, channels = data[frame + 4], data[frame + 9]
    if (bits == 8 and channels in (1, 3, 4)) or not 2 <= bits <= 16 or not 1 <= channels <= 4:
        return None
    text = f"JPEG with {channels} channel{'s' if channels > 1 else ''} of {bits} bits is not supported"
    return ImageError("unsupported", f"{text}; convert to 8 bits, grey or RGB")


def _segments(data: bytes | bytearray) -> Iterator[int]:
    """Offsets of the segments up to the pixels; stops early at anything that is not a segment."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        if data[at + 1] == _FILL:
            at += 1
            continue
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
