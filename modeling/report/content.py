"""The content of a report: gathered by a training or an evaluation, shown by `modeling.report`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modeling.metrics.calibration import Calibration
from modeling.metrics.evaluation import Evaluation

Picture = NDArray[np.uint8]  # HWC, C is 1 or 3


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """An image with the true label and the model's answer."""

    name: str
    label: str
    predicted: str
    score: float
    decision: str | None
    picture: Picture


@dataclass(frozen=True, slots=True, eq=False)
class LabelledPicture:
    """An image with its label; `picture` is None where it cannot be read."""

    name: str
    label: str
    picture: Picture | None


@dataclass(frozen=True, slots=True, eq=False)
class ReportContent:
    """Everything that a report shows; what is empty or None is left out.

    title: what the report is about, such as `birds`.
    facts: name and value of each line in the head (architecture, digest, seed, device, time).
    history: one row an epoch, as in `history.csv`: `epoch`, `loss`, `accuracy`, `learning_rate`, `seconds`; what
        was not measured is None or missing.
    data: the data report (`DataReport.to_json()`).
    evaluation: of `part` ("test" or whatever was evaluated).
    picture: pixels of the image at an index of the evaluated part, None where it cannot be read.
    samples: some images with predictions.
    calibration: the model's; its thresholds give the decision for each mistake.
    doubtful: pairs of images that show the same and have two labels, and whether their bytes are the same.
    num_doubtful: the number of such pairs; the content holds some.
    left_out: the images that were not evaluated, in words.
    """

    title: str
    facts: Sequence[tuple[str, str]] = ()
    history: Sequence[Mapping[str, float | None]] = ()
    data: Mapping[str, Any] | None = None
    evaluation: Evaluation | None = None
    part: str = "test"
    picture: Callable[[int], Picture | None] = field(default=lambda index: None)
    samples: Sequence[Sample] = ()
    calibration: Calibration | None = None
    doubtful: Sequence[tuple[LabelledPicture, LabelledPicture, bool]] = ()
    num_doubtful: int = 0
    left_out: str = ""
