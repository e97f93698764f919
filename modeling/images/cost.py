"""What decoding an image costs, told from its header and length before anything is decoded.

The estimate depends on the file alone, so an image is `too_slow` or `too_large` on every machine and in every run.
Work is counted in passes: one pass handles one sample of one pixel once, which takes 1 to 8 ns. Bytes are the peak of
decoding and converting, with the file.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from PIL import Image, ImageFile

from modeling.errors import ImageError
from modeling.images.budget import BUDGET, SMALL_BYTES
from modeling.images.cost_headers import icon_size, opening_passes
from modeling.images.cost_jpeg import is_in_several_scans, jpeg_passes
from modeling.images.cost_jpeg2000 import jpeg2000_cost
from modeling.images.cost_tiff import TIFF_SIGNATURES, tiff_cost
from modeling.images.formats import BYTES_PER_PIXEL, HEIF, MAX_PIXELS, PASSES_PER_PIXEL
from modeling.images.heif import heif_pixels
from modeling.images.pixels import Size

PYTHON_PASSES = 50  # for a sample that Pillow decodes in Python: 0.2 to 0.4 microseconds
_SHORT, _FEW_PIXELS = 1 << 16, 1 << 16  # bytes and pixels of a file that no header can make costly
_WIDEST_DELTA = 256  # rows that one code of a run-length encoded BMP skips; Pillow allocates them
_OUTPUT_BYTES = 6  # a pixel: the model's channels, and a copy while they are scaled
_FACTORS = (8, 4, 2)  # of JPEGs at a fraction
_PASSES = {"AVIF": 12, "WEBP": 8}  # a pixel, by format; others 4
# Bytes a pixel that a decoder holds besides Pillow's image: WebP has two canvases, its own pixels and their copy; AVIF
# has planes of up to 16 bits, and pixels of 8 bits with their copy.
_DECODER_BYTES = {"WEBP": 14, "AVIF": 14, "GIF": 4}
_HEVC_PASSES, _HEVC_BYTE_PASSES, _HEVC_BYTES = 12, 16, 14  # a decoded pixel, a byte of the file, a decoded pixel
_NOTHING: AbstractContextManager[None] = nullcontext()  # shared: it has no state


@dataclass(frozen=True, slots=True)
class Cost:
    """An upper estimate of what decoding one image takes."""

    passes: int
    num_bytes: int


def before_opening(data: bytes, max_pixels: int) -> AbstractContextManager[None]:
    """Hold what opening an image takes: an icon is decoded by it, and others need little.

    Raises:
        ImageError: `too_slow` or `too_large`, if the header costs too much, or if an icon's picture does.
    """
    check_header(data, max_pixels)
    size = icon_size(data)
    if size is None:
        return _NOTHING
    if size[0] * size[1] > max_pixels:
        raise ImageError("too_large", f"its {size[0]} x {size[1]} pixels are more than the limit of {max_pixels}")
    return _affordable(icon_cost(size, data), max_pixels)


def check_header(data: bytes, max_pixels: int) -> None:
    """Raises ImageError: `too_slow` or `too_large`, if Pillow would take too much to read the header."""
    if len(data) > _SHORT:
        tables = tiff_cost(data) if data.startswith(TIFF_SIGNATURES) else (0, 0)
        check_cost(Cost(opening_passes(data) + tables[0], tables[1]), max_pixels)


def for_opened(
    image: ImageFile.ImageFile, data: bytes, max_pixels: int, min_side: int | None = None
) -> AbstractContextManager[None]:
    """Hold what an image takes that Pillow has opened and not loaded.

    min_side: a JPEG is decoded at a fraction of its size that keeps so many px of each side.

    Raises:
        ImageError: `too_slow` or `too_large`.
    """
    held = image.format == "ICO"  # since before it was opened
    return _NOTHING if held else _affordable(opened_cost(image, data, min_side), max_pixels)


def for_jpeg(data: bytes, size: Size, factor: int, max_pixels: int) -> AbstractContextManager[None]:
    """Hold what a JPEG in grey or YCbCr takes that libjpeg-turbo decodes at 1/factor of its size.

    Raises:
        ImageError: `too_slow` or `too_large`.
    """
    if size[0] * size[1] < _FEW_PIXELS and len(data) < _SHORT:
        return _NOTHING
    return _affordable(jpeg_cost(data, size, factor), max_pixels)


def is_quick_jpeg(data: bytes, size: Size, max_pixels: int) -> bool:
    """Whether neither the header nor the scans of a JPEG are `too_slow`."""
    passes = max(jpeg_passes(data, size), opening_passes(data) if len(data) > _SHORT else 0)
    return passes <= PASSES_PER_PIXEL * max(max_pixels, MAX_PIXELS)


def for_plain_png(data: bytes, size: Size, max_pixels: int) -> AbstractContextManager[None]:
    """Hold what a PNG takes that libpng decodes; its bytes are copied once.

    Raises:
        ImageError: `too_slow` or `too_large`.
    """
    num_pixels = size[0] * size[1]
    if num_pixels < _FEW_PIXELS and len(data) < _SHORT:
        return _NOTHING
    return _affordable(Cost(4 * num_pixels, 2 * len(data) + 2 * _OUTPUT_BYTES * num_pixels), max_pixels)


def _affordable(cost: Cost, max_pixels: int) -> AbstractContextManager[None]:
    check_cost(cost, max_pixels)
    return BUDGET.hold(cost.num_bytes)


def check_cost(cost: Cost, max_pixels: int) -> None:
    """Raises ImageError: `too_slow` or `too_large`."""
    pixels = max(max_pixels, MAX_PIXELS)
    if cost.passes > pixels * PASSES_PER_PIXEL:
        limit = pixels * PASSES_PER_PIXEL
        raise ImageError("too_slow", f"decoding takes {cost.passes:,} passes by its header; the limit is {limit:,}")
    if cost.num_bytes > pixels * BYTES_PER_PIXEL:
        limit = pixels * BYTES_PER_PIXEL
        raise ImageError("too_large", f"decoding takes {cost.num_bytes:,} bytes by its header; the limit is {limit:,}")


def jpeg_cost(data: bytes, size: Size, factor: int = 1) -> Cost:
    """The cost of a JPEG in grey or YCbCr that libjpeg-turbo decodes at 1/factor of its size."""
    num_pixels = size[0] * size[1]
    coefficients = 6 * num_pixels  # 2 bytes each, up to 3 a pixel
    if coefficients > SMALL_BYTES and not is_in_several_scans(data):
        coefficients = 0
    return Cost(jpeg_passes(data, size), coefficients + _OUTPUT_BYTES * num_pixels // factor**2)


def opened_cost(image: ImageFile.ImageFile, data: bytes, min_side: int | None = None) -> Cost:
    """The cost of an image that Pillow has opened and not loaded."""
    name, num_pixels = image.format or "", image.width * image.height
    passes, decoder_bytes = _PASSES.get(name, 4) * num_pixels, _DECODER_BYTES.get(name, 0) * num_pixels
    if name in ("JPEG", "MPO"):
        passes = jpeg_passes(data, image.size)
        decoder_bytes = 8 * num_pixels if is_in_several_scans(data) else 0
        if min_side:
            num_pixels //= next((factor for factor in _FACTORS if min(image.size) >= factor * min_side), 1) ** 2
    elif name == "JPEG2000":
        passes, decoder_bytes = jpeg2000_cost(data)
    elif name == HEIF:
        decoded = heif_pixels(data)
        passes = _HEVC_PASSES * decoded + _HEVC_BYTE_PASSES * len(data)
        decoder_bytes = _HEVC_BYTES * decoded
    elif name == "TIFF":
        more_passes, decoder_bytes = tiff_cost(data)
        passes += more_passes
    more_passes, python_bytes = _python_cost(image, data)
    stored, converted = _pillow_bytes(image)
    peak = stored * num_pixels + max(decoder_bytes + python_bytes, converted * num_pixels)
    return Cost(passes + more_passes, 2 * len(data) + peak)


def icon_cost(size: Size, data: bytes) -> Cost:
    """The cost of an icon that holds a picture of this size: opening it decodes it, and adds its mask."""
    num_pixels = size[0] * size[1]
    return Cost(8 * num_pixels, 2 * len(data) + 16 * num_pixels)


def _pillow_bytes(image: Image.Image) -> tuple[int, int]:
    """Bytes a pixel of Pillow's image; and of its upright copy and what it is converted to."""
    stored = 1 if image.mode in ("1", "L", "P") else 2 if image.mode.startswith("I;16") else 4
    wide = stored + 4 if image.mode.startswith(("I", "F")) else 0
    return stored, stored + wide + _OUTPUT_BYTES


def _python_cost(image: ImageFile.ImageFile, data: bytes) -> tuple[int, int]:
    """Passes and bytes of the decoders that Pillow has in Python."""
    num_samples = image.width * image.height * len(image.getbands())
    decoder = image.tile[0][0] if image.tile else ""
    if decoder == "bmp_rle":
        return 8 * num_samples + PYTHON_PASSES * len(data), 2 * (num_samples + _WIDEST_DELTA * image.width)
    if decoder in ("ppm", "ppm_plain", "qoi"):
        return PYTHON_PASSES * min(num_samples, len(data)), 2 * num_samples * (4 if image.mode == "I" else 1)
    return 0, 0
