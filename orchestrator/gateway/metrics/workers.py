"""Metrics of workers by host and device: a worker's name is an id, and would be a new series at each start."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from prometheus_client.core import GaugeMetricFamily, Metric

from orchestrator.contract.ledger.live_workers import WorkerRecord
from orchestrator.contract.queues import ALL_QUEUES

MOST_PLACES = 200  # pairs of host and device; what is beyond counts together as `other`
DOING = ("idle", "starting", "draining", "classify", "train", "finalize", "other")
_LABELS = ["host", "device"]
_VITALS = (
    ("worker_memory_bytes", "Memory of the processes of workers.", "rss_bytes", 1.0),
    ("worker_cpu_cores", "Cores in use by workers, over the last ten seconds.", "cpu_milli", 1e-3),
    ("gpu_memory_used_bytes", "Memory in use of the workers' GPUs, by any process.", "gpu_used_bytes", 1.0),
    ("gpu_memory_bytes", "Memory of the workers' GPUs.", "gpu_total_bytes", 1.0),
)

Place = tuple[str, str]  # host and device


def worker_metrics(workers: Sequence[WorkerRecord]) -> Iterator[Metric]:
    """Who lives, what they do, and what they use. A worker that died is reported for an hour."""
    places = _by_place(workers)
    living = GaugeMetricFamily("pigeonhole_workers", "Living workers.", labels=[*_LABELS, "doing"])
    lost = GaugeMetricFamily(
        "pigeonhole_workers_lost", "Workers of the last hour that went without saying so.", labels=_LABELS
    )
    age = GaugeMetricFamily(
        "pigeonhole_worker_seen_seconds", "Since the last heartbeat of the worker that was seen last.", labels=_LABELS
    )
    for place, records in places.items():
        doing = Counter(_doing(record) for record in records if record.alive)
        for what in DOING:
            living.add_metric([*place, what], doing[what])
        lost.add_metric(place, sum(not record.alive for record in records))
        age.add_metric(place, min(record.heartbeat_age_s for record in records))
    yield from (living, lost, age, _listeners(workers))
    yield from _vitals(places)


def _listeners(workers: Sequence[WorkerRecord]) -> Metric:
    listeners = GaugeMetricFamily(
        "pigeonhole_queue_workers",
        "Living workers that take doorbells from the queue; one that drains takes none.",
        labels=["queue"],
    )
    for queue in ALL_QUEUES:
        listeners.add_metric([queue], sum(record.takes(queue) for record in workers))
    return listeners


def _vitals(places: dict[Place, list[WorkerRecord]]) -> Iterator[Metric]:
    for name, text, vital, unit in _VITALS:
        family = GaugeMetricFamily(f"pigeonhole_{name}", text, labels=_LABELS)
        for place, records in places.items():
            values = [record.vitals[vital] for record in records if record.alive and vital in record.vitals]
            if values:
                family.add_metric(place, sum(values) * unit)
        yield family
    use = GaugeMetricFamily("pigeonhole_gpu_use_ratio", "Share of time in which the GPUs compute.", labels=_LABELS)
    for place, records in places.items():
        shares = [record.vitals["gpu_milli"] for record in records if record.alive and "gpu_milli" in record.vitals]
        if shares:
            use.add_metric(place, sum(shares) / len(shares) / 1e3)
    yield use


def _by_place(workers: Sequence[WorkerRecord]) -> dict[Place, list[WorkerRecord]]:
    places: defaultdict[Place, list[WorkerRecord]] = defaultdict(list)
    for record in workers:
        place = record.host[:100], record.device[:100]
        places[place if place in places or len(places) < MOST_PLACES else ("other", "other")].append(record)
    return dict(places)


def _doing(record: WorkerRecord) -> str:
    words = record.doing.split()
    return words[0] if words and words[0] in DOING else "other"
