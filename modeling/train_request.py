"""What a training run is asked to do."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from modeling.architectures import get_architecture
from modeling.errors import ModelingError

MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 8, 1024  # px


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """Train `architecture` on `data` and leave the model in the folder `output`.

    epochs, batch_size, learning_rate: the architecture's recipe where None.
    image_size: side in px; where None, what the images suggest: their own size if it is small and common, else 64.
    validation, test: shares of the images held out, 0 <= share < 1 and less than 1 together; MNIST's official
        test part takes the place of `test`.
    """

    data: Path
    architecture: str
    output: Path
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    image_size: int | None = None
    seed: int = 0
    device: str = "cpu"
    validation: float = 0.1
    test: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", Path(self.data))
        object.__setattr__(self, "output", Path(self.output))
        get_architecture(self.architecture)
        for name, low, high in (
            ("epochs", 1, 10_000),
            ("batch_size", 1, 65_536),
            ("image_size", MIN_IMAGE_SIZE, MAX_IMAGE_SIZE),
        ):
            value = getattr(self, name)
            if value is not None:
                _check_int(name, value, low, high)
        _check_int("seed", self.seed, 0, 2**63 - 1)
        if self.learning_rate is not None:
            _check_number("learning_rate", self.learning_rate)
            if not 0 < self.learning_rate <= 10:
                raise ModelingError(f"learning_rate must be above 0 and at most 10, not {self.learning_rate}")
        for name in ("validation", "test"):
            _check_number(name, getattr(self, name))
        if not (self.validation >= 0 and self.test >= 0 and self.validation + self.test < 1):
            raise ModelingError(
                f"validation ({self.validation}) and test ({self.test}) must be at least 0 and below 1 together"
            )

    def to_json(self) -> dict[str, Any]:
        """A dict that JSON can hold."""
        return asdict(self) | {"data": str(self.data), "output": str(self.output)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The reverse of `to_json`; keys with a default may be left out.

        Raises:
            ModelingError: unknown or missing keys, or values out of range.
        """
        if not isinstance(value, Mapping):
            raise ModelingError(f"a training request must be an object, not {type(value).__name__}")
        unknown = sorted(set(value) - {field.name for field in fields(cls)})
        missing = sorted({"data", "architecture", "output"} - set(value))
        if unknown or missing:
            raise ModelingError(f"training request: unknown keys {unknown}, missing keys {missing}")
        for key in ("data", "architecture", "output", "device"):
            if not isinstance(value.get(key, ""), str):
                raise ModelingError(f"{key} must be a string, not {value[key]!r}")
        return cls(**value)


def _check_int(name: str, value: object, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ModelingError(f"{name} must be a whole number from {low} to {high}, not {value!r}")


def _check_number(name: str, value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ModelingError(f"{name} must be a number, not {value!r}")
