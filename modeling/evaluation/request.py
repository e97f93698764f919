"""The request of an evaluation, and the names of its result files; imports neither numpy nor torch."""

from dataclasses import dataclass

from modeling.data.layout import PARTS, DataPart, Layout
from modeling.durable import STRICT, JsonRequest, PathText
from modeling.errors import ModelingError
from modeling.inference.engines.precision import WantedPrecision
from modeling.names import path_to_text

EVALUATION_FILE = "evaluation.json"
PREDICTIONS_FILE = "predictions.csv"
PLOTS_FOLDER = "plots"


@dataclass(frozen=True, slots=True)
class EvaluateRequest(JsonRequest):
    """Evaluate the model in folder `model` on labelled images and write the result to the folder `output`.

    part: `all` images of `data`, or those of one part of the model's own split (known by their content), or of the
        official parts of `data` where the model's training used none of them.
    model_ref: what the model is called in the result; the folder's name where empty.
    precision: of the engine that answers; auto: the one that jobs use.
    layout: what the folders of `data` are; None: found by their names and by what they hold.
    """

    model: PathText
    data: PathText
    output: PathText
    device: str = "cpu"
    part: DataPart = "all"
    model_ref: str = ""
    precision: WantedPrecision = "auto"
    layout: Layout | None = None

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if self.part not in PARTS:
            raise ModelingError(f"unknown part {self.part!r}; choose one of {', '.join(PARTS)}")
        object.__setattr__(self, "model_ref", self.model_ref or path_to_text(self.model.name))
