"""Checks an operator's spec once, and resolves all names in it.

Submitting, `classify --plan` and the check before a local stack is started use the same prepared job. Preparing needs
no server, writes nothing, and does not read standard input.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, overload

from modeling.inference.engines.choice import WantedPrecision
from modeling.names import path_to_text
from modeling.networks.weights import check_weights
from modeling.registry.card import INT8_FILE, ModelCard
from modeling.registry.store import ModelStore, ModelVersion, check_model_name
from modeling.training.request import TrainOptions
from orchestrator.contract.errors import UsageError
from orchestrator.contract.jobs.requests import (
    AnyJobRequest,
    ClassifyRequest,
    EvaluateJobRequest,
    Format,
    Kind,
    ModelPin,
    TrainJobRequest,
    fingerprint,
)
from orchestrator.contract.jobs.rows import format_of
from orchestrator.contract.settings import Settings
from orchestrator.jobs.early_check import check_paths
from orchestrator.jobs.inputs import (
    DEFAULT_ARCHITECTURE,
    architecture_of_weights,
    choose_data,
    choose_weights,
    count_images,
    count_labelled,
    is_file_of_weights,
    lacking_labels,
)
from orchestrator.jobs.outputs import check_folder, check_manifest
from orchestrator.jobs.shard_size import SAMPLE_IMAGES, SMALLEST, choose_shard_size
from orchestrator.jobs.sources import Source, open_source
from orchestrator.jobs.specs import ClassifySpec, EvaluateSpec, TrainSpec


@dataclass(frozen=True)
class PinnedModel:
    """The version that the operator's reference stands for now, and its card."""

    version: ModelVersion
    card: ModelCard

    @property
    def pin(self) -> ModelPin:
        """As a request holds it."""
        return ModelPin(
            name=self.version.name,
            number=self.version.version,
            digest=self.version.digest,
            preprocessing_digest=self.card.preprocessing.digest,
        )


@dataclass(frozen=True)
class PreparedClassify:
    """A checked classify job. Its source can be read once: submit the job or plan it, not both."""

    kind: ClassVar[Kind] = "classify"
    settings: Settings
    spec: ClassifySpec
    source: Source
    model: PinnedModel
    output: Path | None  # absolute; None: in the job's folder
    output_format: Format

    @property
    def claimed_output(self) -> str:
        """The path that only this job may write; empty if it is in the job's folder."""
        return path_to_text(str(self.output)) if self.output else ""

    def check_new(self) -> None:
        """Raises UsageError where a new job is impossible, though an earlier one with the same key may have succeeded.

        That one may have written the output, and its images may have been moved since.
        """
        if self.output is not None:
            check_manifest(self.output, overwrite=self.spec.overwrite, source=Path(self.spec.source))
        if not self.source.is_stream:
            self.first_paths()
            reading = self.spec.reading
            check_paths(
                self.source,
                lambda: open_source(self.spec.source, reading),
                follow_symlinks=reading.follow_symlinks,
            )

    def first_paths(self) -> list[str]:
        """The paths that the shard size depends on; the source still yields them.

        Raises UsageError where the source holds no images.
        """
        first = self.source.peek(1 if self.source.is_stream else SMALLEST + 1)
        if not first:
            raise UsageError(
                f"{self.source.text!r} holds no images{describe_skipped(self.source.skipped)}{self.source.hint}"
            )
        return first

    def shard_size(self, first: Sequence[str]) -> int:
        """The size that the operator names, or that suits the model and the first paths of the source."""
        if self.spec.shard_size is not None:
            return self.spec.shard_size
        if len(first) <= SMALLEST and not self.source.is_stream:
            return SMALLEST  # one shard in any case
        root = self.source.root
        images = [os.path.join(root, path) for path in first[:SAMPLE_IMAGES]]  # noqa: PTH118 names may not be UTF-8
        batch_size = self.settings.batch_size
        return choose_shard_size(self.model.version.artifacts, self.spec.precision, images, batch_size)

    def request(self, job: str) -> ClassifyRequest:
        """The request of the new job; measures its shard size."""
        output = self.output or self.settings.jobs / job / f"manifest.{self.output_format}"
        shard_size = self.shard_size(self.first_paths())
        return self._build(job, path_to_text(str(output)), shard_size)

    def repeats(self, earlier: AnyJobRequest) -> bool:
        if not isinstance(earlier, ClassifyRequest):
            return False
        output = self.claimed_output or earlier.output
        return fingerprint(self._build(earlier.job, output, earlier.shard_size)) == fingerprint(earlier)

    def _build(self, job: str, output: str, shard_size: int) -> ClassifyRequest:
        return ClassifyRequest(
            job=job,
            created=datetime.now(UTC),
            source=path_to_text(self.source.text),
            root=path_to_text(self.source.root),
            follow_symlinks=self.spec.reading.follow_symlinks,
            model=self.model.pin,
            output=output,
            output_format=self.output_format,
            overwrite=self.spec.overwrite,
            top_k=min(self.spec.top_k, len(self.model.card.labels)),
            shard_size=shard_size,
            precision=self.spec.precision,
            max_failures=self.spec.max_failures,
            idempotency_key=self.spec.idempotency_key,
        )


