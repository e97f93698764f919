"""What headers cost Pillow, which reads them in Python, and the size of the picture that an icon holds.

Checked before Pillow opens a file. Honest headers cost nothing worth counting, so most files are only told apart here.
"""

import re
import struct

from modeling.images.cost_jpeg import header_passes
from modeling.images.pixels import Size

_HEADER_BYTE = 50  # passes for a byte of the header of a PPM, which Pillow reads alone
_CHUNK = 1000  # passes for a chunk of a PNG, or a directory entry of a TIFF
_SUB_BLOCK = 1000  # passes for a sub-block of a GIF
_MOST = 5_000_000  # chunks or sub-blocks: enough for any limit
_EXTENSION = 0x21  # of a GIF
_SMALL = 1 << 20  # bytes of a file that cannot hold so many chunks that it matters
_PLAIN_BLOCK, _COPIED = 1 << 20, 16  # Pillow copies up to so many bytes for a comment, and so many in a pass
_TOKENS = re.compile(rb"(?:[ \t\n\v\f\r]++|#[^\r\n]*+)*+[^ \t\n\v\f\r#]{1,11}+")
_PLAIN = (b"P1", b"P2", b"P3")
_PNG = b"\x89PNG\r\n\x1a\n"
_ICON = b"\0\0\1\0"
_ENTRY = struct.Struct("<BBBBHHII")  # width, height, colours, reserved, planes, bits, bytes, offset


def opening_passes(data: bytes) -> int:
    """Passes that Pillow takes until it knows an image's size."""
    if data.startswith(b"\xff\xd8\xff"):
        return header_passes(data)
    if data.startswith(_PNG):
        return _CHUNK * _num_chunks(data) if len(data) > _SMALL else 0
    if data.startswith(b"GIF8"):
        return _SUB_BLOCK * _num_sub_blocks(data)
    if data.startswith(b"P") and data[1:2] in b"0123456fFyY":
        return _ppm_passes(data)
    return 0


def _num_chunks(data: bytes) -> int:
    at, count = len(_PNG), 0
    while at + 8 <= len(data) and count < _MOST:
        at += 12 + int.from_bytes(data[at : at + 4])
        count += 1
    return count


def _num_sub_blocks(data: bytes) -> int:
    """Sub-blocks of a GIF up to the end of its first frame: whether there is a second is looked up."""
    flags = data[10] if len(data) > 10 else 0
    at, count = 13 + _palette_bytes(flags), 0
    while data[at : at + 1] not in (b",", b";", b"") and count < _MOST:
        if data[at] == _EXTENSION:
            at, more = _after_sub_blocks(data, at + 2)
            count += more
        at, count = at + 1, count + 1
    if data[at : at + 1] == b"," and at + 9 < len(data):
        count += _after_sub_blocks(data, at + 11 + _palette_bytes(data[at + 9]))[1]
    return count


def _palette_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 128 else 0


def _after_sub_blocks(data: bytes, at: int) -> tuple[int, int]:
    """Where the empty sub-block lies that ends some of a GIF, and how many there are."""
    count = 0
    while at < len(data) and data[at] and count < _MOST:
        at, count = at + 1 + data[at], count + 1
    return at, count


def _ppm_passes(data: bytes) -> int:
    """Comments cost: each byte of those in the header, and those among numbers written as text a copy of the block."""
    at = 2
    for _ in range(2 if data[1:2] in b"14" else 3):
        token = _TOKENS.match(data, at)
        at = token.end() if token else len(data)
    passes = _HEADER_BYTE * at
    if data.startswith(_PLAIN):
        passes += data.count(b"#", at) * (min(len(data), _PLAIN_BLOCK) // _COPIED)
    return passes


def icon_size(data: bytes) -> Size | None:
    """Width and height of the picture that Pillow shows of an icon, by its own header; None for any other file.

    Pillow decodes it to open the icon, and the icon's header may state a smaller one.
    """
    if not data.startswith(_ICON):
        return None
    count = min(int.from_bytes(data[4:6], "little"), (len(data) - 6) // _ENTRY.size)
    entries = [_ENTRY.unpack_from(data, 6 + _ENTRY.size * place) for place in range(count)]
    pictures = [_inner_size(data, entry[7]) for entry in entries]
    return max(filter(None, pictures), key=lambda size: size[0] * size[1], default=None)


def _inner_size(data: bytes, at: int) -> Size | None:
    """The size in the header of a PNG, or of a bitmap, which is half as high as it says: its mask follows."""
    try:
        if data.startswith(_PNG, at):
            return struct.unpack_from(">II", data, at + 16)
        if int.from_bytes(data[at : at + 4], "little") == 12:
            width, height = struct.unpack_from("<HH", data, at + 4)
        else:
            width, height = struct.unpack_from("<ii", data, at + 4)
    except struct.error:
        return None
    return width, abs(height) // 2
