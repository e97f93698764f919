"""The request of an evaluation, and the names of its result files; imports neither numpy nor torch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self, get_args

from modeling.errors import ModelingError
from modeling.inference.engines.choice import WANTED_PRECISIONS, WantedPrecision

EVALUATION_FILE = "evaluation.json"
PREDICTIONS_FILE = "predictions.csv"
PLOTS_FOLDER = "plots"

DataPart = Literal["all", "train", "validation", "test"]
PARTS: tuple[DataPart, ...] = get_args(DataPart)


@dataclass(frozen=True, slots=True)
class EvaluateRequest:
    """Evaluate the model in folder `model` on labelled images and write the result to the folder `output`.

    part: `all` images of `data`, or those of one part of the model's own split (known by their content), or of the
        official parts of `data` where the model's training used none of them.
    model_ref: what the model is called in the result; the folder's name where empty.
    precision: of the engine that answers; auto: the one that jobs use.
    """

    model: Path
    data: Path
    output: Path
    device: str = "cpu"
    part: DataPart = "all"
    model_ref: str = ""
    precision: WantedPrecision = "auto"

    def __post_init__(self) -> None:
        for name in ("model", "data", "output"):
            object.__setattr__(self, name, Path(getattr(self, name)))
        if self.part not in PARTS:
            raise ModelingError(f"unknown part {self.part!r}; choose one of {', '.join(PARTS)}")
        if self.precision not in WANTED_PRECISIONS:
            raise ModelingError(f"unknown precision {self.precision!r}; choose one of {', '.join(WANTED_PRECISIONS)}")
        object.__setattr__(self, "model_ref", self.model_ref or self.model.name)

    def to_json(self) -> dict[str, Any]:
        """A dict that JSON can hold."""
        return {name: str(value) for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The reverse of `to_json`; keys with a default may be left out.

        Raises:
            ModelingError: unknown or missing keys, or values that are no text.
        """
        if not isinstance(value, Mapping):
            raise ModelingError(f"an evaluation request must be an object, not {type(value).__name__}")
        unknown = sorted(set(value) - {field.name for field in fields(cls)})
        missing = sorted({"model", "data", "output"} - set(value))
        if unknown or missing:
            raise ModelingError(f"evaluation request: unknown keys {unknown}, missing keys {missing}")
        for key, text in value.items():
            if not isinstance(text, str):
                raise ModelingError(f"{key} must be a string, not {text!r}")
        return cls(**value)