@dataclass(frozen=True)
class PreparedTrain:
    """A checked training job."""

    kind: ClassVar[Kind] = "train"
    spec: TrainSpec
    options: TrainOptions
    num_images: int
    new_labels: tuple[str, ...]  # those that the model which is trained further does not know
    notes: tuple[str, ...]  # about the data
    claimed_output: ClassVar[str] = ""  # versions of a model never clash

    def check_new(self) -> None:
        """Does nothing: a training can always be repeated."""

    def repeats(self, earlier: AnyJobRequest) -> bool:
        return fingerprint(self.request(earlier.job)) == fingerprint(earlier)

    def request(self, job: str) -> TrainJobRequest:
        return TrainJobRequest(
            job=job,
            created=datetime.now(UTC),
            source=" ".join(path_to_text(str(path)) for path in (self.spec.data, *self.spec.joined)),
            name=self.spec.name,
            train=self.options.to_json(),
            idempotency_key=self.spec.idempotency_key,
        )


@dataclass(frozen=True)
class PreparedEvaluate:
    """A checked evaluation."""

    kind: ClassVar[Kind] = "evaluate"
    spec: EvaluateSpec
    model: PinnedModel
    data: Path  # absolute
    output: Path | None  # absolute; None: in the job's folder
    num_images: int

    @property
    def claimed_output(self) -> str:
        """The path that only this job may write; empty if it is in the job's folder."""
        return path_to_text(str(self.output)) if self.output else ""

    def check_new(self) -> None:
        """Raises UsageError where the output exists, which an earlier job with the same key may have written."""
        if self.output is not None:
            check_folder(self.output)

    def repeats(self, earlier: AnyJobRequest) -> bool:
        return fingerprint(self.request(earlier.job)) == fingerprint(earlier)

    def request(self, job: str) -> EvaluateJobRequest:
        return EvaluateJobRequest(
            job=job,
            created=datetime.now(UTC),
            source=path_to_text(str(self.spec.data)),
            model=self.model.pin,
            data=str(self.data),
            part=self.spec.part,
            precision=self.spec.precision,
            layout=self.spec.layout,
            output=self.claimed_output or None,
            idempotency_key=self.spec.idempotency_key,
        )


Prepared = PreparedClassify | PreparedTrain | PreparedEvaluate


@overload
def prepare(settings: Settings, spec: ClassifySpec) -> PreparedClassify: ...
@overload
def prepare(settings: Settings, spec: TrainSpec) -> PreparedTrain: ...
@overload
def prepare(settings: Settings, spec: EvaluateSpec) -> PreparedEvaluate: ...
def prepare(settings: Settings, spec: ClassifySpec | TrainSpec | EvaluateSpec) -> Prepared:
    """Check all that can be checked without a server.

    Where the spec has an idempotency key, `check_new` is left to `JobClient.submit`, which knows whether a job with
    that key exists. Raises PigeonholeError (or modeling's ModelingError) if the spec cannot be carried out.
    """
    match spec:
        case ClassifySpec():
            prepared: Prepared = _prepare_classify(settings, spec)
        case TrainSpec():
            prepared = _prepare_train(settings, spec)
        case EvaluateSpec():
            prepared = _prepare_evaluate(settings, spec)
    if not spec.idempotency_key:
        prepared.check_new()
    return prepared


