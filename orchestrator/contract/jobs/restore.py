"""Enters a job into the ledger from its folder, after the server lost all its data or the last second of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.contract.errors import IntegrityError
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.job_version import begun_with
from orchestrator.contract.jobs.listing import count_shards, read_facts
from orchestrator.contract.jobs.parts import PartTrailer, part_path, read_trailer
from orchestrator.contract.jobs.requests import (
    AnyJobRequest,
    ClassifyRequest,
    TrainJobRequest,
    fingerprint,
    ledger_fields,
)
from orchestrator.contract.ledger.ledger import Ledger
from orchestrator.contract.ledger.record import time_fields
from orchestrator.contract.ledger.stages import add_seconds
from orchestrator.contract.ledger.words import PAUSED_BY


@dataclass(frozen=True)
class Restored:
    """A job as its folder has it. done: a bitmap of shards."""

    fields: Mapping[str, str | int]
    done: bytes

    def __getitem__(self, count: str) -> int:
        return int(self.fields.get(count, 0))


def restore_job(folder: JobFolder, ledger: Ledger, *, replace: bool = False) -> bool:
    """Enter the job as its folder has it; False where the ledger knows it and `replace` is not set.

    Doing it twice, or in two workers at the same time, changes nothing: the first entry stays.
    """
    return enter_restored(folder, read_folder(folder), ledger, replace=replace)


def enter_restored(folder: JobFolder, restored: Restored, ledger: Ledger, *, replace: bool = False) -> bool:
    """As `restore_job`, for a folder that was read."""
    request = folder.request()
    return ledger.restore(
        folder.job,
        restored.fields,
        restored.done,
        output=output_of(request),
        key=request.idempotency_key or "",
        fingerprint=fingerprint(request),
        run=restored["run"],
        replace=replace,
    )


def withdraw_job(request: AnyJobRequest, ledger: Ledger) -> bool:
    """Let the ledger forget a job whose submission failed; False where a worker has claimed a shard of it."""
    return ledger.withdraw(request.job, output=output_of(request), key=request.idempotency_key or "")


def read_folder(folder: JobFolder) -> Restored:
    """The job as its folder has it; removes parts that are damaged."""
    request = folder.request()
    fields: dict[str, str | int] = ledger_fields(request) | {"run": folder.run, "state": "running"}
    fields["created_ms"] = round(request.created.timestamp() * 1000)
    done = bytearray()
    if isinstance(request, ClassifyRequest):
        fields |= _classify_fields(folder, request, done)
    else:
        fields |= {"listed": 1, "num_shards": 1}
    if version := begun_with(folder):
        fields["version"] = version
    pauses = [pause for by in PAUSED_BY if (pause := folder.pause(by)) is not None]
    if folder.cancel_requested():
        fields["state"] = "cancelling"
    elif pauses and fields["state"] == "running":
        since_ms = round(min(pause.since for pause in pauses).timestamp() * 1000)
        fields |= {"state": "paused", "paused_ms": since_ms}
        fields |= {f"paused_by_{pause.by}": pause.reason for pause in pauses}
    return Restored(fields, bytes(done))


def output_of(request: AnyJobRequest) -> str:
    """The path that only this job may write; empty for a training, whose versions never clash."""
    return "" if isinstance(request, TrainJobRequest) else request.output or ""


def _classify_fields(folder: JobFolder, request: ClassifyRequest, done: bytearray) -> dict[str, str | int]:
    """The counts of a classify job from its listing and its parts; sets the bits of finished shards in `done`."""
    num_shards, num_images = count_shards(folder.work)
    facts = read_facts(folder.work)
    done.extend(bytes((num_shards + 7) // 8))
    counts = dict.fromkeys(("shards_done", "num_done", "num_failed", "shards_given_up"), 0)
    seconds: dict[str, float] = {}
    for shard in range(num_shards):  # one trailer in memory at a time: each names up to all labels
        if (trailer := _valid_trailer(folder.parts, shard)) is None:
            continue
        done[shard // 8] |= 0x80 >> shard % 8
        counts["shards_done"] += 1
        counts["num_done"] += trailer.num_rows
        counts["num_failed"] += trailer.num_failed
        counts["shards_given_up"] += trailer.given_up
        seconds = add_seconds([seconds, trailer.seconds])
    listed = {"num_shards": num_shards, "num_images": num_images, "listed": int(facts is not None)}
    fields: dict[str, str | int] = {**listed, **counts, **time_fields(seconds)}
    limit = folder.failure_limit(request, facts.num_images if facts else None)
    if limit is not None:
        fields["failure_limit"] = limit
        if counts["num_failed"] > limit:
            fields |= {"state": "cancelling", "too_many_failures": 1}
    return fields


def _valid_trailer(parts: Path, shard: int) -> PartTrailer | None:
    """The trailer of a shard's part, if there is one; removes a damaged part, so that its shard is classified again."""
    try:
        return read_trailer(parts, shard)
    except IntegrityError:
        part_path(parts, shard).unlink(missing_ok=True)
        return None
