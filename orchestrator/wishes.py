"""What operators ask for, and the checks that need no server: a mistake is told before anything is started."""

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from modeling.store import ModelStore, check_model_name
from modeling.train_request import TrainRequest
from orchestrator.contract.errors import NotFoundError, UsageError
from orchestrator.contract.paths import path_to_text
from orchestrator.contract.requests import MaxFailures, ModelPin
from orchestrator.contract.rows import format_of
from orchestrator.contract.settings import Settings
from orchestrator.contract.summary import summary_path
from orchestrator.sources import Source, SourceOptions, open_source


@dataclass(frozen=True)
class ClassifyWish:
    """What an operator asks for, as the command line takes it."""

    source: str
    model: str
    output: Path | None = None  # None: in the job's folder
    output_format: str | None = None  # None: by the output's name
    overwrite: bool = False
    top_k: int = 5
    shard_size: int = 512
    max_failures: MaxFailures | None = None
    idempotency_key: str | None = None
    need_worker: bool = True  # refuse to submit where nobody would do the work
    reading: SourceOptions = field(default_factory=SourceOptions)


@dataclass(frozen=True)
class TrainWish:
    """What an operator asks for, as the command line takes it."""

    data: Path
    name: str
    options: dict[str, object]  # of modeling's TrainRequest
    idempotency_key: str | None = None
    need_worker: bool = True


def check_classify(settings: Settings, wish: ClassifyWish) -> None:
    """Raises what `submit_classify` would, as far as it can be told without a server; `-` is left unread."""
    if wish.source != "-":
        require_images(open_source(wish.source, wish.reading))
    pin_model(settings, wish.model)
    output, _ = choose_output(settings, wish, "")
    check_output(output, overwrite=wish.overwrite, in_job_folder=wish.output is None)


def check_train(settings: Settings, wish: TrainWish) -> None:
    """Raises what `submit_train` would, as far as it can be told without a server."""
    from modeling.datasets import open_dataset

    open_dataset(train_request(wish).data)


def require_images(source: Source) -> None:
    if not source.peek():
        raise UsageError(f"{source.text!r} holds no images{_describe_skipped(source)}")


def pin_model(settings: Settings, model: str) -> tuple[ModelPin, int]:
    """The version that `model` means at this moment, and its number of labels."""
    store = ModelStore(settings.models)
    version = store.resolve(model)
    card = store.card(version.ref)
    pin = ModelPin(
        name=version.name,
        number=version.version,
        digest=version.digest,
        preprocessing_digest=card.preprocessing.digest,
    )
    return pin, len(card.labels)


def train_request(wish: TrainWish) -> TrainRequest:
    """What the worker's training gets, checked."""
    check_model_name(wish.name)
    data = Path(os.path.abspath(wish.data))  # noqa: PTH100 links are kept: the operator's own name
    _check_is_text(data)
    if not data.exists():
        raise NotFoundError(f"there is no {str(wish.data)!r}; give a folder per class, or one with MNIST idx files")
    return TrainRequest.from_json(wish.options | {"data": str(data), "output": "model"})


def choose_output(settings: Settings, wish: ClassifyWish, job: str) -> tuple[Path, str]:
    """Where the manifest goes, and in which format."""
    if wish.output is None:
        output_format = wish.output_format or "csv"
        return settings.jobs / job / f"manifest.{output_format}", output_format
    output = Path(os.path.abspath(wish.output))  # noqa: PTH100 links are kept: the operator's own name
    return output, wish.output_format or format_of(output)


def check_output(output: Path, *, overwrite: bool, in_job_folder: bool) -> None:
    """Raises UsageError where the manifest could not be written there in the end."""
    if in_job_folder:
        return
    folder = output.parent
    if not folder.is_dir():
        raise UsageError(f"there is no folder {str(folder)!r} for the output; make it first")
    if output.is_dir():
        raise UsageError(f"output {str(output)!r} is a folder; name a file in it")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write to the folder {str(folder)!r} of the output")
    for path in (output, summary_path(output)):
        if os.path.lexists(path) and not path.is_file():
            raise UsageError(f"output {str(path)!r} is no regular file; name another")
        if path.exists() and not overwrite:
            raise UsageError(f"{str(path)!r} exists; name another output, or replace it with --overwrite")
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
