"""What the statistics extension says of models: the counts of their lines, over all workers.

Times are counted in steps of some milliseconds, so their sums are estimates.
"""

from typing import Any

from orchestrator.contract.lines.settings import Line
from orchestrator.contract.lines.stats import BUCKETS_MS, Histogram, LineStats, read_stats
from orchestrator.contract.lines.store import LineStore
from orchestrator.gateway.context import GatewayContext
from orchestrator.gateway.inference.targets import InferenceTarget

_PREDICTED = ("accept", "next_bin", "degraded", "low_confidence", "no_bin", "bin_full")
_NOTHING = {"count": 0, "ns": 0}


def all_statistics(context: GatewayContext) -> dict[str, Any]:
    """Of all lines, and of all models that are open."""
    found = []
    for name, line in sorted(context.lines.all().items()):
        model, _, version = name.removeprefix("@").partition("@")
        found.append(_statistics(context, line, model, version))
    return {"model_stats": found}


def statistics_of(context: GatewayContext, target: InferenceTarget) -> dict[str, Any]:
    """Of one line or model; zeros where its line is not open."""
    line = context.lines.all().get(target.line)
    version = target.version or target.name.partition("@")[2]
    return {"model_stats": [_statistics(context, line, target.name.partition("@")[0], version)]}


def _statistics(context: GatewayContext, line: Line | None, name: str, version: str) -> dict[str, Any]:
    facts = {"name": name, "version": version}
    if line is None:
        return facts | _counts(None, 0)
    store = context.registry().store(line)
    return facts | _counts(read_stats(store), _last_ms(store))


def _last_ms(store: LineStore) -> int:
    """When the last answer was given, by the server's clock; 0: never."""
    newest: Any = store.client.zrange(store.key("answered"), -1, -1, withscores=True)
    return int(newest[0][1]) if newest else 0


def _counts(stats: LineStats | None, last_ms: int) -> dict[str, Any]:
    outcomes = stats.outcomes if stats else {}
    num_predicted = sum(outcomes.get(outcome, 0) for outcome in _PREDICTED)
    waits = stats.waits if stats else {}
    batches = stats.batches if stats else {}
    return {
        "last_inference": last_ms,
        "inference_count": num_predicted,
        "execution_count": sum(batches.values()),
        "inference_stats": {
            "success": {"count": num_predicted, "ns": _sum_ns(stats.latency) if stats else 0},
            "fail": {"count": sum(outcomes.values()) - num_predicted, "ns": 0},
            "queue": _duration(waits.get("queue")),
            "compute_input": _duration(waits.get("decode")),
            "compute_infer": _duration(waits.get("device")),
            "compute_output": _NOTHING,
            "cache_hit": _NOTHING,
            "cache_miss": _NOTHING,
        },
        "batch_stats": [
            {"batch_size": size, "compute_input": _times(num), "compute_infer": _times(num), "compute_output": _NOTHING}
            for size, num in sorted(batches.items())
        ],
        "memory_usage": [],
    }


def _duration(times: Histogram | None) -> dict[str, int]:
    return {"count": times.num, "ns": _sum_ns(times)} if times else _NOTHING


def _times(num: int) -> dict[str, int]:
    """Of a batch size only the number is counted."""
    return {"count": num, "ns": 0}


def _sum_ns(times: Histogram) -> int:
    """Each time as the middle of its step, and the longest as the last bound."""
    lower = dict(zip(BUCKETS_MS, (0, *BUCKETS_MS), strict=False))
    middles_ms = sum((lower[bound] + bound) / 2 * num for bound, num in times.counts)
    return round((middles_ms + BUCKETS_MS[-1] * times.more) * 1e6)
