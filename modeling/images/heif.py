"""HEIC photographs: HEIF files of HEVC pictures, as phones write them; pillow-heif, an extra, decodes them.

The boxes of a file are read here before libheif sees it. A picture is one coded image or a grid of them; what else HEIF
can express (overlays, references to references) may cost far more than its size says, and is refused. libheif itself
refuses a coded image that is larger than its box says.
"""

import functools
import importlib.util
import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version

from PIL import Image, ImageFile

from modeling.errors import ImageError
from modeling.images.formats import HEIF, READABLE_FORMATS, unsupported_format
from modeling.images.pixels import Size

EXTRA = "pip install 'pigeonhole[heic]', in a container PIGEONHOLE_HEIC=1 when its image is built"
"""How the decoder is installed."""

_CODED, _GRID = b"hvc1", b"grid"
_MOST_BOXES = 10_000  # with the items that have properties; a photograph has a few hundred
_NESTED = {b"meta": 4, b"iprp": 0, b"ipco": 0, b"iref": 4, b"iinf": 6}  # boxes of boxes: bytes before the first one
_WANTED = frozenset(_NESTED) | {b"pitm", b"infe", b"ispe", b"ipma", b"dimg", b"auxl", b"moov"}


@functools.cache
def heif_version() -> str:
    """The version of the decoder; empty where it is not installed."""
    try:
        return version("pillow-heif") if importlib.util.find_spec("pillow_heif") else ""
    except PackageNotFoundError:
        return ""


def open_image(data: bytes) -> ImageFile.ImageFile:
    """An encoded image as Pillow, or for HEIC pillow-heif, opens it; its pixels are not decoded yet."""
    if unsupported_format(data) == HEIF and heif_version():
        return _open_heif(data)
    return Image.open(io.BytesIO(data), formats=READABLE_FORMATS)


def _open_heif(data: bytes) -> ImageFile.ImageFile:
    """A HEIC file's main image.

    Raises:
        ImageError: as `heif_pixels`.
    """
    import pillow_heif  # an extra

    heif_pixels(data)
    options = pillow_heif.options
    options.DECODE_THREADS = 1  # each image has a thread of ours
    options.THUMBNAILS = options.DEPTH_IMAGES = options.AUX_IMAGES = False
    image: ImageFile.ImageFile = pillow_heif.HeifImageFile(io.BytesIO(data))  # type: ignore[no-untyped-call]
    return image


# What it costs


def heif_pixels(data: bytes) -> int:
    """The pixels that are decoded for the main image of a HEIC file: its own, or those of its tiles, and its alpha.

    Raises:
        ImageError: `unsupported`, `truncated` or `corrupt`.
    """
    items = _Items()
    for _ in _read(data, 0, len(data), items, 0):
        items.count()
    kind = items.kinds.get(items.primary)
    if kind is None:
        raise _without_image(items, data)
    if kind == _CODED:
        tiles: tuple[int, ...] = (items.primary,)
    elif kind == _GRID:
        tiles = items.tiles.get(items.primary, ())
    else:
        tiles = ()
    others = {items.kinds.get(tile, b"nothing") for tile in (*tiles, *(() if tiles else (items.primary,)))} - {_CODED}
    if others:
        shown = ", ".join(sorted(each.decode("ascii", "replace") for each in others))
        raise ImageError("unsupported", f"a HEIF image of kind {shown!a} is not supported; convert to JPEG or PNG")
    return sum(map(items.pixels_of, (*tiles, *items.auxiliary)))


def _without_image(items: "_Items", data: bytes) -> ImageError:
    if items.is_film:
        return ImageError("unsupported", "a HEIF film without a still image is not supported; convert to JPEG or PNG")
    if items.primary < 0:
        return ImageError("truncated", f"the HEIC file ends before its images are named ({len(data)} bytes)")
    return ImageError("corrupt", "the HEIC file has no main image")


@dataclass(slots=True)
class _Items:
    """The items of a file by number: their kind, the numbers of their properties, and what refers to what.

    sizes: of the properties that are one, by number. auxiliary: alpha, depth and the like.
    """

    primary: int = -1
    kinds: dict[int, bytes] = field(default_factory=dict)
    sizes: dict[int, Size] = field(default_factory=dict)
    properties: dict[int, list[int]] = field(default_factory=dict)
    tiles: dict[int, tuple[int, ...]] = field(default_factory=dict)  # of the main image alone
    auxiliary: list[int] = field(default_factory=list)
    num_properties: int = 0
    num_boxes: int = 0
    wide_references: bool = False
    is_film: bool = False

    def count(self) -> None:
        """Count a box, or an item with properties. Raises ImageError for more than a photograph has."""
        self.num_boxes += 1
        if self.num_boxes > _MOST_BOXES:
            raise ImageError("unsupported", f"a HEIC file of more than {_MOST_BOXES:,} boxes is not read")

    def pixels_of(self, item: int) -> int:
        """The pixels of an item by its largest size."""
        sizes = [self.sizes[number] for number in self.properties.get(item, ()) if number in self.sizes]
        return max((width * height for width, height in sizes), default=0)


