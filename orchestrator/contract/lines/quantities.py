"""Durations, sizes and shares as operators write them: `500ms`, `7d`; `16MB`, `256MiB`; `1%`."""

import re

from orchestrator.contract.errors import UsageError

_NUMBER = r"(\d{1,12}(?:\.\d{1,6})?)"
_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_BYTES = {
    "": 1, "B": 1, "kB": 1000, "MB": 1000**2, "GB": 1000**3, "TB": 1000**4,
    "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
}  # fmt: skip


def parse_duration_ms(text: str) -> int:
    """Milliseconds of `500ms`, `2s`, `5m`, `12h`, `7d`. Raises UsageError."""
    match = re.fullmatch(rf"{_NUMBER}({'|'.join(_MS)})", text.strip(), re.ASCII)
    if not match:
        raise UsageError(f"{text!r} is not a duration; write a number with a unit: 500ms, 2s, 5m, 12h or 7d")
    return round(float(match[1]) * _MS[match[2]])


def parse_size(text: str) -> int:
    """Bytes of `1000`, `64kB`, `16MB`, `2GB`, and of `KiB`, `MiB`, `GiB`. Raises UsageError."""
    match = re.fullmatch(rf"{_NUMBER} ?({'|'.join(_BYTES)})", text.strip(), re.ASCII)
    if not match:
        raise UsageError(f"{text!r} is not a size; write bytes, or a number with a unit: 64kB, 16MB, 256MiB or 2GB")
    return round(float(match[1]) * _BYTES[match[2]])


def parse_share(text: str) -> float:
    """A share such as `1%` or `0.01`. Raises UsageError."""
    digits = text.strip().removesuffix("%")
    try:
        share = float(digits) / (100 if digits != text.strip() else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise UsageError(f"{text!r} is not a share from 0 to 1, such as 1% or 0.01")
    return share


def duration_text(ms: int) -> str:
    """The shortest text that `parse_duration_ms` reads as so many milliseconds."""
    unit = next(unit for unit, factor in reversed(_MS.items()) if ms % factor == 0 and (ms or factor == 1))
    return f"{ms // _MS[unit]}{unit}"
