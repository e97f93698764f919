"""How images are prepared for a model: stored with the model and applied identically wherever images are read."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import Field

from modeling.durable import STRICT, Number, validated
from modeling.errors import ModelFormatError

MAX_SIDE = 4096  # px; the largest size that a model file may define
_Byte = Annotated[int, Field(ge=0, le=255)]


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
    mean: tuple[Number, ...] = ()
    std: tuple[Number, ...] = ()
    background: tuple[_Byte, _Byte, _Byte] = (255, 255, 255)

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if not self.mean and not self.std:
            object.__setattr__(self, "mean", (0.5,) * self.channels)
            object.__setattr__(self, "std", (0.5,) * self.channels)
        self._check()

    def _check(self) -> None:
        for side in (self.height, self.width):
            if not 1 <= side <= MAX_SIDE:
                raise ModelFormatError(f"image side must be 1 to {MAX_SIDE} px, not {side!r}")
        smallest = max(self.height, self.width)
        if self.resize is not None and not smallest <= self.resize <= MAX_SIDE:
            raise ModelFormatError(f"resize must be {smallest} to {MAX_SIDE} px, not {self.resize!r}")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.channels:
                raise ModelFormatError(f"{name} must be {self.channels} numbers, not {list(values)}")
        if min(self.std) <= 0:
            raise ModelFormatError(f"std must be above 0, not {list(self.std)}")

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
    def from_json(cls, value: Any) -> Self:
        """The reverse of `to_json`.

        Raises:
            ModelFormatError: for unknown or missing keys, and for values out of range.
        """
        return validated(cls, value, "preprocessing")
