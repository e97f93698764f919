"""What a PNG holds beside its pixels: text, profiles, facts. Damage to it never costs the image.

Pillow rejects a PNG for a comment that is damaged or long, and unpacks every text. So it gets a copy with the chunks
that change pixels and those that may hold an orientation; the latter unpacked, up to a limit.
"""

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from modeling.images.png import CHUNK, SIGNATURE

_NAME = re.compile(rb"\w{4}")  # of a chunk, as Pillow checks it
_ANCILLARY = 0x20  # set in the first letter of a chunk that decoders may ignore
# Chunks that are left out even if they are damaged. A damaged chunk of another name is kept, and Pillow rejects it: it
# may be pixels or a palette with a damaged name.
_METADATA = frozenset(
    b"tEXt zTXt iTXt iCCP eXIf gAMA cHRM sRGB sBIT pHYs tIME bKGD hIST sPLT cICP mDCV cLLI dSIG oFFs pCAL sCAL gIFg "
    b"gIFx gIFt sTER caNv vpAg orNT iDOT".split()
)
_PIXELS = frozenset([b"tRNS", b"acTL", b"fcTL", b"fdAT"])  # transparency and animation: optional, but no metadata
_ANIMATION_BYTES = 8  # of acTL; Pillow rejects an image for a shorter one
_ORIENTATION_KEYS = (b"XML:com.adobe.xmp", b"Raw profile type exif", b"exif")  # texts that Pillow looks into
_MAX_TEXTS, _MAX_TEXT = 8, 4 << 20  # number and bytes; Pillow rejects more than 64 MiB. XMP begins with the orientation


@dataclass(slots=True)
class PngFacts:
    """What the header and the metadata of a PNG say.

    bits: of a sample, as stored. significant_bits: of a sample, as sBIT states it; 0 if it does not, or if the channels
    differ.
    """

    bits: int
    significant_bits: int = 0


def without_metadata(data: bytes) -> tuple[bytes, PngFacts]:
    """A PNG without its metadata, except for what may hold its orientation; and facts about the image.

    The same bytes if there is nothing to leave out. What is wrong with the rest is left for Pillow to find.
    """
    facts = PngFacts(bits=data[24] if len(data) > 24 else 0)
    kept: list[bytes] = []
    start = num_texts = 0
    for at, end, name in _chunks(data):
        if not _is_metadata(data, at, end, name):
            continue
        kept.append(data[start:at])
        start = end
        if name in _METADATA and _is_whole(data, at, end):
            content = data[at + CHUNK.size : end - 4]
            if name == b"sBIT" and len(set(content)) == 1:
                facts.significant_bits = content[0]
            if num_texts < _MAX_TEXTS and (chunk := _orientation_chunk(name, content)):
                num_texts += 1
                kept.append(chunk)
    return b"".join([*kept, data[start:]]) if kept else data, facts


def _chunks(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Start, end and name of each whole chunk, up to anything that is not a chunk."""
    at = len(SIGNATURE)
    while at + CHUNK.size <= len(data):
        length, name = CHUNK.unpack_from(data, at)
        end = at + CHUNK.size + length + 4
        if end > len(data) or not _NAME.fullmatch(name):
            return
        yield at, end, name
        at = end


def _is_metadata(data: bytes, at: int, end: int, name: bytes) -> bool:
    """Whether a decoder may ignore the chunk."""
    if name in _METADATA:
        return True
    if name == b"acTL" and end - at - CHUNK.size - 4 < _ANIMATION_BYTES:
        return _is_whole(data, at, end)
    return bool(name[0] & _ANCILLARY) and name not in _PIXELS and _is_whole(data, at, end)


def _is_whole(data: bytes, at: int, end: int) -> bool:
    """Whether the checksum of the chunk is correct."""
    return zlib.crc32(memoryview(data)[at + 4 : end - 4]) == int.from_bytes(data[end - 4 : end])


def _orientation_chunk(name: bytes, content: bytes) -> bytes:
    """The chunk as Pillow may read it, if it may hold an orientation; else nothing."""
    if name == b"eXIf":
        return _chunk(name, content)
    if name not in (b"tEXt", b"zTXt", b"iTXt") or not content.startswith(_ORIENTATION_KEYS):
        return b""
    key, _, rest = content.partition(b"\0")
    if name == b"tEXt":
        return _chunk(name, content[:_MAX_TEXT])
    if name == b"zTXt":
        return _chunk(b"tEXt", key + b"\0" + _unpacked(rest[1:])) if rest[:1] == b"\0" else b""
    packed, method, (_, _, text) = rest[:1], rest[1:2], (*rest[2:].split(b"\0", 2), b"", b"", b"")[:3]
    if packed not in (b"", b"\0"):
        text = _unpacked(text) if method == b"\0" else b""
    return _chunk(name, key + bytes(5) + text[:_MAX_TEXT])


def _unpacked(text: bytes) -> bytes:
    """The beginning of a compressed text; nothing if it is damaged."""
    try:
        return zlib.decompressobj().decompress(text, _MAX_TEXT)
    except zlib.error:
        return b""


def _chunk(name: bytes, content: bytes) -> bytes:
    return CHUNK.pack(len(content), name) + content + zlib.crc32(name + content).to_bytes(4)
