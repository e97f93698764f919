"""Metrics of lines: each line's counts on its server, and how it stands now.

A line whose server does not answer, or whose records cannot be read, is reported as not up, and hides no other.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import cast

import redis
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)

from orchestrator.contract.lines.answers import CAUSES, REASONS
from orchestrator.contract.lines.settings import Line
from orchestrator.contract.lines.stats import ACCEPT, Histogram, LineStats, read_stats
from orchestrator.contract.lines.status import LineStatus, read_status
from orchestrator.contract.lines.store import LineStore

MOST_LINES = 100  # in the order of their names
LATENCY_MS = (5, 10, 15, 20, 30, 50, 80, 120, 200, 300, 500, 800, 1200, 2000, 3000, 5000, 10000, 30000, 60000)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
OUTCOMES = (ACCEPT, *(reason for reason in REASONS if reason != "conflict"), "other")
REFUSALS = ("busy", "bound", "paused")
_AT_ONCE = 8

_COUNTERS = (
    ("admitted", "Requests that were admitted."),
    ("recovered", "Requests of dead workers that others got."),
    ("delivered_alone", "Decisions that clients made without the server."),
    ("disagreements", "Decisions of clients that differ from the record."),
    ("discharged", "Items whose real bin was reported."),
    ("discharged_elsewhere", "Items that did not go to the bin of their record."),
    ("images_not_kept", "Images that should have been kept and were not."),
    ("answers_dropped", "Answers that the server dropped, since no worker moved them to files."),
)


@dataclass(frozen=True, slots=True)
class LineView:
    """One look at a line. None: its server does not answer. oldest_ms: of the request that is due first."""

    name: str
    paused: bool
    stats: LineStats | None = None
    status: LineStatus | None = None
    oldest_ms: int = 0


def read_lines_now(lines: Mapping[str, Line], stores: Mapping[str, LineStore]) -> list[LineView]:
    """Look at all lines at once; none of them is waited for longer than its client's timeouts."""
    shown = [lines[name] for name in sorted(lines)[:MOST_LINES]]
    if not shown:
        return []
    with ThreadPoolExecutor(_AT_ONCE, "metrics-lines") as pool:
        return list(pool.map(lambda line: _view(line, stores[line.name]), shown))


def line_metrics(views: Sequence[LineView]) -> Iterator[Metric]:
    """Of the lines that answered, and which did not."""
    up = GaugeMetricFamily("pigeonhole_line_up", "Whether the line's server answers.", labels=["line"])
    paused = GaugeMetricFamily("pigeonhole_line_paused", "Whether the line is paused.", labels=["line"])
    for view in views:
        up.add_metric([view.name], view.stats is not None)
        paused.add_metric([view.name], view.paused)
    yield from (up, paused)
    seen = [(view, view.stats, view.status) for view in views if view.stats is not None and view.status is not None]
    yield from _gauges([(view, status) for view, _, status in seen])
    counted = [(view.name, stats) for view, stats, _ in seen]
    yield from _counters(counted)
    yield from _distributions(counted)


def _view(line: Line, store: LineStore) -> LineView:
    unseen = LineView(line.name, line.paused)
    try:
        stats, status = read_stats(store), read_status(store, line)
        return LineView(line.name, line.paused, stats, status, _oldest_ms(store, stats.to_ms))
    except (redis.RedisError, OSError, ValueError, TypeError, AttributeError):  # away, or its keys are somebody else's
        return unseen


def _oldest_ms(store: LineStore, now_ms: int) -> int:
    first = cast("list[bytes]", store.client.zrange(store.key("deadlines"), 0, 0))
    if not first:
        return 0
    admitted = store.client.hget(f"{store.key('r')}:{first[0].decode()}", "admitted")
    return max(0, now_ms - int(cast("bytes | None", admitted) or now_ms))


