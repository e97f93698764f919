"""Lines, their status, counts and answers as data: what `--json` prints and the gateway sends."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from orchestrator.contract.lines.answers import Answer
from orchestrator.contract.lines.settings import Line, LineSettings
from orchestrator.contract.lines.stats import Histogram, LineStats
from orchestrator.contract.lines.status import LineStatus, WorkerOfLine
from orchestrator.contract.server_url import redact

QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def line_facts(line: Line) -> dict[str, Any]:
    """The line as data, without its status."""
    return {
        "line": line.name,
        "of_model": line.settings.of_model,
        "settings": settings_facts(line.settings),
        "map_version": line.map_version,
        "paused": line.paused,
        "full": line.full,
        "disabled": line.disabled,
        "created": datetime.fromtimestamp(line.created_ms / 1000, UTC).isoformat(timespec="seconds"),
    }


def status_facts(status: LineStatus | None) -> dict[str, Any]:
    """What its server says of a line; None: it does not answer."""
    if status is None:
        return {"state": "unknown"}
    return {
        "state": status.state,
        "num_waiting": status.num_waiting,
        "bytes_waiting": status.bytes_waiting,
        "num_held": status.num_held,
        "num_answers": status.num_answers,
        "bound_ms": status.bound_ms,
        "workers": [_worker(worker) for worker in status.workers],
    }


def settings_facts(settings: LineSettings) -> dict[str, Any]:
    """Settings as data; the URL of a server without its password."""
    return settings.to_json() | {"server": redact(settings.server) if settings.server else None}


def stats_facts(stats: LineStats) -> dict[str, Any]:
    """The counts as data, with shares and quantiles."""
    facts = asdict(stats)
    return facts | {
        "seconds": stats.seconds,
        "shares": {name: stats.share(name) for name in stats.outcomes},
        "mean_batch": stats.mean_batch,
        "latency": _histogram_facts(stats.latency),
        "waits": {stage: _histogram_facts(waits) for stage, waits in stats.waits.items()},
    }


def _histogram_facts(histogram: Histogram) -> dict[str, Any]:
    quantiles = {f"{name}_ms": histogram.quantile(share) for name, share in QUANTILES.items()}
    return {**quantiles, "counts": {str(bound): num for bound, num in histogram.counts}, "more": histogram.more}


def answer_facts(answer: Answer) -> dict[str, Any]:
    """An answer as it is stored, as data: the keys of `push --json` first."""
    return answer.to_json() | {
        "ms": answer.answered_ms - answer.admitted_ms if answer.admitted_ms else None,
        "cause": answer.cause,
        "scores": answer.scores,
        "engine": answer.engine,
        "map_version": answer.map_version,
        "error": answer.error,
        "stage_ms": answer.stage_ms,
        "admitted": time_text(answer.admitted_ms),
        "answered": time_text(answer.answered_ms),
        "delivered": answer.delivered,
        "discharged": answer.discharged,
    }


def _worker(worker: WorkerOfLine) -> Mapping[str, Any]:
    facts = asdict(worker)
    return {**facts.pop("facts"), **facts}


def time_text(ms: int) -> str | None:
    """A time in UTC; None for 0."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds") if ms else None
