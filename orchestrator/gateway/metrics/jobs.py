"""Metrics of jobs: what was done, what waits, and how much work that is."""

from collections import Counter
from collections.abc import Iterator
from typing import get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from orchestrator.contract.jobs.job_folder import FinalState
from orchestrator.contract.jobs.requests import Kind
from orchestrator.contract.ledger.counts import DELIVERY_OUTCOMES, ERROR_CODES, OUTCOMES
from orchestrator.contract.ledger.stages import STAGES, worker_seconds
from orchestrator.contract.queues import ALL_QUEUES, QUEUE_OF_KIND
from orchestrator.gateway.metrics.fleet import ActiveJob, Fleet

KINDS: tuple[Kind, ...] = get_args(Kind)
ACTIVE_STATES = ("queued", "running", "paused", "finalizing", "cancelling")
UNKNOWN_IMAGE_S = 0.05  # of a worker, where no image was ever counted
UNKNOWN_JOB_S = 600.0  # of a training or an evaluation, where none has ever ended
_LEAST_LEFT_S = 60.0  # of one that runs for longer than they usually do


def job_metrics(fleet: Fleet) -> Iterator[Metric]:
    """Of jobs, their images, the queues and the webhooks."""
    yield from _counted(fleet)
    jobs = GaugeMetricFamily("pigeonhole_jobs", "Active jobs.", labels=["kind", "state"])
    by_state = Counter((job.kind, job.state) for job in fleet.jobs)
    for kind in KINDS:
        for state in ACTIVE_STATES:
            jobs.add_metric([kind, state], by_state[kind, state])
    yield jobs
    yield GaugeMetricFamily("pigeonhole_jobs_active", "Active jobs, of any kind and state.", fleet.num_active)
    images = GaugeMetricFamily("pigeonhole_job_images", "Images of active classify jobs.", labels=["state"])
    classify = [job for job in fleet.jobs if job.kind == "classify"]
    failed = sum(job.num_failed for job in classify)
    images.add_metric(["waiting"], sum(max(0, job.num_images - job.num_done) for job in classify))
    images.add_metric(["ok"], sum(job.num_done for job in classify) - failed)
    images.add_metric(["failed"], failed)
    yield images
    yield from _queues(fleet)
    yield GaugeMetricFamily("pigeonhole_webhooks_waiting", "Webhooks that are not delivered yet.", fleet.num_webhooks)


def _counted(fleet: Fleet) -> Iterator[Metric]:
    """What the fleet has counted since the server was entered."""
    for name, text, label, values in (
        ("images", "Images of classify jobs by what became of them.", "outcome", OUTCOMES),
        ("errors", "Images of classify jobs that failed.", "code", ERROR_CODES),
        ("webhooks", "Attempts to deliver a webhook, and webhooks that were given up.", "outcome", DELIVERY_OUTCOMES),
    ):
        family = CounterMetricFamily(f"pigeonhole_{_METRIC.get(name, name)}", text, labels=[label])
        for value in values:
            family.add_metric([value], fleet.counts.get(f"{name}:{value}", 0))
        yield family
    stages = CounterMetricFamily(
        "pigeonhole_stage_seconds", "Seconds of whole workers that images of classify jobs took.", labels=["stage"]
    )
    for stage in STAGES:
        stages.add_metric([stage], fleet.counts.get(f"stage_us:{stage}", 0) / 1e6)
    yield stages
    ended = CounterMetricFamily("pigeonhole_jobs_ended", "Jobs that have ended.", labels=["kind", "state"])
    took = CounterMetricFamily("pigeonhole_job_seconds", "Seconds from a job's begin to its end.", labels=["kind"])
    for kind in KINDS:
        took.add_metric([kind], fleet.counts.get(f"job_ms:{kind}", 0) / 1e3)
        for state in get_args(FinalState):
            ended.add_metric([kind, state], fleet.counts.get(f"jobs:{kind}:{state}", 0))
    yield ended
    yield took


_METRIC = {"errors": "image_errors"}


def _queues(fleet: Fleet) -> Iterator[Metric]:
    doorbells = GaugeMetricFamily("pigeonhole_queue_doorbells", "Doorbells that wait.", labels=["queue"])
    oldest = GaugeMetricFamily(
        "pigeonhole_queue_oldest_seconds", "Age of the oldest job that no worker has begun.", labels=["queue"]
    )
    outstanding = GaugeMetricFamily(
        "pigeonhole_queue_outstanding_seconds", "Work that is left, in seconds of one worker.", labels=["queue"]
    )
    for queue in ALL_QUEUES:
        doorbells.add_metric([queue], fleet.doorbells[queue])
    for queue in dict.fromkeys(QUEUE_OF_KIND.values()):
        jobs = [job for job in fleet.jobs if QUEUE_OF_KIND.get(job.kind) == queue]
        ages = [fleet.now_ms - job.created_ms for job in jobs if job.state == "queued"]
        oldest.add_metric([queue], max(0, max(ages, default=0)) / 1e3)
        outstanding.add_metric([queue], sum(_left_s(job, fleet) for job in jobs))
    yield from (doorbells, oldest, outstanding)


def _left_s(job: ActiveJob, fleet: Fleet) -> float:
    """Seconds of one worker until a job is done; 0 while it cannot go on."""
    if job.state not in ("queued", "running"):
        return 0.0
    if job.kind == "classify":
        return max(0, job.num_images - job.num_done) * _image_s(job, fleet)
    num = sum(num for name, num in fleet.counts.items() if name.startswith(f"jobs:{job.kind}:"))
    whole_s = fleet.counts.get(f"job_ms:{job.kind}", 0) / 1e3 / num if num else UNKNOWN_JOB_S
    if not job.started_ms:
        return whole_s
    return max(_LEAST_LEFT_S, whole_s - (fleet.now_ms - job.started_ms) / 1e3)


def _image_s(job: ActiveJob, fleet: Fleet) -> float:
    """Seconds of one worker for an image: as measured in this job, else in all jobs."""
    if job.num_done and (spent_s := worker_seconds(job.stage_seconds)):
        return spent_s / job.num_done
    num = sum(fleet.counts.get(f"images:{outcome}", 0) for outcome in OUTCOMES)
    spent_s = worker_seconds({stage: fleet.counts.get(f"stage_us:{stage}", 0) / 1e6 for stage in STAGES})
    return spent_s / num if num and spent_s else UNKNOWN_IMAGE_S
