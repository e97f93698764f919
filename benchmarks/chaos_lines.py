"""Does every push get one decision in time, and at most one record, while workers and servers are killed?

    python -m benchmarks.chaos --lines --pushes 10000

Two runs with a server and two workers of their own, an open-loop load at a quarter of their capacity, a deadline of 2 s
a push. `workers`: the two are killed in turns, 20 s after the last kill and once both have the line open, and started
again: a machine so busy that a worker needs longer to open it kills less often, and never the only one that answers.
`all`: workers are killed and frozen, the server is killed, frozen and emptied, and the alias is moved, at seeded
moments. Afterwards every decision is compared with the records on the server and in the files, and with its deadline.
It prints decisions by reason; exit code 1 if a promise was broken. A machine that does other work besides breaks the
one about deadlines: 20 ms are little for a client that waits for a core.
"""

import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import psutil
import redis
from numpy.typing import NDArray

from benchmarks.chaos_lines_faults import FAULTS, NUM_WORKERS, Arena, kill_worker
from benchmarks.lines.bench import WARM_UP, WINDOW
from benchmarks.lines.ideal import poisson_arrivals_ms
from benchmarks.lines.load import Load
from benchmarks.lines.runs import MARGIN_MS, Generator, Outcome, Place
from benchmarks.lines.system import ALIAS, FALLBACK, LINE, Subject, line_settings, publish, publish_again
from benchmarks.machine import describe_run, keep
from benchmarks.throughput_folders import FOLDERS
from modeling.registry.store import ModelStore
from orchestrator.contract.lines.answers import request_key
from orchestrator.contract.lines.archive import AnswerArchive
from orchestrator.contract.lines.store import LineStore
from tests.support.server import Server, wait_until
from tests.support.workers import Cluster

Record = dict[str, Any]
LOAD, DEADLINE_MS = 0.25, 2_000
KILL_EVERY_S = 20.0
PREDICTED_SHARE = 0.80  # where workers alone were killed
OPEN_S = 300.0
NUM_IMAGES = 200


@contextmanager
def open_arena(folder: Path, subject: Subject, seed: int) -> Iterator[Arena]:
    """A server, two workers with the line open, and a load generator's place; all ended at the end."""
    cluster = Cluster(folder / "home", Server(), {"PYTHONPATH": str(Path(__file__).resolve().parents[1])})
    try:
        cluster.server.start()
        store = ModelStore(cluster.settings.models)
        version, _ = publish(store, subject)
        versions = [version, publish_again(store, version, folder / "again")]
        store.set_alias(version, ALIAS)
        FOLDERS[subject.folder](folder / "images", NUM_IMAGES)
        (folder / "runs").mkdir()
        load = Load("line", cluster.server.url, str(folder / "images"), "", "push", line=LINE, fallback=FALLBACK)
        arena = Arena(cluster, versions, Place(load, folder / "runs"), random.Random(seed))
        arena.registry.create(line_settings(version))
        for _ in range(NUM_WORKERS):
            cluster.start_worker(wait=False)
        wait_until(lambda: arena.num_open() == NUM_WORKERS, what="both workers have the line open", timeout_s=OPEN_S)
        yield arena
    finally:
        for worker in cluster.workers:
            with suppress(ProcessLookupError):
                os.killpg(worker.process.pid, signal.SIGKILL)
            worker.process.wait()
        cluster.server.stop()


def run_workers(arena: Arena, running: Generator) -> None:
    """Kill the workers in turns, each when the other answers, too."""
    following = time.monotonic() + KILL_EVERY_S / 2
    while running.sending:
        if time.monotonic() >= following and arena.num_open() >= NUM_WORKERS:
            _inject(arena, kill_worker)
            following = time.monotonic() + KILL_EVERY_S
        time.sleep(0.2)


def run_all(arena: Arena, running: Generator) -> None:
    """Inject every kind of fault."""
    following = time.monotonic() + 3
    while running.sending:
        arena.repairs.make()
        _replace_ended(arena)
        if time.monotonic() >= following:
            _inject(arena, arena.chance.choices(list(FAULTS), list(FAULTS.values()))[0])
            following = time.monotonic() + arena.chance.uniform(2, 9)
        time.sleep(0.05)
    arena.repairs.make(everything=True)


def _inject(arena: Arena, fault: Callable[[Arena], str | None]) -> None:
    with suppress(redis.RedisError, psutil.Error):
        if (text := fault(arena)) is not None:
            arena.faults[fault.__name__] += 1
            arena.log(text)


def _replace_ended(arena: Arena) -> None:
    """A worker may end where it finds no server at its start."""
    while len(arena.living()) < NUM_WORKERS:
        arena.faults["worker_ended"] += 1
        arena.cluster.start_worker(wait=False)


RUNS: dict[str, Callable[[Arena, Generator], None]] = {"workers": run_workers, "all": run_all}


def run(name: str, folder: Path, subject: Subject, num_pushes: int, seed: int) -> dict[str, Any]:
    """One run: its figures, and which promises were broken."""
    with open_arena(folder, subject, seed) as arena:
        arena.place.closed(WINDOW, WARM_UP)
        capacity = arena.place.closed(WINDOW, 3 * WARM_UP).rate()
        due_ms = poisson_arrivals_ms(LOAD * capacity, num_pushes, seed)
        arena.log(f"{name}: {num_pushes:,} pushes at {LOAD * capacity:.0f}/s, {due_ms[-1] / 1000:.0f} s")
        with arena.place.opening(due_ms, DEADLINE_MS) as running:
            running.start()
            RUNS[name](arena, running)
            outcome = running.outcome()
            item_name = running.load.name
        wait_until(lambda: arena.num_open() > 0, what="a worker has the line open again", timeout_s=OPEN_S)
        records = Records(arena.store, AnswerArchive(arena.registry.folder(LINE) / "answers"), item_name)
        found = [records.of(number) for number in range(num_pushes)]
        counted = counted_alone(arena.store)
        share, reported = PREDICTED_SHARE if name == "workers" else 0.0, counted["counted_disagreements"]
        conditions = Conditions(reported, arena.server_lost, arena.strikes, share)
        return judge(outcome, found, conditions) | {"faults": dict(arena.faults)} | counted


