"""What the chaos run observes on the server: how soon shards of dead workers are taken over, and the doorbells."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import redis

from orchestrator.contract.ledger.live_workers import PREFIX
from orchestrator.contract.queues import ALL_QUEUES, queue_key

TICK_S = 0.05


@dataclass
class Takeover:
    """A shard whose worker died, until another worker has it or it is done."""

    job: str
    shard: str
    holder: str  # fence and worker, as the ledger has them
    died: float
    seconds: float | None = None
    disturbed: str = ""  # why it does not count: the server had a fault, or no other worker was healthy
    others: dict[str, str] = field(default_factory=dict)  # the activity of the workers when it was late

    def waited_its_turn(self) -> bool:
        """Whether every other worker was in a slice of another job: then this job waits its turn like any job."""
        dead = self.holder.partition(" ")[2]
        others = [
            activity for worker, activity in self.others.items() if worker != dead or not activity.endswith(self.job)
        ]
        return bool(others) and not any(text.endswith(self.job) or text == "idle" for text in others)


class Monitor(threading.Thread):
    """Polls the server many times per second, with its own connection."""

    def __init__(self, url: str, able: Callable[[], bool], late_s: float) -> None:
        super().__init__(name="monitor", daemon=True)
        # Any: redis-py's replies are typed as if they might be bytes
        self._client: Any = redis.Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1, decode_responses=True)
        self._able = able  # whether a worker is healthy
        self._late_s = late_s
        self.tick_s = TICK_S
        self._pending: list[Takeover] = []
        self._lock = threading.Lock()
        self.stopping = threading.Event()
        self.takeovers: list[Takeover] = []
        self.most_doorbells = 0
        self.standstill_s = 0.0  # longest time without progress while a worker and the server were healthy
        self.standstill: dict[str, str] = {}  # the activity of the workers then
        self._progress: dict[str, str | None] = {}
        self._moved = time.monotonic()

    def run(self) -> None:
        """Poll until `stopping` is set."""
        while not self.stopping.wait(self.tick_s):
            try:
                self._poll()
            except redis.RedisError as err:
                self.disturb(f"the monitor cannot read the server: {err!r}")

    def died(self, worker: str) -> int:
        """Follow the shards of a worker, by its name, that was just killed; returns their number."""
        now, held = time.monotonic(), []
        try:
            for job in self._client.smembers(f"{PREFIX}:active"):
                holders = self._client.hgetall(f"{PREFIX}:job:{job}:holders")
                held += [
                    Takeover(job, shard, who, now)
                    for shard, who in holders.items()
                    if worker and who.endswith(f" {worker}")
                ]
        except redis.RedisError:
            return 0
        with self._lock:
            self._pending += held
        return len(held)

    def disturb(self, why: str) -> None:
        """Do not count the pending takeovers: they say nothing about a healthy server."""
        with self._lock:
            for takeover in self._pending:
                takeover.disturbed = takeover.disturbed or why
        self._moved = time.monotonic()

    def is_following(self) -> bool:
        """Whether there are pending takeovers that count."""
        with self._lock:
            return any(not takeover.disturbed for takeover in self._pending)

    def _poll(self) -> None:
        self.most_doorbells = max(self.most_doorbells, sum(self._client.llen(queue_key(queue)) for queue in ALL_QUEUES))
        with self._lock:
            pending = list(self._pending)
        healthy = self._able()
        self._check_standstill(healthy)
        for takeover in pending:
            takeover.disturbed = takeover.disturbed or ("" if healthy else "no other worker was healthy")
            if self._client.hget(f"{PREFIX}:job:{takeover.job}:holders", takeover.shard) != takeover.holder:
                takeover.seconds = time.monotonic() - takeover.died
                self._close(takeover)
            elif not takeover.others and time.monotonic() - takeover.died > self._late_s:
                takeover.others = self._activities()

    def _check_standstill(self, healthy: bool) -> None:
        jobs = sorted(self._client.smembers(f"{PREFIX}:active"))
        progress = {job: self._client.hget(f"{PREFIX}:job:{job}", "shards_done") for job in jobs if job[0] == "c"}
        if not healthy or not progress or progress != self._progress:
            self._progress, self._moved = progress, time.monotonic()
        stood = time.monotonic() - self._moved
        if stood > self.standstill_s:
            if stood > 2 and int(stood) > int(self.standstill_s):
                self.standstill = self._activities()
            self.standstill_s = stood

    def _close(self, takeover: Takeover) -> None:
        with self._lock:
            self._pending.remove(takeover)
        self.takeovers.append(takeover)

    def _activities(self) -> dict[str, str]:
        """The activity that every worker reports."""
        workers = self._client.zrange(f"{PREFIX}:workers", 0, -1)
        return {worker: self._client.hget(f"{PREFIX}:worker:{worker}", "doing") or "starting" for worker in workers}
