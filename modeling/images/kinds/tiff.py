"""What a TIFF says of its samples and pages, and what of it Pillow does not read, or would read wrongly."""

import io
import re
from collections.abc import Iterator
from typing import Any

from PIL import TiffImagePlugin

from modeling.errors import ImageError
from modeling.images.kinds.samples import Samples

_NEW_SUBFILE_TYPE, _BITS, _COMPRESSION, _PHOTOMETRIC, _DESCRIPTION, _NUM_SAMPLES = 254, 258, 259, 262, 270, 277
_MAX_SAMPLE, _PLANAR, _COLOUR_MAP, _SUB_IFDS, _INK_SET, _EXTRA, _FORMAT, _MAX_ANY_SAMPLE = (
    281, 284, 320, 330, 332, 338, 339, 341
)  # fmt: skip
_SUBSAMPLING, _DNG_VERSION = 530, 50706
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType
_SEPARATE = 2  # PlanarConfiguration
_KINDS = {1: "u", 2: "i", 3: "f", 4: "u"}
_KIND_NAMES = {1: "unsigned", 2: "signed", 3: "float", 4: "untyped", 5: "complex", 6: "complex"}
_COLOURS = {
    0: "grey, 0 is white", 1: "grey", 2: "RGB", 3: "palette", 4: "mask", 5: "CMYK or other inks", 6: "YCbCr",
    8: "CIE Lab", 9: "ICC Lab", 10: "ITU Lab", 32803: "colour filter array", 32844: "LogL", 32845: "LogLuv",
    34892: "linear raw",
}  # fmt: skip
_WEBP = 50001  # a compression that PyPI's Pillow knows by name only: its libtiff has no WebP
# libtiff turns what it unpacks to this machine's byte order; Pillow heeds that for unsigned values of 16 bits only.
_TURNED_BY_LIBTIFF = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF"}
_BIG, _BIG_ENDIAN_BIG = (b"+\x00", b"\x00+"), b"MM\x00+"  # the version of BigTIFF
_MAX_CHANNELS = 4096  # of a sound file
_MAX_PAGES = 64  # that are looked at for one that is no thumbnail and no mask
_SIGNIFICANT_BITS = re.compile(r'SignificantBits="(\d+)"')  # OME-TIFF


def samples_of(image: TiffImagePlugin.TiffImageFile) -> Samples:
    """What the tags say of the samples."""
    tags = image.tag_v2
    bits = bits_of(image)
    kind = _KINDS.get(_first(tags, _FORMAT, 1), "u")
    white = _stated_white(tags) if bits % 8 == 0 else 2.0**bits - 1
    return Samples(kind, bits, white, inverted=_first(tags, _PHOTOMETRIC, 1) == 0)


def bits_of(image: TiffImagePlugin.TiffImageFile) -> int:
    """Bits of a sample of the first channel."""
    return _first(image.tag_v2, _BITS, 1)


def is_signed(image: TiffImagePlugin.TiffImageFile) -> bool:
    """Whether the samples are integers with a sign."""
    return _KINDS.get(_first(image.tag_v2, _FORMAT, 1)) == "i"


def _stated_white(tags: Any) -> float:
    """The value of white that a TIFF states; 0 if it states none.

    A maximum that is 1 or all bits set, such as 4,095; others tell the largest value that was found in the image.
    """
    significant = _SIGNIFICANT_BITS.search(str(tags.get(_DESCRIPTION, "")))
    for value in (_largest(tags, _MAX_ANY_SAMPLE), _largest(tags, _MAX_SAMPLE)):
        if value == 1 or (value >= 255 and value == int(value) and (int(value) + 1).bit_count() == 1):
            return value
    return 2.0 ** int(significant[1]) - 1 if significant and 8 <= int(significant[1]) <= 32 else 0.0


def check_supported(image: TiffImagePlugin.TiffImageFile) -> None:
    """Check that Pillow reads this kind of TIFF right.

    Raises:
        ImageError: `unsupported`.
    """
    tags = image.tag_v2
    if _DNG_VERSION in tags or (tags.get(_NEW_SUBFILE_TYPE) == 1 and _SUB_IFDS in tags):
        raise ImageError("unsupported", "camera raw (TIFF) files are not supported; convert to JPEG or PNG")
    colour, num_samples = _first(tags, _PHOTOMETRIC, 0), _first(tags, _NUM_SAMPLES, 1)
    if colour == 5 and _first(tags, _INK_SET, 1) != 1:
        raise _unsupported(tags, "its inks are not CMYK")
    compression = _first(tags, _COMPRESSION, 1)
    if compression == _WEBP:
        raise _unsupported(tags, "its compression is WebP")
    if num_samples == 1 or compression != 1:
        return
    if colour == 6 and num_samples == 3 and tags.get(_SUBSAMPLING, (2, 2)) != (1, 1):
        raise _unsupported(tags, "its chroma is subsampled without compression")
    if _first(tags, _PLANAR, 1) == _SEPARATE and (_first(tags, _BITS, 8) != 8 or colour not in (2, 5)):
        raise _unsupported(tags, "its channels are stored one after another")


