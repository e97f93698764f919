"""Webhooks that wait to be delivered: when each is due, who sends it now, and how often it failed.

The disk says which jobs have one (`JobFolder.note_undelivered`); the sweep fills a server that was emptied, which then
counts attempts anew.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.contract.ledger.live_workers import PREFIX
from orchestrator.contract.messages import JOB_ID

if TYPE_CHECKING:
    import redis  # the type alone: commands show records without a server

DUE_KEY = f"{PREFIX}:webhooks"  # zset: job -> when it is due, in ms of the server's clock
_MOST_ERROR = 500


@dataclass(frozen=True, slots=True)
class DeliveryState:
    """A webhook that waits. attempts: begun so far. error: of the last one. due_in_s: until the next."""

    attempts: int
    error: str
    due_in_s: float


class Deliveries:
    """The webhooks of one server; safe to share between threads."""

    def __init__(self, client: "redis.Redis", run: Callable[[str, list[str], list[Any]], Any]) -> None:
        """run: runs a script of the ledger."""
        self._client = client
        self._run = run

    def add(self, job: str) -> None:
        """A job's webhook is to be delivered now; one that waits already is not changed."""
        self._client.zadd(DUE_KEY, {job: 0}, nx=True)

    def take(self, most: int, lease_s: float) -> list[tuple[str, int]]:
        """Take webhooks that are due: the jobs, and the number of each attempt.

        Each is due again after the lease, for the case that this process dies.
        """
        found = self._run("take_deliveries", [f"{DUE_KEY}:none", DUE_KEY], [most, round(lease_s * 1000), f"{DUE_KEY}:"])
        taken = [(job, int(attempt)) for job, attempt in found]
        for job in [job for job, _ in taken if not JOB_ID.fullmatch(job)]:  # somebody else's
            self.end(job)
        return [(job, attempt) for job, attempt in taken if JOB_ID.fullmatch(job)]

    def retry(self, job: str, after_s: float, error: str) -> None:
        """An attempt failed: the webhook is due again later."""
        self._run(
            "retry_delivery",
            [f"{DUE_KEY}:none", DUE_KEY, f"{DUE_KEY}:{job}"],
            [job, round(after_s * 1000), error[:_MOST_ERROR]],
        )

    def end(self, job: str) -> None:
        """A webhook was delivered, or given up."""
        with self._client.pipeline(transaction=False) as pipeline:
            pipeline.zrem(DUE_KEY, job)
            pipeline.delete(f"{DUE_KEY}:{job}")
            pipeline.execute()

    def num_waiting(self) -> int:
        """How many wait."""
        return self._client.zcard(DUE_KEY)

    def state(self, job: str) -> DeliveryState | None:
        """How a job's webhook stands; None where none waits."""
        with self._client.pipeline(transaction=False) as pipeline:
            pipeline.time()
            pipeline.zscore(DUE_KEY, job)
            pipeline.hmget(f"{DUE_KEY}:{job}", "attempts", "error")
            (seconds, microseconds), due_ms, (attempts, error) = pipeline.execute()
        if due_ms is None:
            return None
        due_in_s = due_ms / 1000 - seconds - microseconds / 1e6
        return DeliveryState(int(attempts or 0), error or "", max(0.0, due_in_s))
