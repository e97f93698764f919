"""The card of a model: everything except the weights, in `model.json` beside `model.safetensors`."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field

from modeling.durable import STRICT, Number, decode_json, validated
from modeling.errors import ModelFormatError, UnknownFormatError
from modeling.images.preprocessing import Preprocessing
from modeling.metrics.calibration import Calibration

FORMAT_VERSION = 2
_UNCALIBRATED = 1  # the format before calibration was part of a model
KNOWN_FORMATS = (_UNCALIBRATED, FORMAT_VERSION)
CARD_FILE = "model.json"
WEIGHTS_FILE = "model.safetensors"
INT8_FILE = "int8.onnx"  # the quantised network, if it is accurate enough (modeling.training.int8)
REPORT_FILE = "report.html"  # for people; written by a training or an evaluation


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a model is and how it was made.

    labels: one name for each output of the network, in that order.
    weights_sha256: hex digest of the bytes of `model.safetensors`.
    metrics: numbers by name, such as `test_accuracy` in [0, 1].
    training: how it was made (data, seed, recipe, split sizes, versions of libraries); no times or paths of a run, so
        the same training makes the same card.
    calibration: None if the model has none: its scores are softmax scores, and it makes no decisions.
    """

    architecture: str
    labels: Annotated[tuple[str, ...], Field(min_length=1)]
    preprocessing: Preprocessing
    weights_sha256: str
    metrics: dict[str, Number] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    calibration: Calibration | None = None
    format_version: int = FORMAT_VERSION

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if self.calibration is not None:
            self.calibration.check_labels(len(self.labels))

    def why_no_int8(self) -> str:
        """Why the model has no quantised network, with the figures if one was rejected: `has no int8 weights; ...`."""
        quality = self.training.get("int8")
        if not isinstance(quality, dict) or quality.get("kept", True):
            return "has no int8 weights; train it with --int8, which says whether quantising keeps the bound"
        return (
            f"was refused int8 weights: {quality['agreement']:.2%} of {quality['num_validation']} validation images "
            f"kept their label, and accuracy went from {quality['accuracy_full']:.4f} to {quality['accuracy']:.4f}"
        )

    @property
    def digest(self) -> str:
        """The model's digest: that of the card's bytes."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @property
    def int8_sha256(self) -> str | None:
        """Hex digest of the bytes of `int8.onnx`; None if the model has no quantised network."""
        quality = self.training.get("int8")
        return quality.get("sha256") if isinstance(quality, dict) else None

    def to_json(self) -> dict[str, Any]:
        """A dict that JSON can hold."""
        calibration = {"calibration": self.calibration.to_json() if self.calibration else None}
        return {
            "format_version": self.format_version,
            "architecture": self.architecture,
            "labels": list(self.labels),
            "preprocessing": self.preprocessing.to_json(),
            "weights_sha256": self.weights_sha256,
            "metrics": self.metrics,
            "training": self.training,
        } | (calibration if self.format_version > _UNCALIBRATED else {})

    def to_bytes(self) -> bytes:
        """The bytes of `model.json`; their sha256 is the model's digest."""
        return (json.dumps(self.to_json(), indent=2, sort_keys=True, allow_nan=False) + "\n").encode()

    @classmethod
    def from_json(cls, value: Any, what: str = "the model card") -> Self:
        """The reverse of `to_json`; `what` it is called in errors.

        Raises:
            UnknownFormatError: a format of another version of pigeonhole.
            ModelFormatError: keys and types that do not fit the format.
        """
        version = value.get("format_version") if isinstance(value, dict) else None
        if version not in KNOWN_FORMATS:
            raise UnknownFormatError(
                f"{what}: model format {version!r} is unknown; this version of pigeonhole reads "
                f"{' and '.join(map(str, KNOWN_FORMATS))}"
            )
        if version == _UNCALIBRATED:
            if "calibration" in value:
                raise ModelFormatError(f"{what}: calibration: the key is unknown in format {version}")
            value = value | {"calibration": None}
        return validated(cls, value, what)

    @classmethod
    def from_bytes(cls, data: bytes, source: Path) -> Self:
        """The card in the bytes of a `model.json` read from `source`.

        Raises:
            ModelFormatError: not JSON, or not a card.
        """
        return cls.from_json(decode_json(data, str(source)), str(source))


def check_int8(data: bytes, card: ModelCard, path: Path) -> None:
    """Raise ModelFormatError if `data`, read from `path`, is not the quantised network that the card names."""
    digest = hashlib.sha256(data).hexdigest()
    if digest != card.int8_sha256:
        raise ModelFormatError(f"{path}: sha256 is {digest}, the card says {card.int8_sha256}")


def read_checked(folder: Path) -> tuple[ModelCard, bytes]:
    """The card of the model in a folder, and the bytes of its weights, which have the digest that the card says.

    Raises:
        ModelFormatError: a file is missing or damaged.
    """
    card = ModelCard.from_bytes(_read(folder / CARD_FILE), folder / CARD_FILE)
    weights = _read(folder / WEIGHTS_FILE)
    digest = hashlib.sha256(weights).hexdigest()
    if digest != card.weights_sha256:
        raise ModelFormatError(f"{folder / WEIGHTS_FILE}: sha256 is {digest}, the card says {card.weights_sha256}")
    return card, weights


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as err:
        raise ModelFormatError(f"{path}: cannot be read ({err.strerror})") from err
