"""What operators ask for, and the checks that need no server: a mistake is told before anything is started."""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from modeling.errors import ModelNameError, ModelNotFoundError
from modeling.evaluation.request import DataPart
from modeling.inference.engines.choice import WantedPrecision
from modeling.names import path_to_text
from modeling.networks.weights import DEFAULT as IMAGENET
from modeling.networks.weights import check_weights
from modeling.registry.card import CARD_FILE, INT8_FILE, ModelCard
from modeling.registry.store import ModelStore, check_model_name
from modeling.training.request import TrainRequest
from orchestrator.contract.errors import NotFoundError, UsageError
from orchestrator.contract.jobs.requests import MaxFailures, ModelPin
from orchestrator.contract.jobs.rows import format_of, summary_path
from orchestrator.contract.settings import Settings
from orchestrator.jobs.shard_size import SAMPLE_IMAGES, SMALLEST, choose_shard_size
from orchestrator.jobs.sources import Source, SourceOptions, open_source

DEFAULT_ARCHITECTURE = "cnn"


@dataclass(frozen=True)
class ClassifySpec:
    """What an operator asks for, as the command line takes it."""

    source: str
    model: str
    output: Path | None = None  # None: in the job's folder
    output_format: str | None = None  # None: by the output's name
    overwrite: bool = False
    top_k: int = 5
    shard_size: int | None = None  # None: by measurement
    precision: WantedPrecision = "auto"
    max_failures: MaxFailures | None = None
    idempotency_key: str | None = None
    need_worker: bool = True  # refuse to submit where nobody would do the work
    reading: SourceOptions = field(default_factory=SourceOptions)


@dataclass(frozen=True)
class TrainSpec:
    """What an operator asks for, as the command line takes it."""

    data: Path
    name: str
    options: dict[str, object]  # of modeling's TrainRequest
    idempotency_key: str | None = None
    need_worker: bool = True


@dataclass(frozen=True)
class EvaluateSpec:
    """What an operator asks for, as the command line takes it."""

    model: str
    data: Path
    output: Path | None = None  # a folder that is not there yet; None: in the job's folder
    part: DataPart = "all"
    idempotency_key: str | None = None
    need_worker: bool = True


def check_classify(settings: Settings, spec: ClassifySpec) -> None:
    """Raises what `submit_classify` would, as far as it can be told without a server; `-` is left unread."""
    if spec.source != "-":
        require_images(open_source(spec.source, spec.reading))
    pin_model(settings, spec.model)
    check_precision(settings, spec)
    output, _ = choose_output(settings, spec, "")
    check_output(output, overwrite=spec.overwrite, in_job_folder=spec.output is None)


def check_precision(settings: Settings, spec: ClassifySpec) -> None:
    """Raises where the model has no weights of the precision; what a worker's processor lacks, the job will tell."""
    store = ModelStore(settings.models)
    version = store.resolve(spec.model)
    if spec.precision == "int8" and not (version.path / INT8_FILE).is_file():
        why = store.card(spec.model).why_no_int8()
        raise UsageError(f"--precision int8: {version.ref} {why}; leave the precision to auto")


def check_train(settings: Settings, spec: TrainSpec) -> None:
    """Raises what `submit_train` would, as far as it can be told without a server."""
    count_images(train_request(settings, spec).data)


def check_evaluate(settings: Settings, spec: EvaluateSpec) -> None:
    """Raises what `submit_evaluate` would, as far as it can be told without a server."""
    _, card = pin_model(settings, spec.model)
    count_labelled(choose_data(spec.data), spec.part, card)
    check_folder(choose_folder(spec.output))


def count_images(data: Path) -> int:
    """The number of images in a data set to train on, none of which is opened.

    Raises:
        DataError: it is no data set, or one of which it is plain that nothing can be trained on it.
    """
    from modeling.data.forms.open import check_learnable, open_dataset  # numpy: only where labelled data is looked at

    dataset = open_dataset(data)
    check_learnable(dataset)
    return dataset.num_images


def count_labelled(data: Path, part: DataPart, card: ModelCard) -> int:
    """The number of images in a data set of which `part` is to be evaluated; none is opened.

    Raises:
        DataError: it is no data set, or has images of a class that the model does not know. Which images a part
            holds is for the evaluation to find out.
    """
    import numpy as np

    from modeling.data.forms.open import open_dataset
    from modeling.evaluation.gather import model_targets

    dataset = open_dataset(data)
    if part == "all":
        model_targets(dataset, np.arange(dataset.num_images), card.labels)
    return dataset.num_images


def require_images(source: Source) -> None:
    if not source.peek():
        raise UsageError(f"{source.text!r} holds no images{_describe_skipped(source)}")


def first_paths(spec: ClassifySpec, source: Source) -> list[str]:
    """The paths of a source that `shard_size_of` looks at; they will still be yielded."""
    return source.peek(1 if _streams(spec) else SMALLEST + 1)


def _streams(spec: ClassifySpec) -> bool:
    """Whether the source is a pipe: whoever writes to it may think about its second path."""
    return spec.source == "-"


def shard_size_of(settings: Settings, spec: ClassifySpec, source: Source, first: Sequence[str], pin: ModelPin) -> int:
    """The size that the operator names, or that suits the model and the first paths of the source."""
    if spec.shard_size is not None:
        return spec.shard_size
    if len(first) <= SMALLEST and not _streams(spec):
        return SMALLEST  # it is one shard in any case
    images = [os.path.join(source.root, path) for path in first[:SAMPLE_IMAGES]]  # noqa: PTH118 names that are no UTF-8
    artifacts = ModelStore(settings.models).resolve(pin.ref).artifacts
    return choose_shard_size(artifacts, spec.precision, images, settings.batch_size)


