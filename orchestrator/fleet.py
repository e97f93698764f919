"""The workers of a server as an operator handles them: found by name, and drained."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.contract.errors import NotFoundError, PigeonholeError, UsageError
from orchestrator.contract.ledger.ledger import Ledger
from orchestrator.contract.ledger.live_workers import ALIVE_S, Drain, WorkerRecord
from orchestrator.contract.queues import QUEUE_OF_KIND

POLL_S = 0.5

DrainState = Literal["draining", "drained", "lost"]


def find_workers(records: Sequence[WorkerRecord], names: Sequence[str]) -> list[WorkerRecord]:
    """The living workers of these names; the beginning of a name will do where only one begins that way.

    Raises NotFoundError where there is none, UsageError where there are several, PigeonholeError where it is dead.
    """
    found = (_find(records, name) for name in names)
    return list({record.worker: record for record in found}.values())


def _find(records: Sequence[WorkerRecord], name: str) -> WorkerRecord:
    alive = [record for record in records if record.alive]
    matches = [record for record in alive if record.worker == name] or _begin_with(alive, name)
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UsageError(f"worker {name!r} is ambiguous: {_names(matches)}; give more of the name, or --all")
    if dead := _begin_with(records, name):
        age_s = min(record.heartbeat_age_s for record in dead)
        raise PigeonholeError(
            f"worker {_names(dead)} is frozen or dead: it was last seen {age_s:.0f} s ago; others have taken over its "
            "shards, and there is nothing to drain"
        )
    there = f"there are {_names(alive)}" if alive else "no worker is alive"
    raise NotFoundError(f"there is no worker {name!r}; {there}")


def _begin_with(records: Sequence[WorkerRecord], name: str) -> list[WorkerRecord]:
    return [record for record in records if name and record.worker.startswith(name)]


def _names(records: Sequence[WorkerRecord]) -> str:
    return ", ".join(record.worker for record in records)


@dataclass(frozen=True)
class DrainedWorker:
    """A worker that is being drained. doing: what it still does; why a lost one is lost."""

    worker: str
    state: DrainState
    doing: str


def drain(ledger: Ledger, workers: Sequence[WorkerRecord], how: Drain) -> Iterator[list[DrainedWorker]]:
    """Ask workers to end, and look at them again and again, until each has ended or shows no sign of life.

    The request is repeated for as long as a worker's record lacks it: the server may have been emptied. Waits while
    the server is away. A worker that wakes up later finds the request, and ends then.
    """
    names = [worker.worker for worker in workers]
    from orchestrator.contract.server import SERVER_ERRORS  # takes redis, which no help text needs

    seen = {name: time.monotonic() for name in names}
    ended: dict[str, DrainedWorker] = {}
    while True:
        try:
            records = {record.worker: record for record in ledger.live_workers.workers()}
            for name in names:
                if name not in ended:
                    _request(ledger, records.get(name), how)
            for name in names:
                state = ended.get(name) or _look(ledger, name, records.get(name), seen)
                if state.state != "draining":
                    ended[name] = state
        except SERVER_ERRORS:
            records = {}
        yield [ended.get(name) or _still(name, records.get(name)) for name in names]
        if len(ended) == len(names):
            return
        time.sleep(POLL_S)


def _request(ledger: Ledger, record: WorkerRecord | None, how: Drain) -> None:
    if record is not None and record.alive and record.drain != how:
        ledger.live_workers.request_drain(record.worker, how)


def _look(ledger: Ledger, name: str, record: WorkerRecord | None, seen: dict[str, float]) -> DrainedWorker:
    if record is not None and record.alive:
        seen[name] = time.monotonic()
        return _still(name, record)
    if ledger.live_workers.has_ended(name):
        return DrainedWorker(name, "drained", "")
    silent_s = record.heartbeat_age_s if record is not None else time.monotonic() - seen[name]
    if silent_s > ALIVE_S:
        return DrainedWorker(name, "lost", f"it was last seen {silent_s:.0f} s ago: it is frozen or dead")
    return _still(name, record)


def _still(name: str, record: WorkerRecord | None) -> DrainedWorker:
    return DrainedWorker(name, "draining", record.doing if record is not None else "the server is away")


def describe_waiting(ledger: Ledger) -> str:
    """The active jobs that no worker will be left for; empty where there are none."""
    records = [record for job in ledger.active() if (record := ledger.record(job)) is not None and not record.ended]
    workers = ledger.live_workers.workers()
    waiting = Counter(
        record.kind
        for record in records
        if not any(_stays(worker, QUEUE_OF_KIND.get(record.kind, "")) for worker in workers)
    )
    return ", ".join(f"{number} {kind}" for kind, number in sorted(waiting.items()))


def _stays(worker: WorkerRecord, queue: str) -> bool:
    return worker.takes(queue) and worker.drain is None
