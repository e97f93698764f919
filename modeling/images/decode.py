"""Decodes encoded images to a model's pixels; training, evaluation and jobs all use this module.

Image files are untrusted. Only the plugins in READABLE_FORMATS and that for HEIC are tried, the size is checked before
memory is allocated, and every exception of Pillow becomes an ImageError: broken files make it raise SyntaxError,
IndexError, struct.error, zlib.error, MemoryError and more. Thread-safe.
"""

import contextlib
import functools
import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, JpegImagePlugin, TiffImagePlugin, UnidentifiedImageError

from modeling.errors import ImageError
from modeling.images.cost import before_opening, check_header, for_opened, for_plain_png
from modeling.images.formats import (
    HEIF,
    MAX_PIXELS,
    READABLE_FORMATS,
    is_truncated,
    readable_format,
    unsupported_format,
)
from modeling.images.heif import EXTRA, heif_version, open_image
from modeling.images.jpeg import (
    decode_jpeg,
    has_further_pictures,
    is_inverted,
    jpeg_size,
    load_jpeg,
    outline_of,
    unsupported_jpeg,
)
from modeling.images.kinds.plain import in_8_bits, is_one_of_several
from modeling.images.kinds.png_metadata import without_metadata
from modeling.images.kinds.tiff import check_supported, heed_byte_order, unsupported_tiff
from modeling.images.pixels import Pixels, Size, orientation_of, pixels_of, scale_to, turned
from modeling.images.png import SIGNATURE as PNG_SIGNATURE
from modeling.images.png import decode_plain_png, plain_png_size
from modeling.images.preprocessing import Preprocessing
from modeling.images.remarks import FURTHER_PAGES, UNCERTAIN_DEPTH

_OVERSAMPLING = 2

Image.init()  # registers the plugins once, before threads can race to do it


def decode_image(
    data: bytes, preprocessing: Preprocessing, *, max_pixels: int = MAX_PIXELS, remarks: list[str] | None = None
) -> Pixels:
    """Pixels of one encoded image: uint8 (height, width, channels), C-contiguous.

    The EXIF orientation is applied, transparent pixels show the preprocessing's background, samples of more than 8 bits
    are scaled to 8 (`modeling.images.kinds.samples`), and an animation gives its first frame. A large JPEG is decoded
    at 1/2, 1/4 or 1/8 of its size if that leaves twice the size that the model needs: antialiasing then averages at
    least four pixels, and the difference is not visible.

    remarks: receives what is to be remarked about the image (`modeling.images.remarks`).

    Raises:
        ImageError: `empty`, `truncated`, `not_an_image`, `too_large`, `too_slow`, `unsupported` or `corrupt`.
    """
    grey = preprocessing.mode == "L"
    pixels_HWC, full_size = None, None
    if (size := jpeg_size(data)) is not None:
        if _is_within(size, max_pixels):
            check_header(data, max_pixels)
            outline = outline_of(data)
            decoded = decode_jpeg(
                data, size, outline, min_side=_min_side(preprocessing), grey=grey, max_pixels=max_pixels
            )
            pixels_HWC, full_size = decoded or (None, None)
            if decoded and remarks is not None and outline.may_have_pictures and has_further_pictures(data):
                remarks.append(FURTHER_PAGES)
    elif (size := plain_png_size(data, grey=grey)) is not None and _is_within(size, max_pixels):
        with for_plain_png(data, size, max_pixels):
            pixels_HWC = decode_plain_png(data, grey=grey)
    if pixels_HWC is not None:
        return scale_to(pixels_HWC, preprocessing, full_size)
    # Pillow also gets images over the size limit: if their header is broken too, Pillow reports that instead.
    try:
        with loaded_image(data, min_side=_min_side(preprocessing), max_pixels=max_pixels) as loaded:
            if remarks is not None:
                remarks += loaded.remarks
            return scale_to(pixels_of(loaded.picture, preprocessing), preprocessing)
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


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """The first frame of an image.

    picture: upright, with 8 bits a channel, perhaps at a fraction of its size. size: the true width and height, before
    the orientation is applied. mode, format: Pillow's. orientation: EXIF, 1 to 8. remarks: see `decode_image`.
    """

    picture: Image.Image
    size: Size
    mode: str
    format: str
    orientation: int
    remarks: tuple[str, ...]


@contextlib.contextmanager
def loaded_image(data: bytes, *, min_side: int, max_pixels: int) -> Iterator[LoadedImage]:
    """An encoded image that Pillow opens.

    A JPEG may be decoded at 1/2, 1/4 or 1/8 of its size if both sides keep at least `min_side` px; the whole file is
    read in any case. Exceptions that Pillow raises while the caller uses the image also become ImageErrors.

    Raises:
        ImageError: `empty`, `truncated`, `not_an_image`, `too_large`, `too_slow`, `unsupported` or `corrupt`.
        MemoryError: memory is short.
    """
    if not data:
        raise ImageError("empty", "the file is empty (0 bytes)")
    name = unsupported_format(data)
    if name is not None and not (name == HEIF and heif_version()):
        raise _unsupported(name)
    try:
        with contextlib.ExitStack() as held:
            held.enter_context(before_opening(data, max_pixels))
            readable, png = without_metadata(data) if data.startswith(PNG_SIGNATURE) else (data, None)
            image = held.enter_context(open_image(readable))
            _check_size(image.size, max_pixels)
            if isinstance(image, TiffImagePlugin.TiffImageFile):
                check_supported(image)
                heed_byte_order(image)
            size, mode = image.size, image.mode
            is_jpeg = isinstance(image, JpegImagePlugin.JpegImageFile)
            held.enter_context(for_opened(image, data, max_pixels, min_side))
            picture = _load_jpeg(image, data, min_side) if is_jpeg else image
            picture.load()
            _check_size(picture.size, max_pixels)  # an icon may contain a larger picture than its header states
            orientation = orientation_of(image)
            plain, known = in_8_bits(picture, readable, png)
            several = is_one_of_several(image, data)
            yield LoadedImage(
                turned(plain, orientation),
                size if is_jpeg else picture.size,
                mode,
                image.format or "?",
                orientation,
                ((FURTHER_PAGES,) if several else ()) + (() if known else (UNCERTAIN_DEPTH,)),
            )
    except ImageError:
        raise
    except Exception as err:
        if isinstance(err, MemoryError) and _memory_is_short(max_pixels):
            raise  # this process's trouble, not the image's
        raise _image_error(err, data) from err


def _load_jpeg(image: Image.Image, data: bytes, min_side: int) -> Image.Image:
    """The pixels of a JPEG that Pillow has opened, perhaps at a fraction of its size."""
    picture = load_jpeg(image, data, min_side=min_side)
    if picture is not None:
        return picture
    size = image.size
    image.draft(None, (min_side, min_side))
    try:
        return _loaded(image)
    except Exception:
        if image.size == size or is_truncated(data):
            raise
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as whole:  # a lossless JPEG has no fractions
        return _loaded(whole)


def _loaded(image: Image.Image) -> Image.Image:
    """The JPEG, loaded by Pillow, which inverts all CMYK."""
    if image.mode == "CMYK" and not is_inverted(image):
        image.tile = [tile._replace(args=("CMYK", "")) for tile in image.tile]  # type: ignore[attr-defined]
    image.load()
    return image


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


def _unsupported(name: str) -> ImageError:
    if name == HEIF:
        return ImageError("unsupported", f"HEIC files are read with an extra: {EXTRA}; or convert them to JPEG")
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
        if found := unsupported_tiff(data) if name == "TIFF" else unsupported_jpeg(data) if name == "JPEG" else None:
            return found
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
