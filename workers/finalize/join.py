"""Joins the parts of a job: the bytes of its manifest and of its sidecar, and the sums over the trailers."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Self

from modeling.durable import sync_file
from orchestrator.contract.errors import IntegrityError
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.parts import PartTrailer, open_part
from orchestrator.contract.jobs.requests import ClassifyRequest
from orchestrator.contract.jobs.rows import FORMATS, SUMMARY_VERSION, Row
from workers.finalize.lease import FinalizeLease

_COPY_BYTES = 1 << 20


class BadPartError(IntegrityError):
    """A part is missing or damaged; its shard must be done again."""

    def __init__(self, shard: int, reason: str) -> None:
        super().__init__(reason)
        self.shard = shard


@dataclass
class Totals:
    """The sums over the trailers of all parts."""

    num_rows: int = 0
    num_failed: int = 0
    shards_given_up: int = 0
    num_stopped: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    decisions: Counter[str] = field(default_factory=Counter)
    remarks: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)
    workers: set[str] = field(default_factory=set)
    engines: set[str] = field(default_factory=set)
    made_with: set[str] = field(default_factory=set)

    def add(self, trailer: PartTrailer) -> None:
        """Count one part."""
        self.num_rows += trailer.num_rows
        self.num_failed += trailer.num_failed
        self.shards_given_up += trailer.given_up
        self.num_stopped += trailer.num_stopped
        self.labels.update(trailer.labels)
        self.errors.update(trailer.errors)
        self.decisions.update(trailer.decisions)
        self.remarks.update(trailer.remarks)
        self.seconds.update(trailer.seconds)
        self.workers.add(trailer.worker)
        self.engines.update(filter(None, [trailer.engine]))
        self.made_with.update(filter(None, [trailer.made_with]))

    def add_row(self, row: Row, times: int, remarks: Iterable[str]) -> None:
        """Count one row so many times; fewer than none to take it away."""
        self.num_rows += times
        for remark in remarks:
            self.remarks[remark] += times
        if row.prediction.decision:
            self.decisions[row.prediction.decision] += times
        if row.prediction.error_code is None:
            self.labels[row.prediction.labels[0]] += times
        else:
            self.num_failed += times
            self.errors[row.prediction.error_code] += times

    def add_all(self, other: "Totals") -> None:
        """Count the rows of another manifest, and who made them; its times are another job's."""
        self.num_rows += other.num_rows
        self.num_failed += other.num_failed
        self.num_stopped += other.num_stopped
        self.labels = +(self.labels + other.labels)
        self.errors = +(self.errors + other.errors)
        self.decisions = +(self.decisions + other.decisions)
        self.remarks = +(self.remarks + other.remarks)
        self.workers |= other.workers
        self.engines |= other.engines
        self.made_with |= other.made_with

    def without_rows(self) -> Self:
        """The same makers, and no row yet."""
        return replace(
            self,
            num_rows=0,
            num_failed=0,
            labels=Counter(),
            errors=Counter(),
            decisions=Counter(),
            remarks=Counter(),
        )

    @classmethod
    def of_summary(cls, summary: Mapping[str, Any]) -> Self:
        """What a checked summary says of its manifest's rows."""
        counts = summary["counts"]
        return cls(
            num_rows=counts["num_images"],
            num_failed=counts["num_failed"],
            num_stopped=summary["repeats"]["too_slow_by_clock"],
            labels=Counter(counts["labels"]),
            errors=Counter(counts["error_codes"]),
            decisions=Counter(counts["decisions"]),
            remarks=Counter(counts["remarks"]),
            workers=set(summary["workers"]),
            engines=set(summary["engines"]),
            made_with=set(summary["made_with"]),
        )


