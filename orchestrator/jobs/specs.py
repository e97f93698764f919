"""What operators ask for, as the command line takes it; `prepare.py` checks it."""

from dataclasses import dataclass, field
from pathlib import Path

from modeling.data.layout import DataPart, Layout
from modeling.inference.engines.precision import WantedPrecision
from modeling.networks.pretrained.at_hand import OnRead
from modeling.networks.quality import Quality
from orchestrator.contract.jobs.formats import Format
from orchestrator.contract.jobs.requests import MaxFailures
from orchestrator.contract.ledger.words import Priority
from orchestrator.contract.messages import JOB_ID
from orchestrator.jobs.roots import Roots
from orchestrator.jobs.walk import SourceOptions


@dataclass(frozen=True)
class ClassifySpec:
    """Classify the images of `source` with `model`."""

    source: str
    model: str
    output: Path | None = None  # None: in the job's folder
    output_format: Format | None = None  # None: by the suffix of the output's name
    overwrite: bool = False
    top_k: int = 5
    shard_size: int | None = None  # None: by measurement
    precision: WantedPrecision = "auto"
    checksum: bool = False  # whether the sidecar gets a digest of each image
    since: str | None = None  # a job or a manifest: only what is new since, or has changed, is classified
    rerun_of: str | None = None  # the job that this one repeats
    max_failures: MaxFailures | None = None
    idempotency_key: str | None = None
    notify: str | None = None  # URL; None: that of the settings, if they have one
    need_worker: bool = True  # refuse to submit where no worker listens
    reading: SourceOptions = field(default_factory=SourceOptions)
    priority: Priority = "normal"
    roots: Roots | None = None  # of every path in it; None: any path


@dataclass(frozen=True)
class TrainSpec:
    """Train a model on `data` and publish it as `name`."""

    data: Path
    name: str
    options: dict[str, object]  # of modeling's TrainOptions, without `data` and `joined`
    idempotency_key: str | None = None
    notify: str | None = None  # URL; None: that of the settings, if they have one
    need_worker: bool = True
    joined: tuple[Path, ...] = ()  # further data sets, which count together with `data`
    quality: Quality | None = None  # of the network that is chosen where `options` name none; None: the default
    on_read: OnRead = lambda path: None  # called before weights are read whole: large ones take seconds
    priority: Priority = "normal"
    roots: Roots | None = None


@dataclass(frozen=True)
class EvaluateSpec:
    """Evaluate `model` on the labelled images of `data`."""

    model: str
    data: Path
    output: Path | None = None  # a folder that does not exist yet; None: in the job's folder
    part: DataPart = "all"
    precision: WantedPrecision = "auto"
    layout: Layout | None = None
    idempotency_key: str | None = None
    notify: str | None = None  # URL; None: that of the settings, if they have one
    need_worker: bool = True
    priority: Priority = "normal"
    roots: Roots | None = None


AnySpec = ClassifySpec | TrainSpec | EvaluateSpec


def check_paths_of(spec: AnySpec) -> None:
    """Raises OutsideRootsError where a path that the spec names is below none of its roots."""
    roots = spec.roots
    if roots is None:
        return
    match spec:
        case ClassifySpec():
            roots.check_source(spec.source)
            if spec.reading.root is not None:
                roots.check("root", spec.reading.root)
            if spec.since is not None and not JOB_ID.fullmatch(spec.since):
                roots.check("since", spec.since)
        case TrainSpec():
            for data in (spec.data, *spec.joined):
                roots.check("data", data)
            if "weights" in spec.options:
                roots.check_weights(str(spec.options["weights"]))
        case EvaluateSpec():
            roots.check("data", spec.data)
    if not isinstance(spec, TrainSpec) and spec.output is not None:
        roots.check("output", spec.output)
