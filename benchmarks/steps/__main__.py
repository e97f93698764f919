"""Is a job's result that of an undisturbed run, wherever a process is killed or frozen, and whatever call fails?

    python -m benchmarks.steps                                  every cell; an hour on 2 CPU cores
    python -m benchmarks.steps --steps shard,end.manifest       some tables or steps
    python -m benchmarks.steps --actions freeze --sample 20 --seed 3

A cell is a named step of the docs (tests/support/steps), a scenario (`scenarios.py`, `chores.py`) that reaches it, and
a fault: the process that reaches the step is killed before or after its call; it is frozen there until its lease has
run out and others have done its work; or the call fails, once, with an error of the system or of the connection. Then
the manifest, its sidecar and its summary (without times and names) are those of an undisturbed run. Or the command or
the job ends with an error that the step states; then nothing is half published, and what the operator does next (resume
the job, or run the command again) gives the undisturbed result. A step that is never reached counts as a failure.

Each cluster has a home, a server and two workers of its own, with leases of a few seconds. Prints a line for each cell
and a table; the last line is JSON and is kept in `benchmarks/results/`. Exit code 1 if a cell failed.
"""

import argparse
import os
import queue
import random
import sys
import tempfile
import threading
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from benchmarks.machine import describe_run, keep
from benchmarks.steps.cells import Cell
from benchmarks.steps.chores import CHORES, chore_cells, run_chores
from benchmarks.steps.scenarios import all_cells, open_scenario
from benchmarks.steps.trial import Trial, Tried
from tests.support.published_models import publish_model
from tests.support.server import running_server, wait_until
from tests.support.steps.faults import Faults
from tests.support.workers import WORKER_PATIENCE_S, open_cluster

NUM_WORKERS = 2
# A turn ends with its first shard: two fast workers would else have ended the job before one of them rings again.
SHORT = {"PIGEONHOLE_LEASE_S": "3", "PIGEONHOLE_SLICE_S": "0.01", "PIGEONHOLE_NOTIFY_ALLOW": "127.0.0.0/8"}
_AT_ONCE = 12  # cells of one scenario that a cluster takes


class Suite:
    """Cells that wait for a cluster, and what came of those that were tried."""

    def __init__(self, cells: list[Cell]) -> None:
        self.waiting: queue.SimpleQueue[list[Cell]] = queue.SimpleQueue()
        self.tried: list[Tried] = []
        self.broken: list[str] = []
        self.chores = [cell for cell in cells if cell.scenario in CHORES]
        cells = [cell for cell in cells if cell.scenario not in CHORES]
        for scenario in dict.fromkeys(cell.scenario for cell in cells):
            own = [cell for cell in cells if cell.scenario == scenario]
            for start in range(0, len(own), _AT_ONCE):
                self.waiting.put(own[start : start + _AT_ONCE])

    def run(self, num_clusters: int) -> None:
        """Try all cells, in so many clusters at once."""
        threads = []
        if self.chores:
            threads.append(threading.Thread(target=self._run_chores, name="chores"))
        if not self.waiting.empty():
            threads += [threading.Thread(target=self._run_cluster, name=f"cluster-{n}") for n in range(num_clusters)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except KeyboardInterrupt:
            while self._next() is not None:
                pass  # each cluster ends after the cells that it has
            raise

    def _run_chores(self) -> None:
        try:
            run_chores(self.chores, self._note)
        except Exception as err:
            self.broken.append(f"chores: {type(err).__name__}: {err}")
            raise

    def _run_cluster(self) -> None:
        try:
            with tempfile.TemporaryDirectory(prefix="ph-steps-") as folder, running_server() as server:
                home = Path(folder) / "home"
                publish_model(home / "models", "digits")
                (engines := Path(folder) / "engines").mkdir()
                faults = Faults(Path(folder) / "faults")
                for cluster in open_cluster(home, server, engines, **SHORT, **faults.environment()):
                    for _ in range(NUM_WORKERS):
                        cluster.start_worker(wait=False)
                    wait_until(
                        lambda cluster=cluster: all(worker.ready() for worker in cluster.workers),  # type: ignore[misc]
                        what="the workers are ready",
                        timeout_s=WORKER_PATIENCE_S,
                    )
                    while (cells := self._next()) is not None:
                        place = Path(tempfile.mkdtemp(dir=folder))
                        with open_scenario(cells[0].scenario, cluster, place, faults) as scenario:
                            for cell in cells:
                                self._note(Trial(cell, scenario, faults).run())
        except Exception as err:
            self.broken.append(f"{threading.current_thread().name}: {type(err).__name__}: {err}")
            raise

    def _next(self) -> list[Cell] | None:
        try:
            return self.waiting.get_nowait()
        except queue.Empty:
            return None

    def _note(self, tried: Tried) -> None:
        self.tried.append(tried)
        words = ", ".join([tried.end or "no end", *tried.helped])
        print(f"{tried.seconds:6.1f} s  {tried.cell}: {words}", flush=True)
        for problem in tried.problems:
            print(f"          FAILED {problem}", flush=True)


def chosen_cells(steps: str, actions: str, sample: int, seed: int) -> list[Cell]:
    """The cells of some steps or tables and actions; a random sample of them."""
    wanted, kinds = set(filter(None, steps.split(","))), set(filter(None, actions.split(",")))
    cells = [
        cell
        for cell in (*all_cells(), *chore_cells())
        if (not wanted or wanted & {cell.fault.step, cell.fault.step.partition(".")[0], cell.scenario})
        and (not kinds or cell.fault.action in kinds)
    ]
    if sample:
        cells = [
            cells[index] for index in sorted(random.Random(seed).sample(range(len(cells)), min(sample, len(cells))))
        ]
    return cells


def table(tried: list[Tried]) -> dict[str, dict[str, int]]:
    """How many cells of each table and fault ended how."""
    counts: dict[str, Counter[str]] = {}
    for each in tried:
        row = counts.setdefault(
            f"{each.cell.split()[0]} {each.step.partition('.')[0]} {each.how.split()[0]}", Counter()
        )
        row[each.end or "no end"] += 1
        row["failed"] += bool(each.problems)
    return {name: dict(row) for name, row in sorted(counts.items())}


def main() -> None:
    """Try the cells, and keep what came of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", default="", help="tables, steps or scenarios, with commas; default: all")
    parser.add_argument("--actions", default="", help="kill, freeze, error, with commas; default: all")
    parser.add_argument("--sample", type=int, default=0, help="so many cells, chosen at random; 0: all")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--clusters", type=int, default=max(2, len(os.sched_getaffinity(0))), help="at once")
    parser.add_argument("-o", "--output", type=Path, help="where to keep the result")
    arguments = parser.parse_args()
    suite = Suite(chosen_cells(arguments.steps, arguments.actions, arguments.sample, arguments.seed))
    suite.run(arguments.clusters)
    counts = table(suite.tried)
    for name, row in counts.items():
        print(f"    {name:60}" + "  ".join(f"{what} {number}" for what, number in row.items()))
    failed = [asdict(each) for each in suite.tried if each.problems]
    print(f"{len(suite.tried)} cells, {len(failed)} failed")
    figures = {"num_cells": len(suite.tried), "table": counts, "failed": failed, "broken": suite.broken}
    asked = {"steps": arguments.steps, "actions": arguments.actions, "sample": arguments.sample, "seed": arguments.seed}
    keep(describe_run("steps") | asked | {"figures": figures}, "steps", arguments.output)
    sys.exit(bool(failed or suite.broken or not suite.tried))


if __name__ == "__main__":
    main()
