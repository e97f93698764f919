"""Checks an operator's spec once, and resolves all names in it.

Submitting, `classify --plan` and the check before a local stack is started use the same prepared job. Preparing needs
no server, writes nothing but the cache, and does not read standard input.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, overload

from modeling.names import path_to_text
from modeling.registry.store import check_model_name
from modeling.training.request import TrainOptions
from orchestrator.contract.errors import UsageError
from orchestrator.contract.jobs.formats import Format
from orchestrator.contract.jobs.requests import (
    AnyJobRequest,
    ClassifyRequest,
    EvaluateJobRequest,
    Kind,
    SourceReading,
    TrainJobRequest,
    fingerprint,
)
from orchestrator.contract.jobs.rows import format_of
from orchestrator.contract.settings import Settings
from orchestrator.contract.webhooks.secret import read_secrets
from orchestrator.contract.webhooks.target import check_target
from orchestrator.jobs.early_check import check_paths
from orchestrator.jobs.inputs import (
    choose_data,
    count_labelled,
    lacking_labels,
)
from orchestrator.jobs.merging.base import NewManifest
from orchestrator.jobs.merging.merge import Merge
from orchestrator.jobs.merging.since import merge_since
from orchestrator.jobs.outputs import check_folder, check_manifest
from orchestrator.jobs.pinned import PinnedModel, check_precision, pin_model
from orchestrator.jobs.shard_size import LOW_SHARD_S, MERGE_SHARD_S, SAMPLE_IMAGES, SHARD_S, SMALLEST, choose_shard_size
from orchestrator.jobs.skipped import describe_skipped
from orchestrator.jobs.sources import Source, open_source
from orchestrator.jobs.specs import AnySpec, ClassifySpec, EvaluateSpec, TrainSpec, check_paths_of
from orchestrator.jobs.training import ResolvedTraining, as_chosen_before, resolve_training
from orchestrator.jobs.walk import SourceOptions


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
    notify: str | None
    merge: Merge | None = None  # with the rows of an earlier manifest

    @property
    def claimed_output(self) -> str:
        """The path that only this job may write; empty if it is in the job's folder."""
        return path_to_text(str(self.output)) if self.output else ""

    def check_new(self) -> None:
        """Raises UsageError where a new job is impossible, though an earlier one with the same key may have succeeded.

        That one may have written the output, and its images may have been moved since.
        """
        if self.output is not None:
            replaces = self.merge is not None and self.merge.replaced
            check_manifest(self.output, overwrite=self.spec.overwrite or replaces, source=Path(self.spec.source))
        if not self.source.is_stream and (self.merge is None or self.merge.kind != "retry"):
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
        seconds = MERGE_SHARD_S if self.merge else LOW_SHARD_S if self.spec.priority == "low" else SHARD_S
        return choose_shard_size(self.model.version.artifacts, self.spec.precision, images, batch_size, seconds)

    def request(self, job: str) -> ClassifyRequest:
        """The request of the new job; measures its shard size."""
        output = self.output or self.settings.jobs / job / f"manifest.{self.output_format}"
        shard_size = self.shard_size(self.first_paths())
        return self._build(job, path_to_text(str(output)), shard_size)

    def new_manifest(self) -> NewManifest:
        """What is compared with the manifest that the job goes on from."""
        return NewManifest(
            model=self.model.pin,
            root=path_to_text(self.source.root),
            output=self.output,
            output_format=self.output_format,
            top_k=self._top_k,
            precision=self.spec.precision,
            follow_symlinks=self.spec.reading.follow_symlinks,
            checksum=self.spec.checksum,
        )

    def repeats(self, earlier: AnyJobRequest) -> bool:
        if not isinstance(earlier, ClassifyRequest):
            return False
        output = self.claimed_output or earlier.output
        return fingerprint(self._build(earlier.job, output, earlier.shard_size)) == fingerprint(earlier)

    @property
    def _can_be_listed_again(self) -> bool:
        is_own = (
            self.merge is None and self.spec.rerun_of is None
        )  # the manifests of others may have been replaced then
        return is_own and not self.source.is_stream

    @property
    def _top_k(self) -> int:
        return min(self.spec.top_k, len(self.model.card.labels))

    def _build(self, job: str, output: str, shard_size: int) -> ClassifyRequest:
        return ClassifyRequest(
            job=job,
            created=datetime.now(UTC),
            source=path_to_text(self.source.text),
            root=path_to_text(self.source.root),
            follow_symlinks=self.spec.reading.follow_symlinks,
            reading=reading_of(self.source, self.spec.reading) if self._can_be_listed_again else None,
            model=self.model.pin,
            output=output,
            output_format=self.output_format,
            overwrite=self.spec.overwrite,
            top_k=self._top_k,
            shard_size=shard_size,
            precision=self.spec.precision,
            checksum=self.spec.checksum,
            since=self.spec.since,
            base=self.merge.to_request() if self.merge else None,
            rerun_of=self.spec.rerun_of,
            max_failures=self.spec.max_failures,
            priority=self.spec.priority,
            idempotency_key=self.spec.idempotency_key,
            notify=self.notify,
        )