def _read(data: bytes, start: int, end: int, items: _Items, depth: int, parent: bytes = b"") -> Iterator[None]:
    """Note what the boxes between two places say; yields once for each."""
    at = start
    while at + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if size == 1:
            size, head = int.from_bytes(data[at + 8 : at + 16]), 16
        elif size == 0:
            size = end - at
        if size < head or (at + size > end and depth):
            raise ImageError("corrupt", f"the HEIC box {kind!r} says that it has {size} bytes")
        if at + size > end:
            raise ImageError("truncated", f"the file ends too early, after {len(data)} bytes")
        yield
        if parent == b"ipco":
            items.num_properties += 1
        if kind in _WANTED:
            yield from _note(data, at + head, at + size, kind, items, depth)
        at += size


def _note(data: bytes, at: int, end: int, kind: bytes, items: _Items, depth: int) -> Iterator[None]:
    """Note what one box says; the numbers in it begin at `at`."""
    is_wide = data[at : at + 1] not in (b"", b"\0")  # the version: later ones have numbers of 32 bits
    if kind in _NESTED:
        skipped = _NESTED[kind] + (2 if kind == b"iinf" and is_wide else 0)
        items.wide_references = is_wide if kind == b"iref" else items.wide_references
        yield from _read(data, at + skipped, end, items, depth + 1, kind)
    elif kind == b"moov":
        items.is_film = True
    elif kind == b"pitm":
        items.primary = _number(data, at + 4, end, wide=is_wide)
    elif kind == b"infe" and data[at : at + 1] >= b"\2":
        number_bytes = 4 if data[at] >= 3 else 2
        item = _number(data, at + 4, end, wide=number_bytes == 4)
        items.kinds[item] = data[at + 6 + number_bytes : at + 10 + number_bytes]
    elif kind == b"ispe":
        items.sizes[items.num_properties] = (
            _number(data, at + 4, end, wide=True),
            _number(data, at + 8, end, wide=True),
        )
    elif kind in (b"dimg", b"auxl"):
        _note_reference(data, at, end, kind, items)
    elif kind == b"ipma":
        _note_properties(data, at, end, items)


def _note_reference(data: bytes, at: int, end: int, kind: bytes, items: _Items) -> None:
    num_bytes, letter = (4, "I") if items.wide_references else (2, "H")
    source, count = _number(data, at, end, wide=num_bytes == 4), _number(data, at + num_bytes, end, wide=False)
    first = at + num_bytes + 2
    if first + count * num_bytes > end:
        raise ImageError("corrupt", "a HEIC file refers to more images than it names")
    if kind == b"auxl":
        items.auxiliary.append(source)
    elif source == items.primary:  # a file names its main image before its references
        items.tiles[source] = struct.unpack_from(f">{count}{letter}", data, first)


def _note_properties(data: bytes, at: int, end: int, items: _Items) -> None:
    """Which properties an item has: numbers of 7 or 15 bits, from 1 on."""
    wide_items, wide_numbers = data[at : at + 1] != b"\0", bool(_number(data, at + 2, end, wide=False) & 1)
    count, at = _number(data, at + 4, end, wide=True), at + 8
    for _ in range(count):
        items.count()
        item = _number(data, at, end, wide=wide_items)
        at += 4 if wide_items else 2
        if at >= end:
            raise ImageError("corrupt", "a HEIC file's properties end too early")
        num, at = data[at], at + 1
        step = 2 if wide_numbers else 1
        found = data[at : at + num * step]
        numbers = struct.unpack(f">{num}{'H' if wide_numbers else 'B'}", found) if len(found) == num * step else ()
        items.properties.setdefault(item, []).extend(each & (0x7FFF if wide_numbers else 0x7F) for each in numbers)
        at += num * step


def _number(data: bytes, at: int, end: int, *, wide: bool) -> int:
    """A number of 32 or 16 bits.

    Raises:
        ImageError: `corrupt`: it lies beyond the box.
    """
    num_bytes = 4 if wide else 2
    if at + num_bytes > end:
        raise ImageError("corrupt", "a box of the HEIC file ends too early")
    return int.from_bytes(data[at : at + num_bytes])
