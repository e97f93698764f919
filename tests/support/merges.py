"""A folder of images whose contents are their labels, classified without a server, and merged as jobs merge."""

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path

from modeling.inference.prediction import Prediction
from modeling.names import path_to_text, text_to_path
from orchestrator.contract.jobs.job_folder import JobFolder, Outcome, new_job_id
from orchestrator.contract.jobs.listing import ListingWriter, SourceFacts, count_shards, read_shard
from orchestrator.contract.jobs.parts import write_part
from orchestrator.contract.jobs.requests import ClassifyRequest, ModelPin
from orchestrator.contract.jobs.rows import Row
from orchestrator.contract.jobs.sidecar import AsRead
from orchestrator.contract.settings import Settings
from orchestrator.jobs.merging.base import Base, NewManifest, open_base
from orchestrator.jobs.merging.failed import FailedRows
from orchestrator.jobs.merging.merge import Merge
from orchestrator.jobs.merging.since import merge_since
from orchestrator.jobs.results import Published, find_latest, find_published
from orchestrator.jobs.sources import Source
from orchestrator.jobs.verification import verify
from tests.support.fakes import PIN, FakeFinalizeLease
from workers.classify.read import ImageReader, read_noted
from workers.finalize.publish import publish_manifest

_ERROR = Prediction(error_code="missing", error="there is no such file")


@dataclass
class Merges:
    """Images below `root`: one that holds `bad` cannot be decoded, any other has its content as its label.

    listed: the paths as the source yields them; None: all files in the order of their names.
    """

    settings: Settings
    root: Path
    outbox: Path
    row_format: str = "csv"
    model: ModelPin = PIN
    checksum: bool = False
    listed: Sequence[str] | None = None
    _fences: itertools.count = field(default_factory=lambda: itertools.count(100))

    def __post_init__(self) -> None:
        self.root.mkdir(exist_ok=True)
        self.outbox.mkdir(exist_ok=True)

    @property
    def output(self) -> Path:
        return self.outbox / f"out.{self.row_format}"

    def write(self, **contents: str) -> None:
        """Write images by name: `a="cat"` is `a.jpg`."""
        for name, content in contents.items():
            self.put(f"{name}.jpg", content)

    def put(self, path: str, content: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)

    def paths(self) -> list[str]:
        """What the source yields."""
        if self.listed is not None:
            return list(self.listed)
        found = [os.path.relpath(Path(at, name), self.root) for at, _, names in os.walk(self.root) for name in names]
        return sorted(found, key=lambda path: path.split("/"))

    def source(self) -> Source:
        return Source(
            str(self.root), str(self.root), iter(self.paths()), is_walked=self.listed is None,
            is_list=self.listed is not None,
        )  # fmt: skip

    def request(self, output: Path, **changes: object) -> ClassifyRequest:
        values = {
            "job": new_job_id("classify"),
            "created": datetime.now(UTC),
            "source": path_to_text(str(self.root)),
            "root": path_to_text(str(self.root)),
            "follow_symlinks": False,
            "model": self.model,
            "output": path_to_text(str(output)),
            "output_format": self.row_format,
            "overwrite": False,
            "top_k": 2,
            "shard_size": 4,
            "checksum": self.checksum,
        }
        return ClassifyRequest.model_validate(values | changes)

    # Jobs

    def full(self, output: Path | None = None) -> JobFolder:
        """A job of all images, published."""
        return self.publish(self.begin(self.request(output or self.output)))

    def begin_since(self, base: str | Path | None = None, output: Path | None = None) -> JobFolder:
        """A job of what is new since a manifest, classified and not yet published."""
        request = self.request(output or self.output)
        merge = merge_since(self.settings, str(base or self.output), self.source(), new_manifest(request))
        return self.begin(request.model_copy(update={"base": merge.to_request()}), merge)

    def since(self, base: str | Path | None = None, output: Path | None = None) -> JobFolder:
        return self.publish(self.begin_since(base, output))

    def begin_retry(self, job: str, *codes: str) -> JobFolder:
        """A job of the failed images, classified and not yet published."""
        base = open_base(find_latest(self.settings, job))
        merge = Merge("retry", base, replaced=True, selection=FailedRows(base, codes))
        return self.begin(self.request(self.output, base=merge.to_request()), merge)

    def retry(self, job: str, *codes: str) -> JobFolder:
        return self.publish(self.begin_retry(job, *codes))

    def begin(self, request: ClassifyRequest, merge: Merge | None = None) -> JobFolder:
        """List, and classify as a worker does."""
        folder = JobFolder.create(self.settings, request, base=merge.base.files if merge else None)
        SourceFacts.of(request.root, walked=self.listed is None).write(folder.work)
        paths = merge.paths(folder.work, iter(self.paths()), lambda num: None) if merge else iter(self.paths())
        with ListingWriter(folder.work, request.shard_size) as writer:
            for path in paths:
                writer.add(path)
            writer.close({})
        for shard in range(count_shards(folder.work)[0]):
            self._classify(folder, request, shard)
        return folder

    def _classify(self, folder: JobFolder, request: ClassifyRequest, shard: int) -> None:
        reader = ImageReader(request.root, follow_symlinks=False, max_file_bytes=1 << 20, checksum=request.checksum)
        paths = read_shard(folder.work, shard)
        as_read: list[AsRead | None] = [None] * len(paths)
        rows = [Row(path, _predict(reader, path, as_read, index)) for index, path in enumerate(paths)]
        write_part(
            folder.parts, shard, rows, as_read, row_format=self.row_format, seconds={"predict": 0.5}, worker="w1",
            engine="fake",
        )  # fmt: skip

    def publish(self, folder: JobFolder) -> JobFolder:
        request = folder.request()
        totals = publish_manifest(folder, request, None, FakeFinalizeLease(fence=next(self._fences)))
        state = "partial" if totals.num_failed else "succeeded"
        folder.write_outcome(Outcome(state=state, ended=datetime.now(UTC), result=request.output))
        return folder

    # Results

    def published(self, name: str | Path | None = None) -> Published:
        return find_published(self.settings, str(name or self.output))

    def labels(self, name: str | Path | None = None) -> dict[str, str]:
        """Label, or error code, by path."""
        return {row.path: row.prediction.error_code or row.prediction.labels[0] for row in self.published(name).rows()}

    def differences(self, name: str | Path | None = None) -> list[str]:
        """What `results verify` says; what cannot be checked counts, but for the model."""
        found = verify(self.settings, self.published(name))
        return found.differences + [each for each in found.unchecked if "model" not in each]

    def base(self) -> Base:
        return open_base(self.published())


def new_manifest(request: ClassifyRequest) -> NewManifest:
    """What a prepared job compares with the manifest that it goes on from."""
    compared = {each.name: getattr(request, each.name) for each in fields(NewManifest)}
    return NewManifest(**compared | {"output": Path(text_to_path(request.output))})


def _predict(reader: ImageReader, path: str, as_read: list[AsRead | None], index: int) -> Prediction:
    try:
        text = read_noted(reader, path, as_read, index).decode()
    except Exception:
        return _ERROR
    if text == "bad":
        return Prediction(error_code="corrupt", error='damaged, with a " and a ,\nand a line')
    return Prediction((text, "other"), (0.75, 0.25), remarks=("frames",) if text == "moving" else ())
