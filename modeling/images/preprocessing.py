"""How images are prepared for a model: stored with the model and applied identically wherever images are read."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self, cast

from modeling.errors import ModelFormatError

MAX_SIDE = 4096  # px; the largest size that a model file may define


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """From any image to `height` x `width` pixels of `mode`, and to the numbers that a network takes.

    If `resize` is None, the whole image is stretched to height x width (an image of exactly that size keeps its
    pixels). Otherwise the shorter side is scaled to `resize` px and the centre height x width is cropped, as the
    torchvision recipes do. Bilinear with antialiasing in both cases.

    mean, std: of each channel, for pixels in [0, 1]; the network takes (pixel / 255 - mean) / std.
    background: red, green, blue in 0..255, shown behind transparent pixels.
    """

    mode: Literal["L", "RGB"]
    height: int
    width: int
    resize: int | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    background: tuple[int, int, int] = (255, 255, 255)

    def __post_init__(self) -> None:
        if self.mode not in ("L", "RGB"):
            raise ModelFormatError(f"unknown image mode {self.mode!r}; choose L or RGB")
        if not self.mean and not self.std:
            object.__setattr__(self, "mean", (0.5,) * self.channels)
            object.__setattr__(self, "std", (0.5,) * self.channels)
        self._check()

    def _check(self) -> None:
        for side in (self.height, self.width):
            if not _is_int(side) or not 1 <= side <= MAX_SIDE:
                raise ModelFormatError(f"image side must be 1 to {MAX_SIDE} px, not {side!r}")
        smallest = max(self.height, self.width)
        if self.resize is not None and (not _is_int(self.resize) or not smallest <= self.resize <= MAX_SIDE):
            raise ModelFormatError(f"resize must be {smallest} to {MAX_SIDE} px, not {self.resize!r}")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.channels or not all(_is_number(value) for value in values):
                raise ModelFormatError(f"{name} must be {self.channels} finite numbers, not {list(values)}")
        if min(self.std) <= 0:
            raise ModelFormatError(f"std must be above 0, not {list(self.std)}")
        if len(self.background) != 3 or not all(_is_int(v) and 0 <= v <= 255 for v in self.background):
            raise ModelFormatError(f"background must be three numbers 0 to 255, not {list(self.background)}")

    @property
    def channels(self) -> int:
        """1 for L, 3 for RGB."""
        return 1 if self.mode == "L" else 3

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one decoded image: height, width, channels."""
        return (self.height, self.width, self.channels)

    @property
    def digest(self) -> str:
        """sha256 over the canonical JSON: two models with the same digest see the same pixels."""
        canonical = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """A dict that JSON can hold."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The reverse of `to_json`.

        Raises:
            ModelFormatError: for unknown or missing keys, and for values out of range.
        """
        known = {field.name for field in fields(cls)}
        if not isinstance(value, Mapping) or set(value) != known:
            raise ModelFormatError(f"preprocessing must have the keys {', '.join(sorted(known))}, not {value!r}")
        lists = {key: value[key] for key in ("mean", "std", "background")}
        if not all(isinstance(items, list) for items in lists.values()):
            raise ModelFormatError(f"mean, std and background must be lists, not {lists!r}")
        mean, std, background = (tuple(items) for items in lists.values())
        return cls(
            mode=value["mode"],
            height=value["height"],
            width=value["width"],
            resize=value["resize"],
            mean=mean,
            std=std,
            background=cast(tuple[int, int, int], background),
        )


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
