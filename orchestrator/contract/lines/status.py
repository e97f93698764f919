"""A line as it runs now: its state, what waits, and the workers that have it open."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from orchestrator.contract.lines.settings import Line
from orchestrator.contract.lines.store import LineStore

LineState = Literal["opening", "open", "paused"]


@dataclass(frozen=True, slots=True)
class WorkerOfLine:
    """A worker that has reported for a line within the last hour.

    alive: its last report still counts. facts: what it says of itself (`LineStore.report_capacity`). Known keys:
    state: `opening` while it loads and warms the model, then `open`; model, degraded: `name@version`; map_version: of
    the bin map it uses; bound_ms: the longest wait of a push for the device; trouble: why it cannot open the line;
    loading: what takes seconds before a model is ready; draining: it closes the line as soon as another serves it.
    """

    worker: str
    alive: bool
    ms_per_image: float = 0.0
    lead_ms: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def is_open(self) -> bool:
        return self.alive and self.facts.get("state") == "open"

    @property
    def draining(self) -> bool:
        return self.facts.get("draining") is True

    @property
    def trouble(self) -> str | None:
        return _text(self.facts.get("trouble"))

    @property
    def loading(self) -> str | None:
        return _text(self.facts.get("loading"))


@dataclass(frozen=True, slots=True)
class LineStatus:
    """What the server knows of a line at one moment. num_held: of those that wait, so many are at workers."""

    state: LineState
    num_waiting: int
    bytes_waiting: int
    num_held: int
    num_answers: int  # on the server; older ones are in files
    workers: tuple[WorkerOfLine, ...]

    @property
    def bound_ms(self) -> float | None:
        """The longest wait of a push for a device, over all open workers; None where none says it."""
        bounds = [worker.facts.get("bound_ms") for worker in self.workers if worker.is_open]
        return max((float(bound) for bound in bounds if isinstance(bound, int | float)), default=None)

    @property
    def answer_ms(self) -> float | None:
        """How long an image that is pushed now would take if it were due last, as admission has it.

        None without an open worker.
        """
        able = [worker for worker in self.workers if worker.is_open and worker.ms_per_image > 0]
        if not able:
            return None
        per_ms = sum(1 / worker.ms_per_image for worker in able)
        return (self.num_waiting + 1) / per_ms + min(worker.lead_ms for worker in able)


def read_status(store: LineStore, line: Line) -> LineStatus:
    """Ask the line's server, in one round trip."""
    with store.client.pipeline(transaction=False) as pipeline:
        pipeline.time()
        pipeline.zcard(store.key("deadlines"))
        pipeline.hget(store.key("line"), "bytes")
        pipeline.zcard(store.key("leases"))
        pipeline.hlen(store.key("answers"))
        pipeline.hgetall(store.key("capacity"))
        pipeline.hgetall(store.key("workers"))
        (seconds, microseconds), num_waiting, size, num_held, num_answers, capacity, facts = pipeline.execute()
    now_ms = seconds * 1000 + microseconds // 1000
    workers = _workers(capacity, facts, now_ms)
    size = int(size) if (size or b"").isdigit() else 0  # who may push to a line may write to its keys
    return LineStatus(_state(line, workers), num_waiting, size, num_held, num_answers, workers)


def _state(line: Line, workers: tuple[WorkerOfLine, ...]) -> LineState:
    if line.paused:
        return "paused"
    return "open" if any(worker.is_open for worker in workers) else "opening"


def _workers(capacity: Mapping[bytes, bytes], facts: Mapping[bytes, bytes], now_ms: int) -> tuple[WorkerOfLine, ...]:
    return tuple(_worker(name, capacity[name], facts.get(name, b"{}"), now_ms) for name in sorted(capacity))


def _worker(name: bytes, capacity: bytes, facts: bytes, now_ms: int) -> WorkerOfLine:
    """What a worker of another release has written must not hide the others."""
    shown = name.decode(errors="backslashreplace")
    try:
        until, ms_per_image, lead_ms = (float(value) for value in capacity.split()[:3])
        decoded = json.loads(facts)  # not by pydantic: shown as they are
    except (ValueError, RecursionError):
        return WorkerOfLine(shown, alive=False, facts={"trouble": "its report cannot be read"})
    return WorkerOfLine(shown, until > now_ms, ms_per_image, lead_ms, decoded if isinstance(decoded, dict) else {})


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