def heed_byte_order(image: TiffImagePlugin.TiffImageFile) -> None:
    """Read packed values of big-endian files as libtiff gives them; before the image is loaded."""
    for place, tile in enumerate(image.tile):
        if tile.codec_name == "libtiff" and isinstance(tile.args, tuple):
            kind, *others = tile.args
            image.tile[place] = tile._replace(args=(_TURNED_BY_LIBTIFF.get(kind, kind), *others))


def fix_palette(image: TiffImagePlugin.TiffImageFile) -> None:
    """Read a palette of 8 bits, which some writers store where 16 are required, and which would be black."""
    palette = image.tag_v2.get(_COLOUR_MAP) if image.mode == "P" else None
    if palette and 0 < max(palette) < 256:
        third = len(palette) // 3
        colours = zip(palette[:third], palette[third : 2 * third], palette[2 * third :], strict=False)
        image.putpalette(bytes(value for colour in colours for value in colour))


def unsupported_tiff(data: bytes) -> ImageError | None:
    """The error for a TIFF that Pillow cannot open, if its tags are those of a sound file; None if they are not."""
    if data.startswith(_BIG_ENDIAN_BIG):
        return ImageError("unsupported", "big-endian BigTIFF files are not supported; convert to little-endian ones")
    try:
        file = io.BytesIO(data)
        header = file.read(8)
        tags = TiffImagePlugin.ImageFileDirectory_v2(header + (file.read(8) if header[2:4] in _BIG else b""))
        file.seek(tags.next)
        tags.load(file)
        bits, formats = _all(tags, _BITS), _all(tags, _FORMAT)
        sound = all(1 <= value <= 64 for value in bits) and all(value in _KIND_NAMES for value in formats)
        sound = (
            sound and 1 <= _first(tags, _NUM_SAMPLES, 1) <= _MAX_CHANNELS and _first(tags, _PHOTOMETRIC, -1) in _COLOURS
        )
        return _unsupported(tags, "") if sound and _first(tags, 256, 0) and _first(tags, 257, 0) else None
    except Exception:  # broken tags can raise anything
        return None


def _unsupported(tags: Any, reason: str) -> ImageError:
    bits, kind = _first(tags, _BITS, 1), _first(tags, _FORMAT, 1)
    compression = _first(tags, _COMPRESSION, 1)
    known = TiffImagePlugin.COMPRESSION_INFO.get(compression)
    if known is None:
        reason = f"its compression {compression} is unknown"
    count = _first(tags, _NUM_SAMPLES, 1)
    channels = f"{count} channel{'s' if count != 1 else ''} of {bits} bit{'s' if bits != 1 else ''}"
    colour = _COLOURS.get(_first(tags, _PHOTOMETRIC, 0), "unknown colours")
    text = f"TIFF with {channels} ({_KIND_NAMES.get(kind, 'unknown type')}; {colour})"
    return ImageError("unsupported", f"{text} is not supported{reason and f': {reason}'}; convert to 8 or 16 bits")


def has_further_pages(data: bytes) -> bool:
    """Whether a TIFF has a second page that is neither a thumbnail nor a mask; looks at a bounded number of pages."""
    return any(not kind & (_REDUCED | _MASK) for kind in _kinds_of_further_pages(data))


def _kinds_of_further_pages(data: bytes) -> Iterator[int]:
    """NewSubfileType of each page after the first."""
    order: Any = "little" if data[:2] == b"II" else "big"
    big = data[2:4] in _BIG
    at_size, num_size, entry_size = (8, 8, 20) if big else (4, 2, 12)

    def number(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], order)

    at = number(8 if big else 4, at_size)
    for page in range(_MAX_PAGES):
        num_entries = number(at, num_size)
        end = at + num_size + entry_size * num_entries
        if not 0 < at < end < len(data):
            return
        if page:
            first, place = number(at + num_size, 2), at + num_size + (12 if big else 8)
            yield number(place, 4) if first == _NEW_SUBFILE_TYPE else 0
        at = number(end, at_size)


def _all(tags: Any, tag: int) -> tuple[Any, ...]:
    value = tags.get(tag, (1,))
    return value if isinstance(value, tuple) else (value,)


def _first(tags: Any, tag: int, default: int) -> int:
    value = tags.get(tag, default)
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) else default


def _largest(tags: Any, tag: int) -> float:
    """The largest value of a tag with a number for each channel; 0 if it is absent or no number."""
    try:
        return max((float(value) for value in _all(tags, tag)), default=0.0) if tag in tags else 0.0
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return 0.0
