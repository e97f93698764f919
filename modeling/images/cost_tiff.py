"""What a TIFF costs beyond its pixels: tiles larger than the image, long tables, JPEG strips.

Only directories are read. What cannot be read costs nothing: Pillow then finds no image.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from modeling.images.cost_jpeg import SCAN_MARKER

TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _SAMPLES = 256, 257, 258, 259, 277
_STRIP_OFFSETS, _STRIP_BYTES, _COLOURS = 273, 279, 320
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_BYTES = 322, 323, 324, 325
_TABLES = (_BITS, _STRIP_OFFSETS, _STRIP_BYTES, _COLOURS, _TILE_OFFSETS, _TILE_BYTES)  # Pillow unpacks these
_JPEG = (6, 7)  # compressions
_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}
_ENTRY_PASSES, _VALUE_PASSES, _VALUE_BYTES = 1000, 100, 72  # of Pillow, for an entry and for a number of a table
_MOST_ENTRIES = 5_000_000  # enough for any limit


@dataclass(slots=True)
class _Directory:
    """counts: values of each tag. first: the first value of those that hold numbers."""

    num_entries: int = 0
    counts: dict[int, int] = field(default_factory=dict)
    first: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Layout:
    """How numbers are stored: the byte order, and whether in 32 or in 64 bits (BigTIFF)."""

    order: str
    big: bool

    @property
    def entry(self) -> struct.Struct:
        return struct.Struct(self.order + ("HHQ8s" if self.big else "HHI4s"))

    @property
    def count(self) -> struct.Struct:
        return struct.Struct(self.order + ("Q" if self.big else "H"))

    @property
    def offset(self) -> struct.Struct:
        return struct.Struct(self.order + ("Q" if self.big else "I"))


def tiff_cost(data: bytes) -> tuple[int, int]:
    """Passes and bytes, beyond those of the pixels."""
    layout, at = _layout(data)
    directory = _read(data, at, layout)
    counts = [directory.counts.get(tag, 0) for tag in _TABLES]
    num_values = sum(count for count in counts if count <= len(data))  # Pillow leaves out what the file cannot hold
    passes = _ENTRY_PASSES * directory.num_entries + _VALUE_PASSES * num_values
    num_bytes = _VALUE_BYTES * num_values
    tile_passes, tile_bytes = _tile_cost(directory)
    return passes + tile_passes + _jpeg_passes(data, directory), num_bytes + tile_bytes


def _tile_cost(directory: _Directory) -> tuple[int, int]:
    """Every tile is decoded whole, however little of it the image shows."""
    first = directory.first
    if _TILE_WIDTH not in first or _TILE_HEIGHT not in first:
        return 0, 0
    width, height = max(1, first[_TILE_WIDTH]), max(1, first[_TILE_HEIGHT])
    samples = max(first.get(_SAMPLES, 1), directory.counts.get(_BITS, 1))
    num_tiles = -(-first.get(_WIDTH, 0) // width) * -(-first.get(_HEIGHT, 0) // height)
    tile_bytes = width * height * samples * max(1, first.get(_BITS, 1) // 8)
    return 4 * num_tiles * width * height, 2 * tile_bytes


def _jpeg_passes(data: bytes, directory: _Directory) -> int:
    """Strips and tiles that are JPEGs may be progressive: as many passes as there are scans for each."""
    if directory.first.get(_COMPRESSION) not in _JPEG:
        return 0
    num_parts = max(1, directory.counts.get(_STRIP_OFFSETS, 0), directory.counts.get(_TILE_OFFSETS, 0))
    num_pixels = directory.first.get(_WIDTH, 0) * directory.first.get(_HEIGHT, 0)
    return num_pixels * (data.count(SCAN_MARKER) // num_parts)


def _layout(data: bytes) -> tuple[_Layout, int]:
    """The layout, and where the first directory lies."""
    order = "<" if data.startswith(b"II") else ">"
    big = 43 in data[2:4]
    layout = _Layout(order, big)
    try:
        return layout, int(layout.offset.unpack_from(data, 8 if big else 4)[0])
    except struct.error:
        return layout, 0


def _read(data: bytes, at: int, layout: _Layout) -> _Directory:
    """The directory at an offset, as far as it can be read."""
    directory = _Directory()
    for tag, kind, count, value in _entries(data, at, layout):
        directory.num_entries += 1
        if tag in directory.counts:
            continue
        directory.counts[tag] = count
        if kind in _TYPES:
            number = struct.Struct(layout.order + _TYPES[kind])
            start = layout.offset.unpack(value)[0]
            place = value if count * number.size <= len(value) else data[start : start + 8]
            if len(place) >= number.size:
                directory.first[tag] = number.unpack_from(place)[0]
    return directory


def _entries(data: bytes, at: int, layout: _Layout) -> Iterator[tuple[int, int, int, bytes]]:
    """Tag, type, number of values and the field that holds them or their offset."""
    try:
        (count,) = layout.count.unpack_from(data, at)
        for place in range(min(count, _MOST_ENTRIES)):
            yield layout.entry.unpack_from(data, at + layout.count.size + place * layout.entry.size)
    except (struct.error, OverflowError):
        return
