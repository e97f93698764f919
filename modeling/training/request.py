"""The request of a training."""

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self, cast

from modeling.errors import ModelingError
from modeling.networks.architectures import get_architecture

MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 8, 1024  # px
_PATHS = ("data", "output", "work", "cache")


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """The user's options of a training, validated; `TrainRequest` adds device and folders.

    weights: pre-trained weights to start from (see modeling.networks.weights); None: train from scratch.
    epochs, batch_size, learning_rate: None: the architecture's recipe. learning_rate may be `auto`, which runs a range
        test. With `weights`, epochs are those of fine-tuning; without epochs or a budget there is none.
    image_size: side in px; None: the architecture's default, else the images' size if all have the same small size,
        else 64.
    validation, test: shares of the images that are held out, 0 <= share < 1 and less than 1 together; official parts
        take precedence.
    budget_s: seconds that fitting may take; it limits the number of epochs, up to `epochs`.
    max_error: the share of accepted images that may be wrong, which defines the accept thresholds; in (0, 1).
    deterministic: choose nothing by timing, and use only deterministic kernels; slower on a GPU.
    int8: also quantise the network, and publish the result if it is accurate enough (modeling.training.int8).
    """

    data: Path
    architecture: str
    _: KW_ONLY
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | Literal["auto"] | None = None
    image_size: int | None = None
    seed: int = 0
    validation: float = 0.1
    test: float = 0.1
    weights: str | None = None
    budget_s: float | None = None
    max_error: float = 0.01
    deterministic: bool = False
    int8: bool = False

    def __post_init__(self) -> None:
        for name in self._paths():
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else Path(value))
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
        if self.learning_rate not in (None, "auto"):
            _check_number("learning_rate", self.learning_rate)
            if not 0 < cast(float, self.learning_rate) <= 10:
                raise ModelingError(f"learning_rate must be above 0 and at most 10, not {self.learning_rate}")
        self._check_limits()
        for name in ("validation", "test"):
            _check_number(name, getattr(self, name))
        if not (self.validation >= 0 and self.test >= 0 and self.validation + self.test < 1):
            raise ModelingError(
                f"validation ({self.validation}) and test ({self.test}) must be at least 0 and below 1 together"
            )

    def _check_limits(self) -> None:
        _check_number("max_error", self.max_error)
        if not 0 < self.max_error < 1:
            raise ModelingError(f"max_error must be between 0 and 1, not {self.max_error}")
        if self.budget_s is not None:
            _check_number("budget_s", self.budget_s)
            if self.budget_s <= 0:
                raise ModelingError(f"budget_s must be above 0, not {self.budget_s}")
        for name in ("deterministic", "int8"):
            if not isinstance(getattr(self, name), bool):
                raise ModelingError(f"{name} must be true or false, not {getattr(self, name)!r}")
        if self.deterministic and self.budget_s is not None:
            raise ModelingError("a budget depends on the clock, which deterministic excludes; give epochs instead")

    @classmethod
    def _paths(cls) -> list[str]:
        return [field.name for field in fields(cls) if field.name in _PATHS]

    def to_json(self) -> dict[str, Any]:
        """A dict that JSON can hold."""
        paths = {name: None if (path := getattr(self, name)) is None else str(path) for name in self._paths()}
        return asdict(self) | paths

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The reverse of `to_json`; keys with a default may be left out.

        Raises:
            ModelingError: unknown or missing keys, or values out of range.
        """
        if not isinstance(value, Mapping):
            raise ModelingError(f"a training request must be an object, not {type(value).__name__}")
        unknown = sorted(set(value) - {field.name for field in fields(cls)})
        missing = sorted({field.name for field in fields(cls) if field.default is MISSING} - set(value))
        if unknown or missing:
            raise ModelingError(f"training request: unknown keys {unknown}, missing keys {missing}")
        for key in ("data", "architecture", "output", "device", "weights", "work", "cache"):
            optional = key in ("weights", "work", "cache") and value.get(key) is None
            if not optional and not isinstance(value.get(key, ""), str):
                raise ModelingError(f"{key} must be a string, not {value[key]!r}")
        return cls(**value)


@dataclass(frozen=True, slots=True)
class TrainRequest(TrainOptions):
    """Train `architecture` on `data` and leave the model in the folder `output`.

    device: the name that torch uses.
    work: folder for checkpoints and live metrics; a later run of the same request resumes from it.
    cache: folder for facts about images, features, and the fastest settings on this hardware; safe to delete.
    """

    output: Path
    _: KW_ONLY
    device: str = "cpu"
    work: Path | None = None
    cache: Path | None = None


def _check_int(name: str, value: object, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ModelingError(f"{name} must be a whole number from {low} to {high}, not {value!r}")


def _check_number(name: str, value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ModelingError(f"{name} must be a number, not {value!r}")
