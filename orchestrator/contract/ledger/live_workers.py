"""Which workers are alive, and what each one does. Every worker reports it every `HEARTBEAT_S`."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, cast, get_args

from orchestrator.contract.queues import ALL_QUEUES

if TYPE_CHECKING:
    import redis  # the type alone: commands show records without a server

PREFIX = "{pigeonhole}"  # one hash tag: all keys of a script are in one slot
WORKERS_KEY, SWEEPER_KEY = f"{PREFIX}:workers", f"{PREFIX}:sweeper"
HEARTBEAT_S = 2.0
ALIVE_S = 10.0  # a worker whose last heartbeat is older counts as gone
WORKER_TTL_S = 3600  # a worker whose last heartbeat is older is removed
VITALS = ("rss_bytes", "cpu_milli", "gpu_milli", "gpu_used_bytes", "gpu_total_bytes")  # whole numbers
ENDED_TTL_S = 3600  # how long it is known that a worker has ended by itself
SWEEP_S = 10.0  # after this, another worker may sweep: the sweep takes too long, or its worker died
SWEEP_PAUSE_S = 1.0  # between two sweeps, at least, however many workers there are


Drain = Literal["lines", "now"]
"""How a worker is drained: it keeps its lines open until other workers serve them, or closes them at once."""


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """What a worker reports with its heartbeats.

    vitals: of its processes, by `VITALS`: memory, thousandths of cores in use, and of its GPUs' time; empty at first.
    """

    worker: str
    host: str
    pid: int
    device: str
    queues: tuple[str, ...]
    doing: str  # idle, starting, draining, or the queue and job it works for
    since_s: float  # seconds since it began that
    num_images: int  # classified since it started
    heartbeat_age_s: float
    busy: bool = False  # holds a doorbell, as of its last heartbeat
    vitals: Mapping[str, int] = field(default_factory=dict)
    version: str = ""  # of Pigeonhole
    model_formats: tuple[int, ...] = ()  # that it reads
    draining: bool = False  # takes no more work, and ends
    drain: Drain | None = None  # what an operator has asked for
    trouble: str = ""  # what keeps it from working

    @property
    def alive(self) -> bool:
        return self.heartbeat_age_s < ALIVE_S

    @property
    def job(self) -> str | None:
        """The job that it works for."""
        words = self.doing.split()
        return words[1] if self.alive and len(words) == 2 and words[0] in ALL_QUEUES else None

    def takes(self, queue: str, version: str = "") -> bool:
        """Whether it takes doorbells from a queue, for a job that this version has begun; empty: that none has."""
        return self.alive and not self.draining and queue in self.queues and version in ("", self.version)

    def may_return(self, queue: str) -> bool:
        """Whether it took doorbells from a queue and is silent now, as all are at first after the server was away."""
        return not self.alive and not self.draining and queue in self.queues


@dataclass(frozen=True, slots=True)
class LiveWorkersSurvey:
    """The workers' records by name, and the names of those whose record no release of ours has written."""

    records: list[WorkerRecord]
    malformed: list[str]


