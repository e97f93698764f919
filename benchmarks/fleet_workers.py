"""Simulated workers: they take doorbells, turns, claims and leases as real ones do, and classify nothing.

Each is a thread; a process holds many of them, and sends for them the heartbeats and sweeps of their parents. All that
talks to the server or to job folders is the code of the product, but for Celery's consumer, whose commands are sent
plainly, and for the slice, which only waits as long as a shard takes.
"""

import base64
import json
import random
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import redis

from orchestrator.contract.app import create_app, ring
from orchestrator.contract.jobs.end import conclude
from orchestrator.contract.jobs.job_folder import Outcome
from orchestrator.contract.ledger.ledger import FINALIZE_LEASE_S, Ledger, Need
from orchestrator.contract.ledger.live_workers import HEARTBEAT_S
from orchestrator.contract.ledger.turns import Turn
from orchestrator.contract.messages import Doorbell
from orchestrator.contract.queues import ALL_QUEUES, FINALIZE, queue_key
from orchestrator.contract.server import connect
from orchestrator.contract.settings import Settings
from workers import turns
from workers.context import WorkerContext
from workers.leases import Leases
from workers.sweep import sweep

TAKE_S = 1.0  # that a worker waits for a doorbell before it looks whether it is to end
IMAGES_A_SHARD = 64
SECONDS_A_SHARD = {"read": 0.1, "decode": 0.5, "predict": 1.4}


@dataclass(frozen=True)
class Fleet:
    """What every process of simulated workers gets. shard_s: of a shard, give or take a fifth."""

    home: Path
    url: str
    shard_s: float

    @property
    def settings(self) -> Settings:
        return Settings(home=self.home, server_url=self.url)  # type: ignore[arg-type]  # parsed by pydantic


@dataclass
class Noted:
    """What the workers of a process saw.

    commits: time and job. calls: seconds of each call of a script, by its name. sweeps: seconds of each.
    """

    commits: list[tuple[float, str]] = field(default_factory=list)
    calls: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    sweeps: list[float] = field(default_factory=list)
    ended: int = 0
    errors: list[str] = field(default_factory=list)


class TimedLedger(Ledger):
    """Notes how long the calls of scripts take."""

    def __init__(self, client: redis.Redis, noted: Noted) -> None:
        self._noted = noted
        super().__init__(client)

    def _run(self, script: str, keys: list[str], args: list[Any]) -> Any:
        started = time.perf_counter()
        try:
            return super()._run(script, keys, args)
        finally:
            self._noted.calls[script].append(time.perf_counter() - started)

    def needs(self, runs: Mapping[str, int], starving_s: float) -> dict[str, Need | Exception]:
        started = time.perf_counter()
        try:
            return super().needs(runs, starving_s)
        finally:
            self._noted.calls["needs"].append(time.perf_counter() - started)


def run_workers(fleet: Fleet, names: list[str], begin: Event, end: Event, seen: "Queue[Noted]") -> None:
    """Run workers of these names in this process until `end` is set; `seen` gets what they saw."""
    process = WorkersProcess(fleet, names, end)
    begin.wait()
    with patch.object(turns, "classify_slice", process.classify_slice), patch.object(turns, "end_job", process.end_job):
        process.run()
    seen.put(process.noted)


