"""What clients send to submit a job: the options of `classify`, `train` and `models evaluate`, as JSON."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from modeling.data.layout import DataPart, Layout
from modeling.inference.engines.precision import WantedPrecision
from modeling.networks.quality import Quality
from modeling.training.request import MAX_IMAGE_SIZE, MIN_IMAGE_SIZE
from orchestrator.contract.jobs.formats import Format
from orchestrator.contract.jobs.requests import MaxFailures
from orchestrator.contract.ledger.words import Priority
from orchestrator.jobs.roots import Roots
from orchestrator.jobs.specs import AnySpec, ClassifySpec, EvaluateSpec, TrainSpec
from orchestrator.jobs.walk import SourceOptions

PathOf = Annotated[str, Field(min_length=1, max_length=4096, description="Absolute path below one of the roots.")]
Notify = Annotated[
    str | None, Field(max_length=2000, description="URL notified when the job ends; null: that of the settings.")
]
Urgency = Annotated[
    Priority,
    Field(description="Share of the workers' time beside other jobs: high counts 16, normal 4, low 1. Trainings and "
          "evaluations wait in this order."),
]  # fmt: skip
ModelRef = Annotated[str, Field(min_length=1, max_length=200, description="A model: name, name@2 or name@alias.")]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class FailureLimit(_Body):
    """How many images may fail before the job stops: a count, or a share of all."""

    count: Count | None = None
    share: Annotated[float, Field(ge=0, le=1)] | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.count is None) == (self.share is None):
            raise ValueError("give count or share, and not both")
        return self


class ClassifyBody(_Body):
    """Classify the images of a source: a folder, a glob, an image, or a file that lists paths."""

    kind: Literal["classify"]
    source: PathOf
    model: ModelRef
    output: PathOf | None = Field(None, description="The manifest to write; null: one in the job's folder.")
    format: Format | None = Field(None, description="Of the manifest; null: by the output's name, or CSV.")
    overwrite: bool = Field(False, description="Replace the output if it exists, once the job has succeeded.")
    top_k: int = Field(5, ge=1, le=1000, description="Number of best labels per row.")
    shard_size: int | None = Field(None, ge=1, le=100_000, description="Images per shard; null: by measurement.")
    precision: WantedPrecision = "auto"
    max_failures: FailureLimit | None = None
    checksum: bool = Field(False, description="Keep a digest of each image in OUT.sources, beside its size and time.")
    since: str | None = Field(
        None,
        min_length=1,
        max_length=4096,
        description="A job's id, or the path of a manifest below a root: only images that are new since, or have "
        "changed, are classified; the other rows are taken over. The output may be that manifest.",
    )
    recursive: bool = Field(True, description="Descend into folders.")
    all_files: bool = Field(False, description="Treat every file as an image, also without an image's extension.")
    root: PathOf | None = Field(None, description="Folder that the paths of a list are relative to.")
    priority: Urgency = "normal"
    notify: Notify = None

    def spec(self, roots: Roots, key: str | None) -> AnySpec:
        """What the command line would make of it; links out of the source are never followed for a client."""
        limit = self.max_failures
        return ClassifySpec(
            source=self.source,
            model=self.model,
            output=_path(self.output),
            output_format=self.format,
            overwrite=self.overwrite,
            top_k=self.top_k,
            shard_size=self.shard_size,
            precision=self.precision,
            checksum=self.checksum,
            since=self.since,
            max_failures=MaxFailures(count=limit.count, share=limit.share) if limit else None,
            idempotency_key=key,
            notify=self.notify,
            need_worker=False,
            reading=SourceOptions(recursive=self.recursive, all_files=self.all_files, root=_path(self.root)),
            priority=self.priority,
            roots=roots,
        )


class TrainBody(_Body):
    """Train a classifier on labelled images and publish it. Several data sets count together."""

    kind: Literal["train"]
    data: list[PathOf] = Field(min_length=1, max_length=100)
    name: str = Field(min_length=1, max_length=100, description="Name to publish the model under.")
    architecture: str | None = Field(None, max_length=100, description="Null: chosen for the images.")
    from_weights: str | None = Field(
        None, max_length=4096, description="A name of `weights list`, a published model, or a file below a root."
    )
    quality: Quality | None = Field(None, description="How much time a network that is chosen by itself may take.")
    weights_key: str | None = Field(None, max_length=200, description="Which of several sets of weights in a file.")
    epochs: int | None = Field(None, ge=1, le=10_000)
    budget_s: float | None = Field(None, gt=0, description="Seconds that fitting may take.")
    batch_size: int | None = Field(None, ge=1, le=65_536)
    learning_rate: Annotated[float, Field(gt=0, le=10)] | Literal["auto"] | None = None
    image_size: int | None = Field(None, ge=MIN_IMAGE_SIZE, le=MAX_IMAGE_SIZE, description="Pixels.")
    max_error: float = Field(0.01, gt=0, lt=1, description="Share of accepted images that may be wrong, on average.")
    validation: Share = 0.1
    test: Share = 0.1
    seed: int = Field(0, ge=0, lt=2**63)
    deterministic: bool = False
    int8: bool = False
    layout: Layout | None = None
    priority: Urgency = "normal"
    notify: Notify = None

    def spec(self, roots: Roots, key: str | None) -> AnySpec:
        """What the command line would make of it."""
        kept = self.model_dump(exclude={"kind", "data", "name", "quality", "from_weights", "priority", "notify"})
        options: dict[str, Any] = {name: value for name, value in kept.items() if value is not None}
        if self.from_weights is not None:
            options["weights"] = self.from_weights
        first, *joined = map(Path, self.data)
        return TrainSpec(
            first, self.name, options, key, self.notify, need_worker=False, joined=tuple(joined), quality=self.quality,
            priority=self.priority, roots=roots,
        )  # fmt: skip


class EvaluateBody(_Body):
    """Evaluate a model on labelled images."""

    kind: Literal["evaluate"]
    model: ModelRef
    data: PathOf
    output: PathOf | None = Field(None, description="The folder to create; null: one in the job's folder.")
    part: DataPart = Field("all", description="Use only the images of this part.")
    precision: WantedPrecision = "auto"
    layout: Layout | None = None
    priority: Urgency = "normal"
    notify: Notify = None

    def spec(self, roots: Roots, key: str | None) -> AnySpec:
        """What the command line would make of it."""
        return EvaluateSpec(
            self.model, Path(self.data), _path(self.output), self.part, self.precision, self.layout, key,
            self.notify, need_worker=False, priority=self.priority, roots=roots,
        )  # fmt: skip


JobBody = Annotated[ClassifyBody | TrainBody | EvaluateBody, Field(discriminator="kind")]


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)