def _gauges(views: Sequence[tuple[LineView, LineStatus]]) -> Iterator[Metric]:
    families = {
        name: GaugeMetricFamily(f"pigeonhole_line_{name}", text, labels=["line"])
        for name, text in (
            ("workers", "Workers that have the line open."),
            ("waiting_requests", "Requests without an answer."),
            ("waiting_bytes", "Bytes of their images."),
            ("held_requests", "Of them, those that a worker holds."),
            ("oldest_seconds", "Age of the request that is due first."),
            ("outstanding_seconds", "Work that waits, in seconds of one worker."),
            ("utilisation_ratio", "Share of the workers' time that the line uses, their mean."),
            ("bound_seconds", "Longest wait of a push for the device behind a batch of a job."),
            ("stored_answers", "Answers on the server; older ones are in files."),
        )
    }
    for view, status in views:
        workers = [worker for worker in status.workers if worker.is_open]
        per_image_ms = sum(worker.ms_per_image for worker in workers) / len(workers) if workers else 0.0
        values = {
            "workers": float(len(workers)),
            "waiting_requests": status.num_waiting,
            "waiting_bytes": status.bytes_waiting,
            "held_requests": status.num_held,
            "oldest_seconds": view.oldest_ms / 1e3,
            "outstanding_seconds": status.num_waiting * per_image_ms / 1e3,
            "utilisation_ratio": _mean([worker.facts.get("utilisation") for worker in workers]),
            "bound_seconds": (status.bound_ms or 0.0) / 1e3,
            "stored_answers": status.num_answers,
        }
        for name, value in values.items():
            families[name].add_metric([view.name], value)
    yield from families.values()


def _counters(lines: Sequence[tuple[str, LineStats]]) -> Iterator[Metric]:
    for name, text in _COUNTERS:
        family = CounterMetricFamily(f"pigeonhole_line_{name}", text, labels=["line"])
        for line, stats in lines:
            family.add_metric([line], getattr(stats, name))
        yield family
    for name, text, label, counts, known in (
        ("answers", "Answers, `accept` or the reason why it is none.", "reason", "outcomes", OUTCOMES),
        ("misses", "Requests without a prediction in time, by where the time went.", "cause", "causes", CAUSES),
        ("refused", "Pushes that were not admitted.", "reason", "refused", REFUSALS),
    ):
        family = CounterMetricFamily(f"pigeonhole_line_{name}", text, labels=["line", label])
        for line, stats in lines:
            for value in known:
                family.add_metric([line, value], getattr(stats, counts).get(value, 0))
        yield family


def _distributions(lines: Sequence[tuple[str, LineStats]]) -> Iterator[Metric]:
    latency = HistogramMetricFamily("pigeonhole_line_latency_seconds", "From admission to the answer.", labels=["line"])
    waits = SummaryMetricFamily("pigeonhole_line_wait_seconds", "Of predicted requests.", labels=["line", "stage"])
    batches = HistogramMetricFamily("pigeonhole_line_batch_images", "Images in a batch.", labels=["line"])
    for line, stats in lines:
        latency.add_metric([line], _latency_buckets(stats.latency), stats.latency.sum_ms / 1e3)
        for stage, histogram in stats.waits.items():
            waits.add_metric([line, stage], histogram.num, histogram.sum_ms / 1e3)
        num_images = sum(size * num for size, num in stats.batches.items())
        batches.add_metric([line], _batch_buckets(stats.batches), num_images)
    yield from (latency, waits, batches)


def _latency_buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Each bound is one of those that are counted, so the sums are exact."""
    within = [(most, sum(num for bound, num in histogram.counts if bound <= most)) for most in LATENCY_MS]
    return [*((repr(most / 1e3), float(num)) for most, num in within), ("+Inf", float(histogram.num))]


def _batch_buckets(batches: Mapping[int, int]) -> list[tuple[str, float]]:
    within = [(repr(float(most)), float(sum(num for size, num in batches.items() if size <= most))) for most in BATCHES]
    return [*within, ("+Inf", float(sum(batches.values())))]


def _mean(values: Sequence[object]) -> float:
    numbers = [float(value) for value in values if isinstance(value, int | float)]
    return sum(numbers) / len(numbers) if numbers else 0.0
