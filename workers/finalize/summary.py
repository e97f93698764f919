"""The summary of a manifest: what the manifest must agree with, and how the job went."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from modeling.metrics.decisions import DECISIONS
from orchestrator.contract.jobs.listing import ListingFacts
from orchestrator.contract.jobs.requests import ClassifyRequest
from orchestrator.contract.jobs.rows import SUMMARY_VERSION
from orchestrator.contract.ledger.ledger import JobRecord
from orchestrator.contract.ledger.stages import name_bound, stage_rates
from workers.finalize.join import Joined, Totals


def make_summary(
    request: ClassifyRequest,
    facts: ListingFacts,
    joined: Joined,
    record: JobRecord | None,
    incomplete: Mapping[str, Any] | None = None,
) -> bytes:
    """The summary file. incomplete: what is missing, and why."""
    totals = joined.totals
    summary = {
        "version": SUMMARY_VERSION,
        "job": request.job,
        "source": request.source,
        "root": request.root,
        "follow_symlinks": request.follow_symlinks,
        "model": request.model.model_dump(exclude={"version"}) | {"ref": request.model.ref},
        "precision": request.precision,
        "top_k": request.top_k,
        "manifest": {"path": request.output, "format": request.output_format, **vars(joined.manifest)},
        "sidecar": {**vars(joined.sidecar), "checksum": request.checksum},
        "listing": {"sha256": facts.sha256, "num_images": facts.num_images, "skipped": dict(facts.skipped)},
        "counts": _counts(totals),
        "timings": _timings(request, totals, record),
        "shards": {"num_shards": facts.num_shards, "shards_given_up": totals.shards_given_up},
        "repeats": {"too_slow_by_clock": totals.num_stopped, "byte_identical": not totals.num_stopped},
        "workers": sorted(totals.workers),
        "engines": sorted(totals.engines),
    } | ({"incomplete": dict(incomplete)} if incomplete is not None else {})
    return (json.dumps(summary, ensure_ascii=False, indent=2) + "\n").encode("utf-8", "backslashreplace")


def _counts(totals: Totals) -> dict[str, Any]:
    return {
        "num_images": totals.num_rows,
        "num_done": totals.num_rows,
        "num_failed": totals.num_failed,
        "status": {"ok": totals.num_rows - totals.num_failed, "error": totals.num_failed},
        "labels": dict(sorted(totals.labels.items())),
        "error_codes": dict(sorted(totals.errors.items())),
        "decisions": {name: totals.decisions[name] for name in DECISIONS} if totals.decisions else {},
        "remarks": dict(sorted(totals.remarks.items())),
    }


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
