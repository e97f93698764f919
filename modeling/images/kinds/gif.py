"""Whether a GIF is an animation, without decoding it: Pillow composes the next frame to find out."""

import numpy as np

_HEADER_BYTES = 13
_IMAGE, _EXTENSION, _END = 0x2C, 0x21, 0x3B  # what a block begins with
_FULL = 255  # bytes of a part of a block's data; nearly all have as many
_MAX_STEPS = 1_000_000


def has_further_frames(data: bytes) -> bool:
    """Whether a second frame begins; looks at a bounded number of blocks and parts."""
    at, num_frames = _after_palette(data, 10, _HEADER_BYTES), 0
    for _ in range(_MAX_STEPS):
        kind = data[at] if at < len(data) else _END
        if kind == _END:
            return False
        if kind == _IMAGE:
            num_frames += 1
            if num_frames > 1:
                return True
            at = _after_parts(data, _after_palette(data, at + 9, at + 10) + 1)
        elif kind == _EXTENSION:
            at = _after_parts(data, at + 2)
        else:
            at += 1  # Pillow ignores what is none
    return False


def _after_palette(data: bytes, flags_at: int, at: int) -> int:
    """Where a palette ends that is at `at` if the flags say so."""
    flags = data[flags_at] if flags_at < len(data) else 0
    return at + (3 << ((flags & 7) + 1)) if flags & 0x80 else at


def _after_parts(data: bytes, at: int) -> int:
    """Where the data of a block end: parts that begin with their length, up to an empty one."""
    lengths = np.frombuffer(data, np.uint8)[at :: _FULL + 1]
    others = np.flatnonzero(lengths[:_MAX_STEPS] != _FULL)
    if not len(others):
        return len(data)
    at += int(others[0]) * (_FULL + 1)
    for _ in range(_MAX_STEPS):
        if at >= len(data) or not data[at]:
            break
        at += data[at] + 1
    return at + 1
