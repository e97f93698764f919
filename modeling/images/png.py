"""Decodes plain PNGs, such as scans and cut-out characters, with libpng directly, without a Pillow image in between.

torchcodec releases the GIL while it decodes, and takes a third of Pillow's time for 28 x 28 px
(`python -m benchmarks.decode`). Pillow decodes all other PNGs, and reports what is wrong with broken ones.
"""

# Shapes: H height, W width, C channels.
import functools
import struct
from collections.abc import Callable
from typing import Literal
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from modeling.images.pixels import Pixels, Size

Mode = Literal["GRAY", "RGB"]

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHUNK = struct.Struct(">I4s")  # length and name; content and a 4-byte checksum follow
_HEADER = struct.Struct(">8sI4sIIBB")  # signature, length and name of the first chunk, width, height, bits, colour type
_GREY, _RGB = 0, 2  # colour types
# Chunks that do not change the pixels, with their length (Pillow rejects shorter ones); at most one of each.
_PLAIN_CHUNKS = {b"IHDR": 13, b"IEND": 0, b"cHRM": 32, b"gAMA": 4, b"pHYs": 9, b"sRGB": 1}
_TEXTS = (b"Software\0", b"Comment\0", b"Title\0", b"Author\0", b"Description\0", b"Copyright\0", b"Source\0", b"date:")
_MAX_TEXTS = 16


def plain_png_size(data: bytes, *, grey: bool) -> Size | None:
    """Width and height of a plain PNG with 8-bit grey or (unless `grey`) 8-bit colour; None for any other file.

    Plain means: complete, opaque, upright, a single frame, no colour profile, and no damaged chunk (libpng checks those
    of the pixels).
    """
    if not data.startswith(SIGNATURE) or len(data) < _HEADER.size:
        return None
    _, _, name, width, height, bits, colour = _HEADER.unpack_from(data)
    simple = name == b"IHDR" and bits == 8 and (colour == _GREY or (colour == _RGB and not grey))
    return (width, height) if simple and width and height and _has_plain_chunks(data) else None


def _has_plain_chunks(data: bytes) -> bool:
    """Whether the chunks fill the file, end with IEND, and none changes the meaning of the pixels."""
    at, before = len(SIGNATURE), b""
    seen: set[bytes] = set()
    num_texts = 0
    while at + CHUNK.size <= len(data):
        length, name = CHUNK.unpack_from(data, at)
        content, at = at + CHUNK.size, at + CHUNK.size + length + 4
        if name == b"tEXt":
            num_texts += 1
            plain = num_texts <= _MAX_TEXTS and data.startswith(_TEXTS, content)
        elif name == b"IDAT":
            plain = before == name or name not in seen
        else:
            plain = _PLAIN_CHUNKS.get(name) == length and name not in seen
        if not plain or (name != b"IDAT" and not _is_whole(data, content, at)):
            return False
        seen.add(name)
        before = name
    return at == len(data) and before == b"IEND"


def _is_whole(data: bytes, content: int, end: int) -> bool:
    """Whether the checksum of the chunk with this content is correct."""
    return crc32(data[content - 4 : end - 4]) == int.from_bytes(data[end - 4 : end])


def decode_plain_png(data: bytes, *, grey: bool) -> Pixels | None:
    """Pixels HWC of a plain PNG, with one channel or three; None if libpng cannot decode it."""
    try:
        pixels_CHW = _decoder()(bytearray(data), "GRAY" if grey else "RGB")
    except RuntimeError:
        return None
    return pixels_CHW.transpose(1, 2, 0)


def decode_deep_png(data: bytes) -> NDArray[np.uint16] | None:
    """The values HWC of a PNG of 16 bits, with three channels; None if libpng cannot decode it."""
    from torch import frombuffer, uint8, uint16
    from torchcodec.decoders import decode_png  # type: ignore[attr-defined]  # not named in its __all__

    try:
        values_CHW = decode_png(frombuffer(bytearray(data), dtype=uint8), mode="RGB", output_dtype=uint16)
    except RuntimeError:
        return None
    values_HWC: NDArray[np.uint16] = values_CHW.numpy().transpose(1, 2, 0)
    return values_HWC


@functools.cache
def _decoder() -> Callable[[bytearray, Mode], Pixels]:
    """A function from a PNG's bytes and the requested mode to pixels CHW; its import waits for the first image."""
    from torch import frombuffer, uint8
    from torchcodec.decoders import decode_png  # type: ignore[attr-defined]  # not named in its __all__

    def decode(data: bytearray, mode: Mode) -> Pixels:
        pixels_CHW: Pixels = decode_png(frombuffer(data, dtype=uint8), mode=mode).numpy()
        return pixels_CHW

    return decode