@dataclass(frozen=True)
class Written:
    """A file that is durable: its sha256 and its size."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Joined:
    """The manifest and the sidecar of a job, under temporary names, and what is in them."""

    totals: Totals
    manifest: Written
    sidecar: Written
    num_classified: int  # rows of the job's own parts
    attempts: Sequence[Mapping[str, Any]] = ()  # which rows come from which job, if rows of another were merged


class HashedFile:
    """A file with the sha256 and the number of the bytes that were written to it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self._bytes = 0

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._sha256.update(data)
        self._bytes += len(data)

    def flush(self) -> None:
        """Give the system what was written, without waiting for the disk."""
        self._file.flush()

    def close(self) -> Written:
        """Wait until all is on the disk."""
        sync_file(self._file)
        return Written(self._sha256.hexdigest(), self._bytes)


def close_both(manifest: HashedFile, sidecar: HashedFile) -> tuple[Written, Written]:
    """Wait until both files are on the disk; the system has both before, so that it mostly waits once."""
    sidecar.flush()
    return manifest.close(), sidecar.close()


def join_parts(
    folder: JobFolder, request: ClassifyRequest, shards: Sequence[int], paths: tuple[Path, Path], lease: FinalizeLease
) -> Joined:
    """Write the manifest and the sidecar of these shards to `paths`, durable.

    Raises BadPartError where a part is missing or damaged.
    """
    row_format = FORMATS[request.output_format]
    totals = add_trailers(folder, shards, lease)
    with paths[0].open("wb") as manifest_file, paths[1].open("wb") as sidecar_file:
        manifest, sidecar = HashedFile(manifest_file), HashedFile(sidecar_file)
        manifest.write(row_format.header(manifest_facts(request, totals)))
        for number, shard in enumerate(shards):
            if number:
                manifest.write(row_format.separator)
            _copy_part(folder, shard, manifest, sidecar)
            lease.check()
        manifest.write(row_format.footer())
        return Joined(totals, *close_both(manifest, sidecar), num_classified=totals.num_rows)


def add_trailers(folder: JobFolder, shards: Sequence[int], lease: FinalizeLease) -> Totals:
    """The sums over the parts of these shards. Raises BadPartError where one is missing, or not complete."""
    totals = Totals()
    for shard in shards:
        file, trailer = open_whole_part(folder, shard)
        file.close()
        totals.add(trailer)
        if shard % 100 == 0:
            lease.check()
    return totals


def open_whole_part(folder: JobFolder, shard: int) -> tuple[IO[bytes], PartTrailer]:
    """As `open_part`. Raises BadPartError."""
    try:
        return open_part(folder.parts, shard)
    except IntegrityError as err:
        raise BadPartError(shard, str(err)) from err


def _copy_part(folder: JobFolder, shard: int, manifest: HashedFile, sidecar: HashedFile) -> None:
    """Append the rows of a part, and its lines of the sidecar, verified by the checksums in its trailer."""
    file, trailer = open_whole_part(folder, shard)
    with file:
        sections = (
            (trailer.rows_bytes, trailer.rows_sha256, manifest),
            (trailer.sidecar_bytes, trailer.sidecar_sha256, sidecar),
        )
        for size, sha256, target in sections:
            if _copy(file, size, target) != sha256:
                raise BadPartError(shard, f"what {file.name} holds does not match the checksums in its trailer")
            file.read(1)  # the line feed between rows and sidecar


def _copy(file: IO[bytes], size: int, target: HashedFile) -> str:
    """Append the next bytes of a file; returns their sha256."""
    sha256 = hashlib.sha256()
    while data := file.read(min(size, _COPY_BYTES)):
        size -= len(data)
        sha256.update(data)
        target.write(data)
    return sha256.hexdigest()


def manifest_facts(request: ClassifyRequest, totals: Totals) -> Mapping[str, Any]:
    """The head of a JSON manifest: without anything that differs between two runs of the same job."""
    return {
        "version": SUMMARY_VERSION,
        "source": request.source,
        "model": request.model.ref,
        "model_digest": request.model.digest,
        "preprocessing_digest": request.model.preprocessing_digest,
        "top_k": request.top_k,
        "num_images": totals.num_rows,
        "num_failed": totals.num_failed,
    }
