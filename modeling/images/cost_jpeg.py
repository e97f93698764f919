"""How often a JPEG's scans pass over its samples, and what its header costs Pillow; only markers are read.

A progressive scan over empty blocks takes some ten bytes, and as long as one with data; so does a scan without any
data. A file of 15 kB can take 15 s. A sequential image whose first scan has all channels ends with it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from modeling.images.formats import MAX_PIXELS, PASSES_PER_PIXEL, PILLOW_MAX_PIXELS
from modeling.images.pixels import Size

_SCAN, _END, _APP1 = 0xDA, 0xD9, 0xE1
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # SOF; not DHT, JPG, DAC
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_WITHOUT_LENGTH = frozenset({0x01, 0xD8, _END})
# Not an escaped byte, a fill byte or a restart; `re` looks ten times as fast for what begins with one literal byte.
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_EXIF = b"Exif\0\0"
SCAN_MARKER = b"\xff\xda"

_MOST_CHANNELS = 4
_SEGMENT_PASSES = 1000  # of a decoder, and of Pillow
_STRAY_PASSES = 100  # of Pillow for a byte between segments
_COPIED_BYTES = 16  # in one pass
_LEAST_CHANNEL_BYTES, _LEAST_SEGMENT_BYTES = 4, 4  # a scan of four channels takes 16 bytes, and has no more
_FEW = PASSES_PER_PIXEL * MAX_PIXELS  # passes that are within any limit
_ENOUGH = PASSES_PER_PIXEL * PILLOW_MAX_PIXELS  # no limit is higher: there is no need to count further


@dataclass(frozen=True, slots=True)
class _Frame:
    """shares: samples of each channel, as a share of the pixels."""

    shares: dict[int, float]
    progressive: bool


def jpeg_passes(data: bytes, size: Size) -> int:
    """Passes over samples that decoding takes, also at a reduced size.

    The file is not read where even one of nothing but scans would take few.
    """
    num_pixels = max(64, size[0] * size[1])
    most = num_pixels * (_MOST_CHANNELS + len(data) // _LEAST_CHANNEL_BYTES)
    most += _SEGMENT_PASSES * len(data) // _LEAST_SEGMENT_BYTES
    if most < _FEW:
        return most
    passes, frame = 0, None
    for marker, at in _segments(data):
        passes += _SEGMENT_PASSES
        if marker in _FRAMES:
            frame = frame or _frame_at(data, at, marker)
        elif marker == _SCAN:
            channels = _channels_at(data, at)
            passes += int(num_pixels * _share_of(channels, frame))
            if _is_whole(channels, frame):
                break
        if passes > _ENOUGH:
            break
    return passes


def is_in_several_scans(data: bytes) -> bool:
    """Whether the decoder keeps the coefficients of the whole image."""
    frame = None
    for marker, at in _segments(data):
        if marker in _FRAMES:
            frame = _frame_at(data, at, marker)
        elif marker == _SCAN:
            return not _is_whole(_channels_at(data, at), frame)
    return False


def header_passes(data: bytes) -> int:
    """Passes that Pillow takes up to the first scan; it copies all EXIF data for each further segment with some."""
    passes = exif_bytes = 0
    expected = 2
    for marker, at in _segments(data):
        passes += _SEGMENT_PASSES + _STRAY_PASSES * max(0, at - 2 - expected)
        if marker == _SCAN or passes > _ENOUGH:
            return passes
        expected = at + _length_at(data, at, marker)
        if marker == _APP1 and data.startswith(_EXIF, at + 2):
            exif_bytes += expected - at
            passes += exif_bytes // _COPIED_BYTES
    return passes + _STRAY_PASSES * max(0, len(data) - expected)


def _share_of(channels: bytes, frame: _Frame | None) -> float:
    """A scan's samples as a share of the pixels."""
    return sum(frame.shares.get(channel, 1.0) for channel in channels) if frame else _MOST_CHANNELS


def _is_whole(channels: bytes, frame: _Frame | None) -> bool:
    """Whether a scan with these channels is the only one."""
    return frame is not None and not frame.progressive and len(channels) == len(frame.shares)


def _channels_at(data: bytes, at: int) -> bytes:
    """The channels of the scan header at an offset; decoders refuse a scan that has more than four."""
    count = min(_MOST_CHANNELS, data[at + 2]) if at + 2 < len(data) else 0
    return data[at + 3 : at + 3 + 2 * count : 2]


def _frame_at(data: bytes, at: int, marker: int) -> _Frame:
    """The frame header at an offset."""
    channels = data[at + 8 : at + 8 + 3 * (data[at + 7] if at + 7 < len(data) else 0)]
    factors = {
        channel: (sampling >> 4) * (sampling & 15)
        for channel, sampling in zip(channels[::3], channels[1::3], strict=False)
    }
    widest = max([1, *factors.values()])
    return _Frame({channel: factor / widest for channel, factor in factors.items()}, marker in _PROGRESSIVE)


def _length_at(data: bytes, at: int, marker: int) -> int:
    """Bytes of a segment after its marker."""
    return 0 if marker in _WITHOUT_LENGTH else max(2, int.from_bytes(data[at : at + 2]))


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Each marker but restarts, with the offset after it; what lies between segments, as scans do, is skipped."""
    at = 2
    while (found := _MARKER.search(data, at)) is not None:
        marker, at = data[found.end() - 1], found.end()
        yield marker, at
        if marker == _END:
            return
        at += _length_at(data, at, marker)
