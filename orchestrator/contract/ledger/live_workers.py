"""The roster: which workers live, and what each does. They say so themselves, every `BEAT_S`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import redis

PREFIX = "{pigeonhole}"  # one hash tag: all keys a script touches live in one slot
BEAT_S = 2.0
ALIVE_S = 10.0  # a worker whose last beat is older is not counted on
WORKER_TTL_S = 3600  # a worker that has not beaten for longer is struck off the list
SWEEP_S = 10.0  # a sweep that takes longer, or whose worker died, leaves the next one to another


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """What a worker says of itself with every beat."""

    worker: str
    host: str
    pid: int
    device: str
    queues: tuple[str, ...]
    doing: str  # idle, starting, draining, or the queue and job it works for
    since_s: float  # seconds it has done that
    num_images: int  # answered since it started
    beat_age_s: float
    busy: bool = False  # holds a doorbell, as of its last beat

    @property
    def alive(self) -> bool:
        """Whether its last beat is recent."""
        return self.beat_age_s < ALIVE_S


class Roster:
    """The workers of one server; safe to share between threads."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client

    def beat(self, worker: str, facts: Mapping[str, str | int]) -> None:
        """Say that a worker lives, and what it is."""
        key, now = f"{PREFIX}:worker:{worker}", self._now()
        with self.client.pipeline(transaction=False) as pipeline:
            pipeline.hset(key, mapping={name: str(value) for name, value in facts.items()})
            pipeline.expire(key, WORKER_TTL_S)
            pipeline.zadd(f"{PREFIX}:workers", {worker: now})
            pipeline.zremrangebyscore(f"{PREFIX}:workers", "-inf", now - WORKER_TTL_S)
            pipeline.execute()

    def say_doing(self, worker: str, doing: str) -> None:
        """Say what a worker does from now on."""
        key, now = f"{PREFIX}:worker:{worker}", self._now()
        with self.client.pipeline(transaction=False) as pipeline:
            pipeline.hset(key, mapping={"doing": doing, "doing_since": now})
            pipeline.expire(key, WORKER_TTL_S)  # a child outlives its parent's farewell
            pipeline.execute()

    def count_images(self, worker: str, num_images: int) -> None:
        """Add to the images a worker has answered."""
        self.client.hincrby(f"{PREFIX}:worker:{worker}", "num_images", num_images)

    def forget_worker(self, worker: str) -> None:
        """Strike a worker that has ended off the list."""
        self.client.zrem(f"{PREFIX}:workers", worker)
        self.client.delete(f"{PREFIX}:worker:{worker}")

    def workers(self) -> list[WorkerRecord]:
        """The workers that beat within the last hour, by name; `alive` tells which are there now."""
        now = self._now()
        oldest = now - WORKER_TTL_S
        beats = cast(
            list[tuple[str, float]],
            self.client.zrange(f"{PREFIX}:workers", oldest, "+inf", byscore=True, withscores=True),
        )
        with self.client.pipeline(transaction=False) as pipeline:
            for worker, _ in beats:
                pipeline.hgetall(f"{PREFIX}:worker:{worker}")
            all_facts: list[dict[str, str]] = pipeline.execute()
        records = []
        for (worker, beat), facts in zip(beats, all_facts, strict=True):
            records.append(
                WorkerRecord(
                    worker=worker,
                    host=facts.get("host", "?"),
                    pid=int(facts.get("pid", 0)),
                    device=facts.get("device", "?"),
                    queues=tuple(facts.get("queues", "").split(",")),
                    doing=facts.get("doing", "starting"),
                    busy=facts.get("busy") == "1",
                    since_s=max(0.0, now - float(facts.get("doing_since", now))),
                    num_images=int(facts.get("num_images", 0)),
                    beat_age_s=max(0.0, now - beat),
                )
            )
        return sorted(records, key=lambda record: record.worker)

    def num_listeners(self, queue: str) -> int:
        """Number of living workers that take doorbells from `queue`."""
        return sum(worker.alive and queue in worker.queues for worker in self.workers())

    def num_idle(self, queue: str) -> int:
        """Number of living workers that listen to `queue` and have nothing to do."""
        return sum(worker.alive and not worker.busy and queue in worker.queues for worker in self.workers())

    def take_sweep(self, worker: str) -> bool:
        """Whether it is this worker's turn to look after the jobs: one at a time does, however many there are."""
        return bool(self.client.set(f"{PREFIX}:sweeper", worker, nx=True, px=round(SWEEP_S * 1000)))

    def end_sweep(self) -> None:
        """Leave the next sweep to whoever comes first."""
        self.client.delete(f"{PREFIX}:sweeper")

    def _now(self) -> float:
        """Seconds since 1970 by the server's clock: those of many machines differ."""
        seconds, microseconds = self.client.time()
        return seconds + microseconds / 1e6
