"""The request of `classify --plan` to the process that measures a model on a sample, and its answer.

The process is `python -m workers.classify.measure`: one line of JSON in, one line of JSON out.
"""

from pydantic import Field

from modeling.inference.engines.precision import WantedPrecision
from orchestrator.contract.messages import Versioned

MEASURE_MODULE = "workers.classify.measure"


class MeasureRequest(Versioned):
    """Measure the model in the folder `model` on images below `root`; names are text, see `modeling.names`."""

    model: str
    root: str
    paths: tuple[str, ...]  # relative to the root, in the order in which to measure
    follow_symlinks: bool
    precision: WantedPrecision = "auto"
    device: str  # as torch names it, or auto
    batch_size: int  # 0: the model's
    decode_threads: int  # 0: by measurement
    max_pixels: int
    max_file_bytes: int
    limit_s: float  # no batch starts after it


class MeasureAnswer(Versioned):
    """The result, as `modeling.inference.measure.Measurement`; or an error, one line for the operator."""

    error: str = ""
    num_images: int = 0
    elapsed_s: float = 0.0
    engine: str = ""
    batch_size: int = 0
    seconds: dict[str, float] = Field(default_factory=dict)  # by stage, without `write`
    errors: dict[str, int] = Field(default_factory=dict)  # images by error code
    decisions: dict[str, int] = Field(default_factory=dict)  # images without an error, by decision
    peak_bytes: int = 0  # of memory, at most, from the start of the process
