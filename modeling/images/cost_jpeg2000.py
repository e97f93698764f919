"""What a JPEG 2000 costs: OpenJPEG holds each tile whole, in 32 bits a sample, with a record of every code block."""

import struct
from collections.abc import Iterator

_START = b"\xff\x4f\xff\x51"  # of the code stream: SOC, SIZ
_SIZE = struct.Struct(">HHIIIIIIIIH")  # length, profile, right and bottom, left and top, tile size and offset, channels
_COD, _COC, _SOT, _SOD = 0xFF52, 0xFF53, 0xFF90, 0xFF93
_SAMPLE_PASSES = 4
_TILE_PASSES = 20_000
_SAMPLE_BYTES = 5  # in OpenJPEG; Pillow reads 1, 2 or 4 more from it
_BLOCK_BYTES = 512  # of the records of a code block or precinct
_FINER = 4 / 3  # samples of all resolutions as a share of the pixels
_MOST_TILES = 65535  # OpenJPEG refuses more
_MOST_HEADERS = 1 << 17  # that are read


def jpeg2000_cost(data: bytes) -> tuple[int, int]:
    """Passes and bytes, beyond those of Pillow's image."""
    at = data.find(_START)
    if at < 0 or len(data) < at + 4 + _SIZE.size:
        return 0, 0
    _, _, right, bottom, left, top, tile_width, tile_height, *_, channels = _SIZE.unpack_from(data, at + 4)
    width, height = max(0, right - left), max(0, bottom - top)
    tile_width, tile_height = max(1, tile_width), max(1, tile_height)
    num_tiles = -(-width // tile_width) * -(-height // tile_height)
    if num_tiles > _MOST_TILES:
        return 0, 0
    samples = width * height * channels
    tile_samples = min(tile_width, width) * min(tile_height, height) * channels
    num_blocks = int(_FINER * tile_samples / _smallest_block(data, at + 2))
    return (
        _SAMPLE_PASSES * samples + _TILE_PASSES * num_tiles,
        (_SAMPLE_BYTES + _read_bytes(data, at + 42, channels)) * tile_samples + _BLOCK_BYTES * num_blocks,
    )


def _read_bytes(data: bytes, at: int, channels: int) -> int:
    """Bytes of a sample as Pillow reads it: by the deepest channel."""
    depth = 1 + max((precision & 127 for precision in data[at : at + 3 * channels : 3]), default=0)
    return 1 if depth <= 8 else 2 if depth <= 16 else 4


def _smallest_block(data: bytes, at: int) -> int:
    """Samples of the smallest code block or precinct that a header allows."""
    smallest = 1 << 12
    for marker, content, end in _headers(data, at):
        if marker == _COD:
            styles = data[content : content + 1], data[content + 5 : end]
        else:
            skipped = 1 if end - content < 9 else 2  # a channel's number has two bytes where there are many
            styles = data[content + skipped : content + skipped + 1], data[content + skipped + 1 : end]
        smallest = min(smallest, *_areas(*styles))
    return max(1, smallest)


def _areas(style: bytes, sizes: bytes) -> list[int]:
    """Samples of a code block, and of the precincts of each resolution, which its bands share in halves."""
    if len(style) < 1 or len(sizes) < 5:
        return [1 << 12]
    areas = [1 << (sizes[1] & 15) + 2 + (sizes[2] & 15) + 2]
    if style[0] & 1:
        areas += [1 << max(0, (size & 15) + (size >> 4) - 2) for size in sizes[5:]]
    return areas


def _headers(data: bytes, at: int) -> Iterator[tuple[int, int, int]]:
    """COD and COC of the main header and of all tile parts: marker, and where its content begins and ends."""
    tile_part = 0
    for _ in range(_MOST_HEADERS):
        if at + 4 > len(data):
            return
        marker, length = struct.unpack_from(">HH", data, at)
        if marker in (_COD, _COC):
            yield marker, at + 4, at + 2 + length
        if marker == _SOD:
            if tile_part == 0:
                return
            at, tile_part = tile_part, 0
            continue
        if marker == _SOT and at + 10 <= len(data):
            size = int.from_bytes(data[at + 6 : at + 10])
            tile_part = at + size if size > 12 else 0
        at += 2 + max(2, length)
