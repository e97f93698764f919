"""What the chaos run observes on the server: how soon shards of dead workers are taken over, and the doorbells."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import redis

from orchestrator.contract.ledger.ledger import PREFIX
from orchestrator.contract.queues import ALL_QUEUES

TICK_S = 0.05


@dataclass
class Takeover:
    """A shard whose worker died, until somebody else has it or it is done."""

    job: str
    shard: str
    holder: str  # fence and worker, as the ledger has them
    died: float
    seconds: float | None = None
    disturbed: str = ""  # why it says nothing: the server was hurt meanwhile, or no other worker was whole
    others: dict[str, str] = field(default_factory=dict)  # what the workers said they did when it got late

    def waited_its_turn(self) -> bool:
        """Whether every other worker was in its slice for another job: then this one waits as any job does."""
        dead = self.holder.partition(" ")[2]
        others = [doing for worker, doing in self.others.items() if worker != dead or not doing.endswith(self.job)]
        return bool(others) and not any(doing.endswith(self.job) or doing == "idle" for doing in others)


class Watch(threading.Thread):
    """Looks at the server many times a second, with a line of its own."""

    def __init__(self, url: str, able: Callable[[], bool], late_s: float) -> None:
        super().__init__(name="watch", daemon=True)
        self._client = redis.Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1, decode_responses=True)
        self._able = able  # whether some worker is whole
        self._late_s = late_s
        self._pending: list[Takeover] = []
        self._lock = threading.Lock()
        self.leaving = threading.Event()
        self.takeovers: list[Takeover] = []
        self.most_bells = 0
        self.standstill_s = 0.0  # longest time without progress though a worker and the server were whole
        self.standstill: dict[str, str] = {}  # what the workers said then
        self._progress: dict[str, str | None] = {}
        self._moved = time.monotonic()

    def run(self) -> None:
        """Until told to leave."""
        while not self.leaving.wait(TICK_S):
            try:
                self._look()
            except redis.RedisError as err:
                self.disturb(f"the watch cannot look: {err!r}")

    def died(self, worker: str) -> int:
        """Follow what the worker that was just killed held; returns the number of shards."""
        now, held = time.monotonic(), []
        try:
            for job in self._client.smembers(f"{PREFIX}:active"):
                holders = self._client.hgetall(f"{PREFIX}:job:{job}:holders")
                held += [Takeover(job, shard, who, now) for shard, who in holders.items() if who.endswith(f" {worker}")]
        except redis.RedisError:
            return 0
        with self._lock:
            self._pending += held
        return len(held)

    def disturb(self, why: str) -> None:
        """What is open now says nothing about a whole server."""
        with self._lock:
            for takeover in self._pending:
                takeover.disturbed = takeover.disturbed or why
        self._moved = time.monotonic()

    def is_following(self) -> bool:
        """Whether shards of a dead worker wait for another, and nothing has disturbed that."""
        with self._lock:
            return any(not takeover.disturbed for takeover in self._pending)

    def _look(self) -> None:
        self.most_bells = max(self.most_bells, sum(self._client.llen(queue) for queue in ALL_QUEUES))
        with self._lock:
            pending = list(self._pending)
        whole = self._able()
        self._look_for_standstill(whole)
        for takeover in pending:
            takeover.disturbed = takeover.disturbed or ("" if whole else "no other worker was whole")
            if self._client.hget(f"{PREFIX}:job:{takeover.job}:holders", takeover.shard) != takeover.holder:
                takeover.seconds = time.monotonic() - takeover.died
                self._close(takeover)
            elif not takeover.others and time.monotonic() - takeover.died > self._late_s:
                takeover.others = self._doing()

    def _look_for_standstill(self, whole: bool) -> None:
        jobs = sorted(self._client.smembers(f"{PREFIX}:active"))
        progress = {job: self._client.hget(f"{PREFIX}:job:{job}", "shards_done") for job in jobs if job[0] == "c"}
        if not whole or not progress or progress != self._progress:
            self._progress, self._moved = progress, time.monotonic()
        stood = time.monotonic() - self._moved
        if stood > self.standstill_s:
            if stood > 2 and int(stood) > int(self.standstill_s):
                self.standstill = self._doing()
            self.standstill_s = stood

    def _close(self, takeover: Takeover) -> None:
        with self._lock:
            self._pending.remove(takeover)
        self.takeovers.append(takeover)

    def _doing(self) -> dict[str, str]:
        """What every worker on the list says it does."""
        workers = self._client.zrange(f"{PREFIX}:workers", 0, -1)
        return {worker: self._client.hget(f"{PREFIX}:worker:{worker}", "doing") or "starting" for worker in workers}
