"""Decodes encoded images to a model's pixels; training, evaluation and jobs all use this module.

Image files are untrusted. Only the plugins in READABLE_FORMATS are tried, the size is checked before memory is
allocated, and every exception of Pillow becomes an ImageError: broken files make it raise SyntaxError, IndexError,
struct.error, zlib.error, MemoryError and more. Thread-safe.
"""

import contextlib
import functools
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from modeling.errors import ImageError
from modeling.images.formats import MAX_PIXELS, READABLE_FORMATS, is_truncated, readable_format, unsupported_format
from modeling.images.jpeg import decode_jpeg, jpeg_size
from modeling.images.pixels import Pixels, Size, pixels_of, scale_to, upright
from modeling.images.png import decode_plain_png, plain_png_size
from modeling.images.preprocessing import Preprocessing

_DNG_VERSION, _NEW_SUBFILE_TYPE, _SUB_IFDS = 50706, 254, 330  # TIFF tags
_OVERSAMPLING = 2

Image.init()  # registers the plugins once, before threads can race to do it


def decode_image(data: bytes, preprocessing: Preprocessing, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Pixels of one encoded image: uint8 (height, width, channels), C-contiguous.

    The EXIF orientation is applied, transparent pixels show the preprocessing's background, 16-bit and float grey is
    scaled to 8 bits, and an animation gives its first frame. A large JPEG is decoded at 1/2, 1/4 or 1/8 of its size if
    that leaves twice the size that the model needs: antialiasing then averages at least four pixels, and the
    difference is not visible.

    Raises:
        ImageError: `empty`, `truncated`, `not_an_image`, `too_large`, `unsupported` or `corrupt`.
    """
    grey = preprocessing.mode == "L"
    pixels_HWC, full_size = None, None
    if (size := jpeg_size(data)) is not None:
        if _is_within(size, max_pixels):
            decoded = decode_jpeg(data, size, min_side=_min_side(preprocessing), grey=grey)
            pixels_HWC, full_size = decoded or (None, None)
    elif (size := plain_png_size(data, grey=grey)) is not None and _is_within(size, max_pixels):
        pixels_HWC = decode_plain_png(data, grey=grey)
    if pixels_HWC is not None:
        return scale_to(pixels_HWC, preprocessing, full_size)
    # Pillow also gets images over the size limit: if their header is broken too, Pillow reports that instead.
    try:
        with loaded_image(data, min_side=_min_side(preprocessing), max_pixels=max_pixels) as (image, _):
            return scale_to(pixels_of(upright(image), preprocessing), preprocessing)
    except ImageError as err:
        if err.code == "too_large" and size is not None:
            _check_size(size, max_pixels)  # names both sides; Pillow's own limit error does not
        raise


def _min_side(preprocessing: Preprocessing) -> int:
    """The least px of the shorter side after decoding at reduced size."""
    return _OVERSAMPLING * max(preprocessing.height, preprocessing.width, preprocessing.resize or 0)


@functools.cache
def warm_up() -> None:
    """Import, once, what the first image of each format would otherwise wait for."""
    for kind in ("PNG", "JPEG"):
        buffer = io.BytesIO()
        Image.new("L", (2, 2)).save(buffer, kind)
        decode_image(buffer.getvalue(), Preprocessing("L", 1, 1))


@contextlib.contextmanager
def loaded_image(data: bytes, *, min_side: int, max_pixels: int) -> Iterator[tuple[Image.Image, Size]]:
    """The first frame of an encoded image, decoded by Pillow, orientation not applied; and its true width and height.

    A JPEG may be decoded at 1/2, 1/4 or 1/8 of its size if both sides keep at least `min_side` px; the whole file is
    read in any case. Exceptions that Pillow raises while the caller uses the image also become ImageErrors.

    Raises:
        ImageError: `empty`, `truncated`, `not_an_image`, `too_large`, `unsupported` or `corrupt`.
        MemoryError: memory is short.
    """
    if not data:
        raise ImageError("empty", "the file is empty (0 bytes)")
    name = unsupported_format(data)
    if name is not None:
        raise _unsupported(name)
    try:
        with Image.open(io.BytesIO(data), formats=READABLE_FORMATS) as image:
            _check_size(image.size, max_pixels)
            if isinstance(image, TiffImagePlugin.TiffImageFile) and _is_camera_raw(image.tag_v2):
                raise _unsupported("camera raw (TIFF)")
            size = image.size
            image.draft(None, (min_side, min_side))  # only the JPEG plugin supports it
            drafted = image.size
            image.load()
            _check_size(image.size, max_pixels)  # an icon may contain a larger picture than its header states
            yield image, size if image.size == drafted else image.size
    except ImageError:
        raise
    except Exception as err:
        if isinstance(err, MemoryError) and _memory_is_short(max_pixels):
            raise  # this process's trouble, not the image's
        raise _image_error(err, data) from err


def _memory_is_short(max_pixels: int) -> bool:
    """Whether the pixels of the largest image that is read would not fit in memory now."""
    try:
        np.empty(4 * max_pixels, dtype=np.uint8)  # never touched, so it costs nothing
    except MemoryError:
        return True
    return False


def _is_within(size: Size, max_pixels: int) -> bool:
    width, height = size
    return width * height <= max_pixels


def _check_size(size: Size, max_pixels: int) -> None:
    width, height = size
    if not _is_within(size, max_pixels):
        raise ImageError("too_large", f"{width} x {height} pixels are more than the limit of {max_pixels}")
    if width < 1 or height < 1:
        raise ImageError("corrupt", f"the image says that it has {width} x {height} pixels")


def _is_camera_raw(tags: Any) -> bool:
    """Whether a TIFF is a camera raw file, whose first page is only a thumbnail."""
    return _DNG_VERSION in tags or (tags.get(_NEW_SUBFILE_TYPE) == 1 and _SUB_IFDS in tags)


def _unsupported(name: str) -> ImageError:
    return ImageError("unsupported", f"{name} files are not supported; convert to JPEG or PNG")


def _image_error(err: Exception, data: bytes) -> ImageError:
    """The ImageError for an exception that Pillow raised on `data`."""
    if isinstance(err, Image.DecompressionBombError | Image.DecompressionBombWarning | MemoryError):
        return ImageError("too_large", f"decoding would take too much memory: {_one_line(err)}")
    name = readable_format(data)
    if isinstance(err, UnidentifiedImageError):
        if name is None:
            other = _other_plugin(data)
            if other is not None:
                return _unsupported(other)
            return ImageError("not_an_image", f"no known image format ({len(data)} bytes)")
        if is_truncated(data):
            return ImageError("truncated", f"the {name} ends within its header ({len(data)} bytes)")
        return ImageError("corrupt", f"the {name} header cannot be read ({len(data)} bytes)")
    if isinstance(err, EOFError) or "truncated" in str(err).lower() or is_truncated(data):
        return ImageError("truncated", f"the file ends too early, after {len(data)} bytes: {_one_line(err)}")
    return ImageError("corrupt", f"cannot be decoded: {_one_line(err)}")


def _other_plugin(data: bytes) -> str | None:
    """Name of a Pillow plugin outside the allow-list that accepts the first bytes; nothing is parsed."""
    for name, (_, accept) in Image.OPEN.items():
        if name not in READABLE_FORMATS and accept is not None and accept(data[:16]) is True:
            return name
    return None


def _one_line(err: Exception) -> str:
    """The exception as one short line that is the same in every run."""
    if isinstance(err, UnidentifiedImageError):
        return "unidentified"  # its text contains a memory address
    return " ".join(str(err).split())[:200] or type(err).__name__