def _prepare_classify(settings: Settings, spec: ClassifySpec) -> PreparedClassify:
    source = open_source(spec.source, spec.reading)
    model = pin_model(settings, spec.model)
    check_precision(model, spec.precision)
    output = _absolute(spec.output)
    output_format = spec.output_format or (format_of(output) if output else "csv")
    return PreparedClassify(settings, spec, source, model, output, output_format)


def _prepare_train(settings: Settings, spec: TrainSpec) -> PreparedTrain:
    check_model_name(spec.name)
    options = {"architecture": DEFAULT_ARCHITECTURE} | spec.options
    wanted = spec.options.get("weights")
    if isinstance(wanted, str):
        weights, architecture = choose_weights(settings, wanted)
        options = {"architecture": architecture} | spec.options | {"weights": weights}
        if is_file_of_weights(weights):
            key = spec.options.get("weights_key")
            options["architecture"] = architecture_of_weights(weights, spec.options.get("architecture"), key)
    data, *joined = (str(choose_data(path)) for path in (spec.data, *spec.joined))
    checked = TrainOptions.from_json(options | {"data": data, "joined": joined})
    if checked.weights_key is not None and not is_file_of_weights(checked.weights):
        raise UsageError(
            f"--weights-key {checked.weights_key!r} is for a file of weights; give one with --from-weights"
        )
    if checked.weights is not None:
        check_weights(checked.architecture, checked.weights)
    counted = count_images((checked.data, *checked.joined), checked.layout)
    new_labels = lacking_labels(checked.weights, counted.labels)
    return PreparedTrain(spec, checked, counted.num_images, new_labels, counted.notes)


def _prepare_evaluate(settings: Settings, spec: EvaluateSpec) -> PreparedEvaluate:
    model = pin_model(settings, spec.model)
    check_precision(model, spec.precision)
    data = choose_data(spec.data)
    num_images = count_labelled(data, spec.part, model.card, spec.layout)
    return PreparedEvaluate(spec, model, data, _absolute(spec.output), num_images)


def pin_model(settings: Settings, ref: str) -> PinnedModel:
    """The version that `ref` stands for now.

    Raises ModelingError where there is no such version, or its card cannot be read.
    """
    version = ModelStore(settings.models).resolve(ref)
    return PinnedModel(version, version.card())


def check_precision(model: PinnedModel, precision: WantedPrecision) -> None:
    """Raises UsageError where the model has no int8 weights; does not check whether workers support int8."""
    if precision == "int8" and not (model.version.path / INT8_FILE).is_file():
        why = model.card.why_no_int8()
        raise UsageError(f"--precision int8: {model.version.ref} {why}; leave the precision to auto")


def _absolute(output: Path | None) -> Path | None:
    return None if output is None else Path(os.path.abspath(output))  # noqa: PTH100 links are kept, as in choose_data


def describe_new_labels(prepared: PreparedTrain, limit: int = 50) -> str:
    """The labels that a training adds to the model that it goes on from, since a mistyped label is one; else empty."""
    shown = ", ".join(map(repr, prepared.new_labels[:limit]))
    more = f" and {len(prepared.new_labels) - limit:,} more" if len(prepared.new_labels) > limit else ""
    return f"{prepared.spec.options['weights']} does not know {shown}{more}: learned as new labels" if shown else ""


def describe_skipped(skipped: Mapping[str, int]) -> str:
    """The files of a source that are not images, by reason."""
    if not skipped:
        return ""
    counts = ", ".join(f"{count} {reason}" for reason, count in sorted(skipped.items()))
    advice = "; unpack the archives if they hold images" if "archive" in skipped else ""
    return f"; left out: {counts}{advice}"
