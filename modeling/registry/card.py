"""The card of a model: everything except the weights, in `model.json` beside `model.safetensors`."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from modeling.errors import ModelFormatError
from modeling.images.preprocessing import Preprocessing
from modeling.metrics.calibration import Calibration

FORMAT_VERSION = 2
_UNCALIBRATED = 1  # the format before calibration was part of a model
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
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    weights_sha256: str
    metrics: dict[str, float] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    calibration: Calibration | None = None
    format_version: int = FORMAT_VERSION

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
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The reverse of `to_json`.

        Raises:
            ModelFormatError: unknown format version, or keys and types that do not fit it.
        """
        if not isinstance(value, Mapping):
            raise ModelFormatError(f"a model card must be an object, not {type(value).__name__}")
        version = value.get("format_version")
        if version not in (_UNCALIBRATED, FORMAT_VERSION):
            raise ModelFormatError(
                f"model format {version!r} is unknown; this version of pigeonhole reads "
                f"{_UNCALIBRATED} and {FORMAT_VERSION}"
            )
        known = {field.name for field in fields(cls)} - ({"calibration"} if version == _UNCALIBRATED else set())
        if set(value) != known:
            odd = ", ".join(sorted(str(key) for key in set(value) ^ known))
            raise ModelFormatError(f"a model card of format {version} has keys missing or unknown: {odd}")
        labels = value["labels"]
        if not isinstance(labels, list) or not labels or not all(isinstance(label, str) for label in labels):
            raise ModelFormatError(f"labels must be a list of names, not {labels!r}")
        for key, kind in (
            ("architecture", str),
            ("weights_sha256", str),
            ("metrics", dict),
            ("training", dict),
        ):
            if not isinstance(value[key], kind):
                raise ModelFormatError(f"{key} must be a {kind.__name__}, not {value[key]!r}")
        calibration = value.get("calibration")
        rest = {key: value[key] for key in known - {"labels", "preprocessing", "calibration"}}
        return cls(
            labels=tuple(labels),
            preprocessing=Preprocessing.from_json(value["preprocessing"]),
            calibration=None if calibration is None else Calibration.from_json(calibration, len(labels)),
            **rest,
        )

    @classmethod
    def from_bytes(cls, data: bytes, source: Path) -> Self:
        """The card in the bytes of a `model.json` read from `source`.

        Raises:
            ModelFormatError: not JSON, or not a card.
        """
        try:
            return cls.from_json(json.loads(data))
        except ModelFormatError as err:
            raise ModelFormatError(f"{source}: {err}") from err
        except (ValueError, RecursionError) as err:
            raise ModelFormatError(f"{source}: not JSON ({err})") from err


def check_int8(data: bytes, card: ModelCard, path: Path) -> None:
    """Raise ModelFormatError if `data`, read from `path`, is not the quantised network that the card names."""
    digest = hashlib.sha256(data).hexdigest()
    if digest != card.int8_sha256:
        raise ModelFormatError(f"{path}: sha256 is {digest}, the card says {card.int8_sha256}")
