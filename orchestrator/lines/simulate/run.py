"""A simulation: the belt, the looks at the line's workers while it runs, and the burst after it."""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from orchestrator.contract.lines.answers import Answer
from orchestrator.contract.lines.settings import Line
from orchestrator.contract.lines.status import LineStatus
from orchestrator.contract.server import SERVER_ERRORS
from orchestrator.lines.client import LineClient
from orchestrator.lines.simulate.arrivals import Load, cycle_shuffled, read_ahead
from orchestrator.lines.simulate.belt import Belt, BeltPlan, Pusher, Sample
from orchestrator.lines.simulate.burst import Burst, Capacity, most_in_flight
from orchestrator.lines.simulate.figures import Figures, make_figures, missed_gate

LOOK_EVERY_S = 0.5
CONNECT_S = 5.0
_CONNECT_POLL_S = 0.01
LAST_ANSWERS_S = 2.0  # after the last deadline: clients decide within 20 ms of it


class LinePusher:
    """A line's client as a belt takes it."""

    def __init__(self, client: LineClient) -> None:
        self._client = client

    def connect(self) -> None:
        """Wait until the client has seen its line: the belt must not wait for connections."""
        deadline = time.monotonic() + CONNECT_S
        while self._client.line is None and time.monotonic() < deadline:
            time.sleep(_CONNECT_POLL_S)

    def submit(self, item: str, image: bytes, *, deadline_ms: float, due: float) -> "Future[Answer]":
        """The trigger's time goes to the client as time of day: it takes times of cameras and controllers."""
        triggered_at = time.time() - max(0.0, time.monotonic() - due)
        return self._client.submit(image, item, deadline=deadline_ms / 1000, triggered_at=triggered_at)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a simulation found.

    utilisation: the share of time that each worker's device worked for this line, on average while the belt ran; empty
    where no worker said. capacity: None where the burst was not run, or nothing was predicted.
    """

    line: str
    model: str
    load: Load
    plan: BeltPlan
    figures: Figures
    utilisation: dict[str, float]
    capacity: Capacity | None
    interrupted: bool
    samples: Sequence[Sample]

    def to_json(self) -> dict[str, Any]:
        """All but the samples."""
        capacity = asdict(self.capacity) | {"client_bound": self.capacity.client_bound} if self.capacity else None
        return {
            "line": self.line,
            "model": self.model,
            "load": asdict(self.load),
            "gate_ms": self.plan.gate_ms,
            "deadline_ms": self.plan.deadline_ms,
            "items": self.plan.prefix,
            "figures": self.figures.to_json(),
            "utilisation": self.utilisation,
            "capacity": capacity,
            "interrupted": self.interrupted,
        }


def plan_belt(load: Load, line: Line, prefix: str) -> BeltPlan:
    """The deadline is the gate, unless the line's own is shorter."""
    return BeltPlan(prefix, min(float(line.settings.deadline_ms), load.gate_ms), load.gate_ms)


class Simulation:
    """Runs one load on a line. Belt and burst have a thread of their own, so that showing progress delays no push."""

    def __init__(self, load: Load, line: Line, prefix: str, pusher: Pusher, look: Callable[[], LineStatus]) -> None:
        """prefix: of the items' names. look: asks the server about the line's workers."""
        self.load = load
        self.line = line
        self.plan = plan_belt(load, line, prefix)
        self.belt = Belt(self.plan, pusher)
        self._burst = Burst(f"{prefix}-burst", pusher)
        self._look = look
        self._seen: defaultdict[str, list[float]] = defaultdict(list)
        self._on_belt = True
        self._num_looked = 0
        self._num_missed = 0
        self._cpu_s = 0.0
        self._capacity: Capacity | None = None

    def run(self, paths: Sequence[Path], show: Callable[["Simulation"], None], *, burst: bool) -> Outcome:
        """show: called twice a second. After an interrupt the outcome is what was measured so far."""
        interrupted = False
        with ThreadPoolExecutor(1, thread_name_prefix="belt") as thread:
            running = thread.submit(self._drive, paths, burst)
            try:
                while wait([running], LOOK_EVERY_S).not_done:
                    self._look_at_workers()
                    show(self)
            except KeyboardInterrupt:
                interrupted = True
            finally:
                self.belt.stop()
                self._burst.stop()
            running.result()
        return self._outcome(interrupted)

    @property
    def is_on_belt(self) -> bool:
        """Whether the belt runs; afterwards it is the burst."""
        return self._on_belt

    @property
    def num_missed(self) -> int:
        """Items so far that passed the gate without a prediction."""
        while self._num_looked < len(self.belt.samples):
            self._num_missed += missed_gate(self.belt.samples[self._num_looked], self.plan)
            self._num_looked += 1
        return self._num_missed

    def _drive(self, paths: Sequence[Path], burst: bool) -> None:
        images = read_ahead(cycle_shuffled(paths, self.load.seed))
        cpu_s = time.process_time()
        self.belt.run(self.load.arrivals(), images)
        self.belt.wait_for_answers(self.plan.deadline_ms / 1000 + LAST_ANSWERS_S)
        self._cpu_s = time.process_time() - cpu_s
        self._on_belt = False
        if burst and not self.belt.stopped:
            image = next(images)
            self._capacity = self._burst.run(images, most_in_flight(self.line.settings, len(image)))

    def _look_at_workers(self) -> None:
        """A server that is away shows in the answers, so a look that fails is only missing."""
        if not self._on_belt:
            return
        try:
            status = self._look()
        except SERVER_ERRORS:
            return
        for worker in status.workers:
            used = worker.facts.get("utilisation")
            if worker.is_open and isinstance(used, int | float):
                self._seen[worker.worker].append(float(used))

    def _outcome(self, interrupted: bool) -> Outcome:
        samples = list(self.belt.samples)
        unanswered = [1000 * (sent_s - due_s) for due_s, sent_s in self.belt.pending.values()]
        figures = make_figures(
            samples, unanswered, self.plan, elapsed_s=self.belt.elapsed_s, cpu_s=self._cpu_s
        )  # fmt: skip
        return Outcome(
            line=self.line.name,
            model=self.line.settings.model,
            load=self.load,
            plan=self.plan,
            figures=figures,
            utilisation={worker: fmean(seen) for worker, seen in sorted(self._seen.items())},
            capacity=self._capacity,
            interrupted=interrupted,
            samples=samples,
        )
