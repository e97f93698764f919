"""The summary of a manifest: what the manifest must agree with, and how the job went."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from modeling.metrics.decisions import DECISIONS
from modeling.names import path_to_text
from orchestrator.contract.errors import IntegrityError
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.job_version import written_version
from orchestrator.contract.jobs.listing import ListingFacts, read_facts, read_source_facts
from orchestrator.contract.jobs.merge_plan import PlanFacts, read_plan_facts
from orchestrator.contract.jobs.requests import ClassifyRequest
from orchestrator.contract.jobs.rows import SUMMARY_VERSION
from orchestrator.contract.ledger.record import JobRecord
from orchestrator.contract.ledger.stages import name_bound, stage_rates
from workers.finalize.join import Joined, Totals


@dataclass(frozen=True)
class ListedRows:
    """What a job has listed. plan: of the rows of the manifest, for a job that merges."""

    facts: ListingFacts
    plan: PlanFacts | None
    walked: bool  # whether the paths were found by reading folders, so that their order depends on names alone

    @classmethod
    def of(cls, folder: JobFolder) -> Self:
        """Raises IntegrityError where the listing, or the plan of a job that merges, is not whole."""
        facts, plan = read_facts(folder.work), read_plan_facts(folder.work)
        if facts is None:
            raise IntegrityError(f"{folder.work / 'listing.json'} is missing: the listing is not whole")
        request = folder.request()
        if isinstance(request, ClassifyRequest) and request.base is not None and plan is None:
            raise IntegrityError(f"{folder.work / 'merge.json'} is missing: the plan is not whole")
        source = read_source_facts(folder.work)
        return cls(facts, plan, walked=source is not None and source.walked)

    @classmethod
    def of_shards(cls, folder: JobFolder, facts: ListingFacts) -> Self:
        """Some shards of a job alone, whose listing has these facts."""
        source = read_source_facts(folder.work)
        return cls(facts, None, walked=source is not None and source.walked)

    @property
    def num_rows(self) -> int:
        """Rows of the manifest."""
        return self.plan.num_rows if self.plan else self.facts.num_images

    def to_json(self) -> dict[str, Any]:
        """The listing of all rows."""
        whole = self.plan or self.facts
        return {
            "sha256": whole.sha256,
            "num_images": self.num_rows,
            "walked": self.walked,
            "skipped": dict(self.facts.skipped),
        }


def make_summary(
    request: ClassifyRequest,
    listed: ListedRows,
    joined: Joined,
    record: JobRecord | None,
    more: Mapping[str, Any] = MappingProxyType({}),
) -> bytes:
    """The summary file. more: what only some summaries say: what was merged, or what is missing."""
    totals = joined.totals
    summary = {
        "version": SUMMARY_VERSION,
        "job": request.job,
        "source": request.source,
        "root": request.root,
        "follow_symlinks": request.follow_symlinks,
        "model": request.model.model_dump(exclude={"version", "model_format"}) | {"ref": request.model.ref},
        "precision": request.precision,
        "top_k": request.top_k,
        "manifest": {"path": request.output, "format": request.output_format, **vars(joined.manifest)},
        "sidecar": {**vars(joined.sidecar), "checksum": request.checksum},
        "listing": listed.to_json(),
        "counts": _counts(totals),
        **more,
        "timings": _timings(request, joined, record),
        "shards": {"num_shards": listed.facts.num_shards, "shards_given_up": totals.shards_given_up},
        "repeats": {"too_slow_by_clock": totals.num_stopped, "byte_identical": not totals.num_stopped},
        "workers": sorted(totals.workers),
        "engines": sorted(totals.engines),
        "made_with": sorted(totals.made_with),
    }
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


def merge_facts(
    request: ClassifyRequest, plan: PlanFacts | None, joined: Joined, kept_as: Path | None
) -> dict[str, Any]:
    """What a merge did, and which rows come from which job; nothing for a job that merges nothing.

    kept_as: the name of the manifest whose place the new one takes.
    """
    base = request.base
    if base is None or plan is None:
        return {}
    counts = plan.model_dump(include={"num_kept", "num_new", "num_changed", "num_gone", "num_stale"})
    merge = {
        "kind": base.kind,
        "base": {"job": base.job, "manifest": base.manifest, "sha256": base.manifest_sha256},
        "kept_as": path_to_text(str(kept_as)) if kept_as else None,
        **counts,
    }
    return {"merge": merge, "attempts": list(joined.attempts)}


def version_facts(folder: JobFolder) -> dict[str, Any]:
    """That an operator let the job go on with another version than the one that began it; nothing where none did."""
    written = written_version(folder)
    if written is None or written.before is None:
        return {}
    facts = {"before": written.before, "after": written.release, "by": written.by, "at": written.at.isoformat()}
    return {"version_changed": facts}


def _timings(request: ClassifyRequest, joined: Joined, record: JobRecord | None) -> dict[str, Any]:
    """How long the job took, where the time went, and what bounded it."""
    started_ms = record.started_ms if record and record.started_ms else request.created.timestamp() * 1000
    started = datetime.fromtimestamp(started_ms / 1000, UTC)
    now = datetime.now(UTC)
    elapsed_s = max((now - started).total_seconds(), 1e-3)
    seconds, num_images = joined.totals.seconds, joined.num_classified
    return {
        "submitted": request.created.isoformat(),
        "started": started.isoformat(),
        "published": now.isoformat(),
        "seconds": round(elapsed_s, 3),
        "images_per_sec": round(num_images / elapsed_s, 1),
        "stage_seconds": {stage: round(value, 3) for stage, value in sorted(seconds.items())},
        "stage_images_per_sec": {stage: round(rate, 1) for stage, rate in stage_rates(seconds, num_images).items()},
        "bound": name_bound(seconds),
    }
