"""Joins the parts of a job into its manifest, and publishes it with its summary; publishes an evaluation's folder."""

import contextlib
import errno
import filecmp
import hashlib
import json
import os
import shutil
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from modeling.durable import copy_durably, link_once, replace_durably, sync, sync_file, target_of, write_durable
from modeling.errors import TROUBLE_OF_ERRNO
from modeling.metrics.decisions import DECISIONS
from modeling.names import text_to_path
from orchestrator.contract.access import explain_os_error
from orchestrator.contract.errors import IntegrityError, PigeonholeError
from orchestrator.contract.jobs.end import remove_unpublished, unpublished_path
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.listing import ListingFacts, read_facts
from orchestrator.contract.jobs.parts import PartTrailer, open_part
from orchestrator.contract.jobs.requests import ClassifyRequest, EvaluateJobRequest
from orchestrator.contract.jobs.rows import FORMATS, SUMMARY_VERSION, summary_path
from orchestrator.contract.ledger.ledger import JobRecord
from orchestrator.contract.ledger.stages import name_bound, stage_rates
from workers.finalize.lease import FinalizeLease

_COPY_BYTES = 1 << 20
TRANSIENT_ERRNOS = {errno.ENOSPC, errno.EDQUOT, *TROUBLE_OF_ERRNO}


class BadPartError(IntegrityError):
    """A part is missing or damaged; its shard must be done again."""

    def __init__(self, shard: int, reason: str) -> None:
        super().__init__(reason)
        self.shard = shard


class PublishError(PigeonholeError):
    """The result is complete, but cannot be written to the output path."""


class TransientDiskError(Exception):
    """A disk error that may pass: the disk is full, or a remote disk is away. Trying again loses nothing."""


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


def publish_manifest(
    folder: JobFolder, request: ClassifyRequest, record: JobRecord | None, lease: FinalizeLease
) -> Totals:
    """Join, verify and publish; doing it twice publishes the same bytes.

    `lease` is checked often, and confirmed just before anything becomes visible.

    Raises:
        BadPartError: a part is missing or damaged.
        IntegrityError: the parts do not add up to the listing.
        PublishError: the output appeared meanwhile, or cannot be written.
    """
    facts = read_facts(folder.path)
    if facts is None:
        raise IntegrityError(f"{folder.path / 'listing.json'} is missing: the listing is not whole")
    output = Path(text_to_path(request.output))
    remove_unpublished(request, before=lease.fence)
    try:
        temporary = unpublished_path(request, lease.fence)
        beside = _beside_summary(temporary, output)
    except OSError as err:
        raise PublishError(f"cannot write {request.output}: {err.strerror}") from err
    try:
        totals, sha256 = _join(folder, request, facts, temporary, lease)
        if totals.num_rows != facts.num_images:
            raise IntegrityError(f"{totals.num_rows} rows for {facts.num_images} listed images")
        size = temporary.stat().st_size
        summary = _summary(request, facts, totals, record, {"sha256": sha256, "bytes": size})
        lease.confirm()
        _put(temporary, output, sha256, summary, overwrite=request.overwrite)
    except OSError as err:
        if err.errno in TRANSIENT_ERRNOS:
            raise TransientDiskError(f"cannot publish {request.output} yet: {err.strerror}") from err
        raise PublishError(f"cannot write {request.output}: {explain_os_error(err) or err}") from err
    finally:
        for path in (temporary, beside):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
    replace_durably(folder.summary, summary, mode=None)
    return totals


def _join(
    folder: JobFolder, request: ClassifyRequest, facts: ListingFacts, path: Path, lease: FinalizeLease
) -> tuple[Totals, str]:
    """Write header, parts and footer to `path`, durable; returns the counts and the sha256 of all bytes."""
    row_format = FORMATS[request.output_format]
    totals = Totals()
    for shard in range(facts.num_shards):
        totals.add(_trailer(folder, shard))
        if shard % 100 == 0:
            lease.check()
    with path.open("wb") as file:
        hashed = _HashedFile(file)
        hashed.write(row_format.header(_manifest_facts(request, totals)))
        for shard in range(facts.num_shards):
            if shard:
                hashed.write(row_format.separator)
            _copy_rows(folder, shard, hashed)
            lease.check()
        hashed.write(row_format.footer())
        sync_file(file)
    return totals, hashed.sha256.hexdigest()


def _open_part(folder: JobFolder, shard: int) -> tuple[IO[bytes], PartTrailer]:
    try:
        return open_part(folder.parts, shard)
    except IntegrityError as err:
        raise BadPartError(shard, str(err)) from err


def _trailer(folder: JobFolder, shard: int) -> PartTrailer:
    file, trailer = _open_part(folder, shard)
    file.close()
    return trailer


def _copy_rows(folder: JobFolder, shard: int, target: "_HashedFile") -> None:
    """Append the rows of a part, verified by the checksum in its trailer."""
    file, trailer = _open_part(folder, shard)
    sha256 = hashlib.sha256()
    with file:
        left = trailer.rows_bytes
        while data := file.read(min(left, _COPY_BYTES)):
            left -= len(data)
            sha256.update(data)
            target.write(data)
    if sha256.hexdigest() != trailer.rows_sha256:
        raise BadPartError(shard, f"the rows of {file.name} do not match the checksum in its trailer")