@dataclass(frozen=True)
class PreparedTrain:
    """A checked training job."""

    kind: ClassVar[Kind] = "train"
    spec: TrainSpec
    resolved: ResolvedTraining
    new_labels: tuple[str, ...]  # those that the model which is trained further does not know
    notify: str | None
    claimed_output: ClassVar[str] = ""  # versions of a model never clash

    @property
    def options(self) -> TrainOptions:
        return self.resolved.options

    @property
    def num_images(self) -> int:
        return self.resolved.num_images

    def check_new(self) -> None:
        """Does nothing: a training can always be repeated."""

    def repeats(self, earlier: AnyJobRequest) -> bool:
        if not isinstance(earlier, TrainJobRequest):
            return False
        mine = self.request(earlier.job)
        train = as_chosen_before(mine.train, earlier.train, self.spec)
        return fingerprint(mine.model_copy(update={"train": train})) == fingerprint(earlier)

    def request(self, job: str) -> TrainJobRequest:
        return TrainJobRequest(
            job=job,
            created=datetime.now(UTC),
            source=" ".join(path_to_text(str(path)) for path in (self.spec.data, *self.spec.joined)),
            name=self.spec.name,
            train=self.options.to_json(),
            priority=self.spec.priority,
            idempotency_key=self.spec.idempotency_key,
            notify=self.notify,
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
    notify: str | None

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
            priority=self.spec.priority,
            idempotency_key=self.spec.idempotency_key,
            notify=self.notify,
        )


Prepared = PreparedClassify | PreparedTrain | PreparedEvaluate


@overload
def prepare(settings: Settings, spec: ClassifySpec) -> PreparedClassify: ...
@overload
def prepare(settings: Settings, spec: TrainSpec) -> PreparedTrain: ...
@overload
def prepare(settings: Settings, spec: EvaluateSpec) -> PreparedEvaluate: ...
def prepare(settings: Settings, spec: AnySpec) -> Prepared:
    """Check all that can be checked without a server.

    Where the spec has an idempotency key, `check_new` is left to `JobClient.submit`, which knows whether a job with
    that key exists. Raises PigeonholeError (or modeling's ModelingError) if the spec cannot be carried out.
    """
    check_paths_of(spec)
    notify = _check_notify(settings, spec.notify)
    match spec:
        case ClassifySpec():
            prepared: Prepared = _prepare_classify(settings, spec, notify)
        case TrainSpec():
            prepared = _prepare_train(settings, spec, notify)
        case EvaluateSpec():
            prepared = _prepare_evaluate(settings, spec, notify)
    if not spec.idempotency_key:
        prepared.check_new()
    return prepared


def _check_notify(settings: Settings, url: str | None) -> str | None:
    """Who is notified when the job ends: the spec's URL, else that of the settings.

    Raises UsageError where it could not be told.
    """
    url = settings.notify if url is None else url
    if url is None:
        return None
    check_target(url, settings.notify_networks)
    read_secrets(settings)
    return url


def _prepare_classify(settings: Settings, spec: ClassifySpec, notify: str | None) -> PreparedClassify:
    source = open_source(spec.source, spec.reading)
    if spec.roots is not None:
        spec.roots.check("the folder of the source's paths", source.root)  # that of a manifest is in its summary
    model = pin_model(settings, spec.model)
    check_precision(model, spec.precision)
    output = _absolute(spec.output)
    output_format = spec.output_format or (format_of(output) if output else "csv")
    prepared = PreparedClassify(settings, spec, source, model, output, output_format, notify)
    if spec.since is None:
        return prepared
    merge = merge_since(settings, spec.since, source, prepared.new_manifest())
    spec = replace(spec, checksum=merge.base.has_checksums)  # digests are kept up once they are there
    return replace(prepared, spec=spec, merge=merge)


def _prepare_train(settings: Settings, spec: TrainSpec, notify: str | None) -> PreparedTrain:
    check_model_name(spec.name)
    resolved = resolve_training(settings, spec)
    return PreparedTrain(spec, resolved, lacking_labels(resolved.options.weights, resolved.labels), notify)


def _prepare_evaluate(settings: Settings, spec: EvaluateSpec, notify: str | None) -> PreparedEvaluate:
    model = pin_model(settings, spec.model)
    check_precision(model, spec.precision)
    data = choose_data(spec.data)
    num_images = count_labelled(data, spec.part, model.card, spec.layout, spec.roots)
    return PreparedEvaluate(spec, model, data, _absolute(spec.output), num_images, notify)


def reading_of(source: Source, options: SourceOptions) -> SourceReading:
    """How a source is read again, from any folder."""
    absolute = os.path.join(os.getcwd(), source.text)  # noqa: PTH109, PTH118 the name may be a glob, or not UTF-8
    root = path_to_text(source.root) if source.is_list else None
    return SourceReading(
        source=path_to_text(absolute), recursive=options.recursive, all_files=options.all_files, root=root
    )


def _absolute(output: Path | None) -> Path | None:
    return None if output is None else Path(os.path.abspath(output))  # noqa: PTH100 links are kept, as in choose_data


def describe_new_labels(prepared: PreparedTrain, limit: int = 50) -> str:
    """The labels that a training adds to the model that it goes on from, since a mistyped label is one; else empty."""
    shown = ", ".join(map(repr, prepared.new_labels[:limit]))
    more = f" and {len(prepared.new_labels) - limit:,} more" if len(prepared.new_labels) > limit else ""
    return f"{prepared.spec.options['weights']} does not know {shown}{more}: learned as new labels" if shown else ""