def pin_model(settings: Settings, model: str) -> tuple[ModelPin, ModelCard]:
    """The version that `model` means at this moment, and its card."""
    store = ModelStore(settings.models)
    version = store.resolve(model)
    card = store.card(version.ref)
    pin = ModelPin(
        name=version.name,
        number=version.version,
        digest=version.digest,
        preprocessing_digest=card.preprocessing.digest,
    )
    return pin, card


def train_request(settings: Settings, spec: TrainSpec) -> TrainRequest:
    """What the worker's training gets, checked."""
    check_model_name(spec.name)
    options = {"architecture": DEFAULT_ARCHITECTURE} | spec.options
    wanted = spec.options.get("weights")
    if isinstance(wanted, str):
        weights, architecture = choose_weights(settings, wanted)
        options = {"architecture": architecture} | spec.options | {"weights": weights}
    request = TrainRequest.from_json(options | {"data": str(choose_data(spec.data)), "output": "model"})
    if request.weights is not None:
        check_weights(request.architecture, request.weights)
    return request


def choose_weights(settings: Settings, wanted: str) -> tuple[str, str]:
    """Weights as a worker finds them, and the architecture to take where none is named: that of a model, if it is one.

    A name of pre-trained weights stays what it is; a published model becomes its version's folder, so that an alias
    that moves changes nothing; a file or a folder gets its absolute path.

    Raises:
        ModelNotFoundError: there is no version such as `birds@9`.
    """
    if wanted == IMAGENET:
        return wanted, DEFAULT_ARCHITECTURE
    path = _published(ModelStore(settings.models), wanted) or Path(os.path.abspath(wanted))  # noqa: PTH100 as choose_data
    if not path.exists():
        return wanted, DEFAULT_ARCHITECTURE
    _check_is_text(path)
    card = path / CARD_FILE
    if not card.is_file():
        return str(path), DEFAULT_ARCHITECTURE
    return str(path), ModelCard.from_bytes(card.read_bytes(), card).architecture


def _published(store: ModelStore, wanted: str) -> Path | None:
    """The folder of the version that `wanted` means; None where it means no model."""
    try:
        return store.resolve(wanted).path
    except ModelNameError:
        return None
    except ModelNotFoundError:
        if "@" in wanted:
            raise
        return None


def choose_data(data: Path) -> Path:
    """The absolute path of labelled data that exists."""
    path = Path(os.path.abspath(data))  # noqa: PTH100 links are kept: the operator's own name
    _check_is_text(path)
    if not path.exists():
        raise NotFoundError(
            f"there is no {str(data)!r}; give a folder per class, idx files, or a list of path and label"
        )
    return path


def choose_folder(output: Path | None) -> Path | None:
    """The absolute path of a folder to publish; None where one in the job's own is meant."""
    return None if output is None else Path(os.path.abspath(output))  # noqa: PTH100 as choose_data


def check_folder(output: Path | None) -> None:
    """Raises UsageError where the folder exists already, or could not be made in the end."""
    if output is None:
        return
    if os.path.lexists(output):
        raise UsageError(f"output {str(output)!r} exists; name a folder that does not")
    _check_is_writable(output)


def choose_output(settings: Settings, spec: ClassifySpec, job: str) -> tuple[Path, str]:
    """Where the manifest goes, and in which format."""
    if spec.output is None:
        output_format = spec.output_format or "csv"
        return settings.jobs / job / f"manifest.{output_format}", output_format
    output = Path(os.path.abspath(spec.output))  # noqa: PTH100 links are kept: the operator's own name
    return output, spec.output_format or format_of(output)


def check_output(output: Path, *, overwrite: bool, in_job_folder: bool) -> None:
    """Raises UsageError where the manifest could not be written there in the end."""
    if in_job_folder:
        return
    if output.is_dir():
        raise UsageError(f"output {str(output)!r} is a folder; name a file in it")
    _check_is_writable(output)
    for path in (output, summary_path(output)):
        if os.path.lexists(path) and not path.is_file():
            raise UsageError(f"output {str(path)!r} is no regular file; name another")
        if path.exists() and not overwrite:
            raise UsageError(f"{str(path)!r} exists; name another output, or replace it with --overwrite")


def _check_is_writable(output: Path) -> None:
    """Raises UsageError where neither `output` nor a summary beside it could be made."""
    folder = output.parent
    if not folder.is_dir():
        raise UsageError(f"there is no folder {str(folder)!r} for the output; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write to the folder {str(folder)!r} of the output")
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=summary_path(output).name):
            pass  # read-only mounts, full quotas and names too long say so only when asked for a file
    except OSError as err:
        raise UsageError(f"output {str(output)!r} cannot be written: {err.strerror}") from err


def _check_is_text(path: Path) -> None:
    """Raises UsageError for a name that is not UTF-8: a training request is JSON."""
    if path_to_text(str(path)) != str(path):
        raise UsageError(f"the name of {path_to_text(str(path))!r} is not UTF-8; rename the folder, or link to it")


def _describe_skipped(source: Source) -> str:
    """What was seen instead of images."""
    if not source.skipped:
        return ""
    counts = ", ".join(f"{count} {reason}" for reason, count in sorted(source.skipped.items()))
    return f"; left out: {counts}"