class _HashedFile:
    """A file with the sha256 of what was written to it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self.sha256.update(data)


def _manifest_facts(request: ClassifyRequest, totals: Totals) -> dict[str, Any]:
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


def _summary(
    request: ClassifyRequest, facts: ListingFacts, totals: Totals, record: JobRecord | None, manifest: dict[str, Any]
) -> bytes:
    """The summary file: what the manifest must agree with, and how the job went."""
    summary = {
        "version": SUMMARY_VERSION,
        "job": request.job,
        "source": request.source,
        "root": request.root,
        "model": request.model.model_dump(exclude={"version"}) | {"ref": request.model.ref},
        "top_k": request.top_k,
        "manifest": {"path": request.output, "format": request.output_format, **manifest},
        "listing": {"sha256": facts.sha256, "num_images": facts.num_images, "skipped": dict(facts.skipped)},
        "counts": {
            "num_images": totals.num_rows,
            "num_done": totals.num_rows,
            "num_failed": totals.num_failed,
            "status": {"ok": totals.num_rows - totals.num_failed, "error": totals.num_failed},
            "labels": dict(sorted(totals.labels.items())),
            "error_codes": dict(sorted(totals.errors.items())),
            "decisions": {name: totals.decisions[name] for name in DECISIONS} if totals.decisions else {},
            "remarks": dict(sorted(totals.remarks.items())),
        },
        "timings": _timings(request, totals, record),
        "shards": {"num_shards": facts.num_shards, "shards_given_up": totals.shards_given_up},
        "repeats": {"too_slow_by_clock": totals.num_stopped, "byte_identical": not totals.num_stopped},
        "workers": sorted(totals.workers),
        "engines": sorted(totals.engines),
    }
    return (json.dumps(summary, ensure_ascii=False, indent=2) + "\n").encode("utf-8", "backslashreplace")


def _timings(request: ClassifyRequest, totals: Totals, record: JobRecord | None) -> dict[str, Any]:
    """How long the job took, where the time went, and what bounded it."""
    started_ms = record.started_ms if record and record.started_ms else request.created.timestamp() * 1000
    started = datetime.fromtimestamp(started_ms / 1000, UTC)
    now = datetime.now(UTC)
    elapsed_s = max((now - started).total_seconds(), 1e-3)
    seconds = totals.seconds
    return {
        "submitted": request.created.isoformat(),
        "started": started.isoformat(),
        "published": now.isoformat(),
        "seconds": round(elapsed_s, 3),
        "images_per_sec": round(totals.num_rows / elapsed_s, 1),
        "stage_seconds": {stage: round(value, 3) for stage, value in sorted(seconds.items())},
        "stage_images_per_sec": {
            stage: round(rate, 1) for stage, rate in stage_rates(seconds, totals.num_rows).items()
        },
        "bound": name_bound(seconds),
    }


def _put(temporary: Path, output: Path, sha256: str, summary: bytes, *, overwrite: bool) -> None:
    """Rename the manifest into place; the summary comes first, so that every manifest has one."""
    if not overwrite and output.exists() and not _is_ours(output, sha256):
        raise PublishError(f"{output} appeared while the job ran; it was left as it is")
    beside = _beside_summary(temporary, output)
    write_durable(beside, summary)
    beside.replace(target_of(summary_path(output)))
    if overwrite:
        temporary.replace(target_of(output))
    elif not link_once(temporary, target_of(output)) and not _is_ours(output, sha256):
        if _is_ours(summary_path(output), hashlib.sha256(summary).hexdigest()):
            target_of(summary_path(output)).unlink()  # ours, beside a manifest that is not
        raise PublishError(f"{output} appeared while the job ran; it was left as it is")
    for path in (output, summary_path(output)):
        sync(target_of(path).parent)


def _beside_summary(temporary: Path, output: Path) -> Path:
    """Where the summary is prepared: beside the file that its name leads to."""
    return target_of(summary_path(output)).with_name(f"{temporary.stem}.summary.tmp")


def _is_ours(output: Path, sha256: str) -> bool:
    """Whether `output` is what an earlier finalizer published just before it died."""
    with contextlib.suppress(OSError), output.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    return False


# An evaluation's folder, whole or not at all


def publish_evaluation(folder: JobFolder, request: EvaluateJobRequest, lease: FinalizeLease) -> Path:
    """Publish the evaluation and return its folder; doing it twice publishes it once.

    `lease` is confirmed just before the folder becomes visible. Raises PublishError where the output appeared
    meanwhile, or cannot be written, TransientDiskError on a disk error that may pass.
    """
    if request.output is None:
        return folder.evaluation
    output = Path(text_to_path(request.output))
    remove_unpublished(request, before=lease.fence)
    copy = unpublished_path(request, lease.fence)
    try:
        copy.mkdir()
        copy_durably(folder.evaluation, copy)
        lease.confirm()
        _put_folder(copy, target_of(output))
    except OSError as err:
        if err.errno in TRANSIENT_ERRNOS:
            raise TransientDiskError(f"cannot publish {request.output} yet: {err.strerror}") from err
        raise PublishError(f"cannot write {request.output}: {explain_os_error(err) or err}") from err
    finally:
        shutil.rmtree(copy, ignore_errors=True)
    return output


def _put_folder(copy: Path, output: Path) -> None:
    """Rename the copy into place, unless an earlier finalizer did so just before it died."""
    if not os.path.lexists(output):
        copy.rename(output)
        sync(output.parent)
    elif output.is_symlink() or not output.is_dir() or not _same(filecmp.dircmp(copy, output, ignore=[], hide=[])):
        raise PublishError(f"{output} appeared while the job ran; it was left as it is")


def _same(comparison: "filecmp.dircmp[str]") -> bool:
    """Whether two folders hold the same files with the same bytes."""
    different = (*comparison.left_only, *comparison.right_only, *comparison.common_funny)
    left, right = Path(comparison.left), Path(comparison.right)
    return (
        not different
        and all(filecmp.cmp(left / name, right / name, shallow=False) for name in comparison.common_files)
        and all(_same(inner) for inner in comparison.subdirs.values())
    )
