"""The request of a training."""

from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Literal

from pydantic import Field

from modeling.data.layout import Layout
from modeling.durable import STRICT, JsonRequest, Number, PathText
from modeling.errors import ModelingError
from modeling.networks.architectures import get_architecture
from modeling.networks.default_network import DataFacts
from modeling.networks.quality import Quality

MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 8, 1024  # px

_Share = Annotated[Number, Field(ge=0, lt=1)]


@dataclass(frozen=True, slots=True)
class WeightsPin:
    """The very weights that a training starts from. name: as `weights list` shows it; sha256: of the file."""

    name: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

    __pydantic_config__ = STRICT


@dataclass(frozen=True, slots=True)
class ChosenNetwork:
    """That the network was chosen by rule, for which quality, from which facts, and why."""

    quality: Quality
    facts: DataFacts
    reason: str

    __pydantic_config__ = STRICT


@dataclass(frozen=True, slots=True)
class TrainOptions(JsonRequest):
    """The user's options of a training, validated; `TrainRequest` adds device and folders.

    joined: further data sets that count together with `data` (see modeling.data.forms.joined).
    weights: pre-trained weights to start from (see modeling.networks.weights); None: train from scratch.
    weights_key: which of several sets of weights in a file, such as `state_dict_ema`; None: chosen by itself.
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
    layout: what the folders of the data are; None: found by their names and by what they hold.
    weights_pin: for a file of weights: what it is called in the model's card, and the digest that it must have.
    chosen: None: the user named the architecture.
    """

    data: PathText
    architecture: str
    _: KW_ONLY
    epochs: Annotated[int, Field(ge=1, le=10_000)] | None = None
    batch_size: Annotated[int, Field(ge=1, le=65_536)] | None = None
    learning_rate: Annotated[Number, Field(gt=0, le=10)] | Literal["auto"] | None = None
    image_size: Annotated[int, Field(ge=MIN_IMAGE_SIZE, le=MAX_IMAGE_SIZE)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    validation: _Share = 0.1
    test: _Share = 0.1
    weights: str | None = None
    weights_key: str | None = None
    budget_s: Annotated[Number, Field(gt=0)] | None = None
    max_error: Annotated[Number, Field(gt=0, lt=1)] = 0.01
    deterministic: bool = False
    int8: bool = False
    layout: Layout | None = None
    joined: tuple[PathText, ...] = ()
    weights_pin: WeightsPin | None = None
    chosen: ChosenNetwork | None = None

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        get_architecture(self.architecture)
        if self.validation + self.test >= 1:
            raise ModelingError(f"validation ({self.validation}) and test ({self.test}) must be below 1 together")
        if self.deterministic and self.budget_s is not None:
            raise ModelingError("a budget depends on the clock, which deterministic excludes; give epochs instead")


@dataclass(frozen=True, slots=True)
class TrainRequest(TrainOptions):
    """Train `architecture` on `data` and leave the model in the folder `output`.

    device: the name that torch uses.
    work: folder for checkpoints and live metrics; a later run of the same request resumes from it.
    attempt: the file of this attempt (see modeling.training.attempt); None: there is only one at a time.
    cache: folder for facts about images, features, and the fastest settings on this hardware; safe to delete.
    engines: folder of the engines that are remembered for each architecture: the one that jobs use answers the test
        images. None: torch does.
    """

    output: PathText
    _: KW_ONLY
    device: str = "cpu"
    work: PathText | None = None
    attempt: PathText | None = None
    cache: PathText | None = None
    engines: PathText | None = None