@dataclass(frozen=True)
class Conditions:
    """What a run may be held to.

    reported: disagreements that clients have reported to the line: only others are broken promises. server_lost: it
    forgot what it knew, so records may be missing, doubled or different. strikes: at the server, from and until, in
    seconds of `time.monotonic()`: who waited then may be told later. predicted_share: at least so many are predicted.
    """

    reported: int = 0
    server_lost: bool = False
    strikes: Sequence[tuple[float, float]] = ()
    predicted_share: float = 0.0


class Records:
    """The records of the pushes of a run, on the server and in the files."""

    def __init__(self, store: LineStore, archive: AnswerArchive, name: str) -> None:
        """name: of the load, which each of its items begins with."""
        self._name = name
        found: dict[bytes, bytes] = store.client.hgetall(store.key("answers"))  # type: ignore[assignment]
        self._on_server = {key.decode(): [record] for key, record in found.items()}
        self._archive = archive

    def of(self, number: int) -> list[Record]:
        """The different records of a push: one, if all is well."""
        key = request_key(f"{self._name}-{number}", 1)
        entries = [json.loads(entry) for entry in [*self._on_server.get(key, []), *self._archive.entries(key)]]
        records = [entry for entry in entries if "bin" in entry]
        return list({(each["bin"], each.get("reason"), each["answered_ms"]): each for each in records}.values())


def judge(outcome: Outcome, found: list[list[Record]], conditions: Conditions) -> dict[str, Any]:
    """Compare decisions with records and deadlines, and tell which promises were broken.

    found: the records of each push.
    """
    none, several = sum(not each for each in found), sum(len(each) > 1 for each in found)
    differ = sum(
        len(each) == 1 and each[0]["bin"] != decided for each, decided in zip(found, outcome.bin.tolist(), strict=True)
    )
    predicted, late_ms = float(outcome.predicted.mean()), outcome.lateness_ms
    late = int((outcome.later_than_margin & ~waited_during(outcome, conditions.strikes)).sum())
    broken = outcome.problems()
    broken += [f"{late} decisions came later than {MARGIN_MS:.0f} ms after their deadline"] if late else []
    if not conditions.server_lost:
        broken += [f"{none} decisions without a record"] if none else []
        broken += [f"{several} items with two records"] if several else []
        unsaid = differ - conditions.reported
        broken += [f"{unsaid} decisions differ from their record, and nobody has reported it"] if unsaid > 0 else []
    if predicted < conditions.predicted_share:
        broken.append(f"{predicted:.1%} predicted, {conditions.predicted_share:.0%} wanted")
    return {
        "pushes": len(outcome.due), "decisions": int((outcome.decisions == 1).sum()),
        "predicted_share": round(predicted, 4), "reasons": outcome.reasons(),
        "p50_ms": round(outcome.percentile(50), 1), "p99_ms": round(outcome.percentile(99), 1),
        "lateness_worst_ms": round(float(np.nanmax(late_ms)), 1), "later_than_20_ms": outcome.late_reasons(),
        "later_with_server_alive": late,
        "without_record": none, "with_two_records": several, "disagreements": differ,
        "versions": sorted(set(outcome.model[outcome.predicted].tolist())), "broken_promises": broken,
    }  # fmt: skip


def waited_during(outcome: Outcome, spans: Sequence[tuple[float, float]]) -> NDArray[np.bool_]:
    """Which pushes waited for their decision in one of these spans."""
    ends = np.fmax(outcome.done, outcome.due + outcome.deadline_ms / 1000)  # no decision: the deadline
    waited = np.zeros(len(ends), np.bool_)
    for start, end in spans:
        waited |= (outcome.due <= end) & (ends >= start)
    return waited


def counted_alone(store: LineStore) -> dict[str, int]:
    """What the line itself has counted of decisions that clients made alone."""
    counts = store.counts()
    return {f"counted_{name}": counts.get(name, 0) for name in ("disagreements", "delivered_alone")}


def show(name: str, figures: dict[str, Any]) -> None:
    """Print the table of a run."""
    print(f"{name}:")
    for key, value in figures.items():
        if key == "broken_promises":
            print("\n".join(f"    BROKEN: {text}" for text in value) or "    nothing broken")
        elif isinstance(value, dict):
            print(f"    {key}")
            print("\n".join(f"        {part:26}{number:>12,}" for part, number in value.items()))
        else:
            print(f"    {key:30}{value!s:>12}")


def main(runs: list[str], subject: Subject, num_pushes: int, seed: int) -> NoReturn:
    """Push images under faults, keep the figures, and exit."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that it ends the processes that it started
    figures = {}
    for name in runs:
        with tempfile.TemporaryDirectory(prefix="ph-chaos-") as folder:
            figures[name] = run(name, Path(folder), subject, num_pushes, seed)
        show(name, figures[name])
    keep(
        describe_run("chaos") | {"subject": subject.title, "pushes": num_pushes, "seed": seed, "figures": figures},
        "chaos-lines",
    )
    sys.exit(any(each["broken_promises"] for each in figures.values()))