class LiveWorkers:
    """The workers of one server; safe to share between threads."""

    def __init__(self, client: "redis.Redis", look_at_clock: Callable[[], float]) -> None:
        """look_at_clock: `Ledger.look_at_clock`."""
        self._client = client
        self._look_at_clock = look_at_clock

    def heartbeat(self, worker: str, facts: Mapping[str, str | int]) -> Drain | None:
        """Report that a worker lives, with facts about it; returns how an operator wants it to be drained."""
        key, now = f"{PREFIX}:worker:{worker}", self._look_at_clock()
        with self._client.pipeline(transaction=False) as pipeline:
            pipeline.hset(key, mapping={name: str(value) for name, value in facts.items()})
            pipeline.expire(key, WORKER_TTL_S)
            pipeline.zadd(WORKERS_KEY, {worker: now})
            pipeline.zremrangebyscore(WORKERS_KEY, "-inf", now - WORKER_TTL_S)
            pipeline.hget(key, "drain")
            return _drain(pipeline.execute()[-1])

    def request_drain(self, worker: str, drain: Drain) -> None:
        """Ask a worker to end; it learns of it with its next heartbeat."""
        key = f"{PREFIX}:worker:{worker}"
        with self._client.pipeline(transaction=False) as pipeline:
            pipeline.hset(key, "drain", drain)
            pipeline.expire(key, WORKER_TTL_S)
            pipeline.execute()

    def report_activity(self, worker: str, activity: str, trouble: str = "") -> None:
        """Report what a worker does from now on. trouble: what keeps it from working meanwhile."""
        key, now = f"{PREFIX}:worker:{worker}", self._now()
        with self._client.pipeline(transaction=False) as pipeline:
            pipeline.hset(key, mapping={"doing": activity, "doing_since": now, "trouble_at_work": trouble})
            pipeline.expire(key, WORKER_TTL_S)  # a pool child may report after its parent has removed the worker
            pipeline.execute()

    def count_images(self, worker: str, num_images: int) -> None:
        """Add to the number of images a worker has classified."""
        self._client.hincrby(f"{PREFIX}:worker:{worker}", "num_images", num_images)

    def remove(self, worker: str) -> None:
        """Forget a worker that ends by itself."""
        with self._client.pipeline(transaction=False) as pipeline:
            pipeline.zrem(WORKERS_KEY, worker)
            pipeline.delete(f"{PREFIX}:worker:{worker}")
            pipeline.set(f"{PREFIX}:ended:{worker}", 1, ex=ENDED_TTL_S)
            pipeline.execute()

    def has_ended(self, worker: str) -> bool:
        """Whether a worker has ended by itself within the last hour, having finished or handed back what it held."""
        return bool(self._client.exists(f"{PREFIX}:ended:{worker}"))

    def workers(self) -> list[WorkerRecord]:
        """The workers with a heartbeat within the last hour, by name; `alive` tells which still run."""
        return self.survey().records

    def survey(self) -> LiveWorkersSurvey:
        """The same workers, and those of which the record cannot be read: such a record must not hide the others."""
        import redis

        now = self._now()
        heartbeats = cast(
            list[tuple[str, float]],
            self._client.zrange(WORKERS_KEY, now - WORKER_TTL_S, "+inf", byscore=True, withscores=True),
        )
        with self._client.pipeline(transaction=False) as pipeline:
            for worker, _ in heartbeats:
                pipeline.hgetall(f"{PREFIX}:worker:{worker}")
            all_facts: list[dict[str, str] | Exception] = pipeline.execute(raise_on_error=False)
        survey = LiveWorkersSurvey([], [])
        for (worker, heartbeat), facts in zip(heartbeats, all_facts, strict=True):
            if isinstance(facts, redis.ResponseError):  # the key holds no hash
                survey.malformed.append(worker)
                continue
            if isinstance(facts, Exception):
                raise facts
            try:
                survey.records.append(_record(worker, facts, now=now, heartbeat=heartbeat))
            except ValueError:
                survey.malformed.append(worker)
        return LiveWorkersSurvey(sorted(survey.records, key=lambda record: record.worker), sorted(survey.malformed))

    def listeners(self, queue: str) -> list[str]:
        """The live workers that take doorbells from `queue`."""
        return [worker.worker for worker in self.workers() if worker.takes(queue)]

    def num_listeners(self, queue: str) -> int:
        return len(self.listeners(queue))

    def take_sweep(self, worker: str) -> bool:
        """Whether this worker may sweep now: one worker at a time does."""
        return bool(self._client.set(SWEEPER_KEY, worker, nx=True, px=round(SWEEP_S * 1000)))

    def keep_sweep(self) -> None:
        """Go on with a sweep of many jobs."""
        self._client.pexpire(SWEEPER_KEY, round(SWEEP_S * 1000))

    def end_sweep(self, worker: str, seconds: float) -> None:
        """Let any worker sweep again after a pause as long as this sweep was, `SWEEP_S` at most.

        A worker that was frozen meanwhile says nothing about the sweep of the next one.
        """
        if self._client.get(SWEEPER_KEY) == worker:
            self._client.pexpire(SWEEPER_KEY, round(min(max(SWEEP_PAUSE_S, seconds), SWEEP_S) * 1000))

    def _now(self) -> float:
        """Seconds since 1970 by the server's clock: the clocks of the workers' machines differ."""
        seconds, microseconds = self._client.time()
        return seconds + microseconds / 1e6


def _drain(value: str | None) -> Drain | None:
    return cast(Drain, value) if value in get_args(Drain) else None


def _record(worker: str, facts: Mapping[str, str], *, now: float, heartbeat: float) -> WorkerRecord:
    """The record of a worker from its hash; a worker whose hash has expired has only its name and heartbeat.

    Raises ValueError where the record is malformed.
    """
    since_s, num_images = now - float(facts.get("doing_since", now)), int(facts.get("num_images", 0))
    if not math.isfinite(since_s):
        raise ValueError(f"{facts['doing_since']!r} is not a time")
    return WorkerRecord(
        worker=worker,
        host=facts.get("host", "?"),
        pid=int(facts.get("pid", 0)),
        device=facts.get("device", "?"),
        queues=tuple(facts.get("queues", "").split(",")),
        doing=facts.get("doing", "starting"),
        busy=facts.get("busy") == "1",
        version=facts.get("version", ""),
        model_formats=tuple(int(number) for number in facts.get("model_formats", "").split(",") if number),
        draining=facts.get("draining") == "1",
        drain=_drain(facts.get("drain")),
        trouble="; ".join(filter(None, (facts.get("trouble"), facts.get("trouble_at_work")))),
        since_s=max(0.0, since_s),
        num_images=num_images,
        heartbeat_age_s=max(0.0, now - heartbeat),
        vitals={name: int(value) for name in VITALS if (value := facts.get(name, "")).isdecimal()},
    )
