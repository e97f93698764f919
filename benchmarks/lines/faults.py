"""Parts: every worker dead or frozen while the server lives, and an alias that moves under load."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np

from benchmarks.lines.bench import Bench, Row, median, wait_for
from benchmarks.lines.runs import MARGIN_MS, Outcome
from benchmarks.lines.system import ALIAS
from modeling.registry.store import ModelStore

QUARTER, DEADLINE_MS = 0.25, 500
LOAD_S, FAULT_AFTER_S, FROZEN_S = 12.0, 3.0, 4.0
NUM_MOVES, MOVE_EVERY_S, MOVED_DEADLINE_MS = 100, 0.2, 5_000


def dead_workers(bench: Bench) -> list[Row]:
    """All workers frozen for some seconds, then all killed: when the living client has its answers."""
    rate = QUARTER * bench.capacity()
    rows = []
    for name in ("frozen", "killed"):
        due_ms = bench.arrivals(rate, 0, LOAD_S)
        with bench.place.opening(due_ms, DEADLINE_MS) as running:
            running.start()
            time.sleep(FAULT_AFTER_S)
            if name == "frozen":
                bench.system.signal_workers(signal.SIGSTOP)
                time.sleep(FROZEN_S)
                bench.system.signal_workers(signal.SIGCONT)
            else:
                bench.system.signal_workers(signal.SIGKILL)
            outcome = running.outcome()
        rows.append(_row_of_dead(name, outcome))
    bench.system.stack.up(["cpu"])
    bench.system.wait_until_open()
    return rows


def _row_of_dead(name: str, outcome: Outcome) -> Row:
    late = outcome.lateness_ms[outcome.was_sent]
    worst = float(np.nanmax(late))
    figures = {
        "pushes": outcome.num_sent, "reasons": outcome.reasons(), "worst_lateness_ms": round(worst, 1),
        "later_than_20_ms": outcome.late_reasons(), "problems": outcome.problems(),
    }  # fmt: skip
    met = worst <= MARGIN_MS and not figures["problems"] and not np.isnan(late).any()
    num_late = sum(outcome.late_reasons().values())
    value = f"{worst:.1f} ms after the deadline at worst, {num_late} later; {outcome.reasons()}"
    what = f"every worker {name}, server alive: answers at living clients"
    return Row(what, f"all, within {MARGIN_MS:.0f} ms after the deadline", value, met, figures)


def moved_alias(bench: Bench) -> list[Row]:
    """p99 while the alias moves 100 times, over p99 of the same load undisturbed; the first load is stated apart."""
    first_load_s = _first_load(bench)
    rate = bench.capacity() / 2
    moved, quiet, errors, versions = [], [], 0, set()
    for repeat in range(bench.options.repeats):
        due_ms = bench.arrivals(rate, repeat, NUM_MOVES * MOVE_EVERY_S)
        undisturbed = bench.place.opened(due_ms, MOVED_DEADLINE_MS)
        with _moving(bench):
            outcome = bench.place.opened(due_ms, MOVED_DEADLINE_MS)
        quiet.append(undisturbed.percentile(99))
        moved.append(outcome.percentile(99))
        errors += int((outcome.was_sent & ~outcome.predicted).sum()) + len(outcome.problems())
        versions |= set(outcome.model[outcome.predicted].tolist())
    cores, _ = bench.library.machines()
    more, batch_ms = median([a - b for a, b in zip(moved, quiet, strict=True)], 2), max(cores.batch_ms)
    figures = {
        "p99_ms": median(moved, 2), "undisturbed_p99_ms": median(quiet, 2), "more_ms": more, "errors": errors,
        "batch_ms": round(batch_ms, 2), "first_load_s": round(first_load_s, 2), "versions": sorted(versions),
    }  # fmt: skip
    value = f"{errors} errors, p99 {more} ms more, a batch {batch_ms:.1f} ms; first load {first_load_s:.1f} s"
    met = errors == 0 and more <= batch_ms and len(versions) == 2
    what = f"alias moved {NUM_MOVES} times under load, both versions resident"
    return [Row(what, "0 errors, p99 + one batch", value, met, figures)]


def _first_load(bench: Bench) -> float:
    """Seconds until the line answers with the other version for the first time, and then with the first one again."""
    seconds = []
    for version in (bench.system.versions[1], bench.system.versions[0]):
        _point(bench, version.version)
        seconds.append(wait_for(partial(_answers, bench, version.ref), f"{version.ref} answers", 120))
    return seconds[0]


def _answers(bench: Bench, ref: str) -> bool:
    return str(bench.place.closed(1, 1).model[0]) == ref


def _point(bench: Bench, number: int) -> None:
    ModelStore(bench.system.settings.models).set_alias(bench.system.versions[number - 1], ALIAS)


@contextmanager
def _moving(bench: Bench) -> Iterator[None]:
    """The alias moves to and fro in the block; afterwards it points to the first version."""
    stopping = threading.Event()

    def move() -> None:
        for number in range(NUM_MOVES):
            if stopping.wait(MOVE_EVERY_S):
                return
            _point(bench, 2 - number % 2)

    mover = threading.Thread(target=move)
    mover.start()
    try:
        yield
    finally:
        stopping.set()
        mover.join()
        _point(bench, 1)