class WorkersProcess:
    """The workers of one process."""

    def __init__(self, fleet: Fleet, names: list[str], end: Event) -> None:
        self.noted = Noted()
        self._fleet = fleet
        self._names = names
        self._end = end
        self._app = create_app(fleet.url)
        self._client = connect(fleet.url)
        self._ledger = TimedLedger(self._client, self.noted)
        self._random = random.Random(names[0])

    def run(self) -> None:
        """Run every worker until the end."""
        threads = [threading.Thread(target=self._work, args=(name,), name=name) for name in self._names]
        threads.append(threading.Thread(target=self._maintain, name="maintenance"))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _ring(self, queue: str, job: str) -> None:
        ring(self._app, queue, job)

    # A worker

    def _work(self, name: str) -> None:
        context = WorkerContext(
            self._fleet.settings, self._ledger, cast(Any, None), name, "cpu", self._ring, self._end.is_set
        )
        while not self._end.is_set():
            try:
                if (taken := self._take()) is not None:
                    self._answer(*taken, context)
            except Exception as err:  # a worker goes on; the errors are reported
                self.noted.errors.append(f"{name}: {err!r}")

    def _take(self) -> tuple[str, str] | None:
        """The next doorbell: its queue and its job. As in kombu, another queue is the first one each time."""
        queues = self._random.sample(ALL_QUEUES, len(ALL_QUEUES))
        keys = {queue_key(queue): queue for queue in queues}
        found = cast("tuple[str, str] | None", self._client.brpop([*keys], timeout=cast(int, TAKE_S)))
        if found is None:
            return None
        body = json.loads(base64.b64decode(json.loads(found[1])["body"]))
        return keys[found[0]], Doorbell.parse(body[0][0], what="a doorbell").job

    def _answer(self, queue: str, named: str, context: WorkerContext) -> None:
        live_workers = self._ledger.live_workers
        live_workers.report_activity(context.worker, f"{queue} {named}")
        turn = turns.take_turn(queue, named, context)
        if isinstance(turn, Turn):
            turns.work_on(queue, turn, context)
        live_workers.report_activity(context.worker, "idle")

    def classify_slice(self, job: str, context: WorkerContext, turn: Turn) -> int:
        """Claim, wait and commit until the turn is over; its time begins at the first claim, as in the product."""
        ledger, request = context.recovering_ledger, context.folder(job).request()
        with Leases(context, request.job) as leases:
            deadline, over = time.monotonic() + (turn.seconds or context.settings.slice_s), False
            while not over:
                claim = ledger.claim(job, context.worker, context.settings.lease_s)
                if isinstance(claim, str):
                    leases.state = claim if claim != "none" else leases.state
                    break
                leases.add(claim)
                self._end.wait(self._fleet.shard_s * self._random.uniform(0.8, 1.2))
                _, state = ledger.commit(
                    claim, num_rows=IMAGES_A_SHARD, num_failed=0, seconds=SECONDS_A_SHARD,
                    counts={"images:ok": IMAGES_A_SHARD},
                )  # fmt: skip
                self.noted.commits.append((time.monotonic(), job))
                leases.drop(claim)
                leases.progressed()
                ledger.count_images(context.worker, IMAGES_A_SHARD)
                if state == "finalizing":
                    context.ring(FINALIZE, job)
                over = time.monotonic() > deadline or leases.num_claimed == turn.max_shards or context.draining()
        return leases.num_claimed

    def end_job(self, job: str, context: WorkerContext) -> None:
        """End a job whose shards are done, without publishing anything."""
        ledger = context.recovering_ledger
        state, fence = ledger.take_finalize_lease(job, context.worker, FINALIZE_LEASE_S)
        if fence is not None and state == "finalizing":
            conclude(
                context.folder(job), Outcome(state="succeeded", ended=datetime.now(UTC)), ledger, by=context.worker
            )
            self.noted.ended += 1

    # The maintenance of all workers

    def _maintain(self) -> None:
        """Heartbeats and sweeps, spread over their interval."""
        pause_s = HEARTBEAT_S / len(self._names)
        while not self._end.is_set():
            for name in self._names:
                self._heartbeat(name)
                self._sweep(name)
                if self._end.wait(pause_s):
                    return

    def _heartbeat(self, name: str) -> None:
        facts: dict[str, str | int] = {"host": "simulated", "pid": 1, "device": "cpu", "queues": ",".join(ALL_QUEUES)}
        self._client.hgetall("{pigeonhole}:home")  # as the check of the home
        self._ledger.live_workers.heartbeat(name, facts | {"busy": 1, "rss_bytes": 1 << 29, "cpu_milli": 1000})

    def _sweep(self, name: str) -> None:
        self._ledger.look_at_clock()
        if self._ledger.live_workers.take_sweep(name):
            started = time.monotonic()
            sweep(self._fleet.settings, self._ledger, self._ring)
            self.noted.sweeps.append(time.monotonic() - started)
            self._ledger.live_workers.end_sweep(name, self.noted.sweeps[-1])
