"""Parts: deadlines of two kinds near capacity, and three times the capacity."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.lines.bench import Bench, Row, median
from benchmarks.lines.ideal import simulate
from benchmarks.lines.runs import Outcome

SHORT_MS, LONG_MS, LOAD = 100, 400, 0.95
MISSED_SHARE = 0.01
OVERLOAD, OVERLOAD_DEADLINE_MS = 3.0, 500
ADMITTED_SHARE, GOODPUT_SHARE = 0.99, 0.95
WARM_S = 1.0  # after which a queue has its length


def mixed(bench: Bench) -> list[Row]:
    """Deadlines of 100 and 400 ms at 95 % load, by deadline and by arrival, in turns.

    First in, first out is the same line where every push has the long deadline: then the order of deadlines is that of
    arrival. An answer counts where it came within the request's own deadline.
    """
    cores, _ = bench.library.machines()
    found: dict[str, list[float]] = {name: [] for name in ("ours", "fifo", "missed", "ideal", "ideal_fifo")}
    for repeat in range(bench.options.repeats):
        rate = LOAD * bench.capacity()
        due_ms = bench.arrivals(rate, repeat)
        deadlines_ms = np.random.default_rng(repeat).choice([SHORT_MS, LONG_MS], len(due_ms))
        ours = bench.place.opened(due_ms, deadlines_ms)
        fifo = bench.place.opened(due_ms, LONG_MS)
        found["ours"].append(float(ours.in_time.mean()))
        found["fifo"].append(float((fifo.predicted & (fifo.latency_ms <= deadlines_ms)).mean()))
        found["missed"].append(_missed(ours))
        ideal = simulate(due_ms, cores, deadlines_ms=deadlines_ms, order="deadline", drop=True)
        by_arrival = simulate(due_ms, cores, deadlines_ms=deadlines_ms, drop=True)
        found["ideal"].append(float((~np.isnan(ideal)).mean()))
        found["ideal_fifo"].append(float((~np.isnan(by_arrival)).mean()))
    figures: dict[str, Any] = {name: median(values, 4) for name, values in found.items()}
    figures |= {"per_second": round(rate, 1), "reasons": ours.reasons()}
    value = f"{figures['ours']:.2%}, first in, first out {figures['fifo']:.2%}"
    what = f"deadlines of {SHORT_MS} and {LONG_MS} ms mixed at 95 % load: predicted in time, of all offered"
    more = Row(what, "more than first-in-first-out", value, figures["ours"] > figures["fifo"], figures)
    missed = figures["missed"]
    return [more, Row("the same: missed among admitted", "under 1 %", f"{missed:.2%}", missed < MISSED_SHARE)]


def overload(bench: Bench) -> list[Row]:
    """Three times the capacity: what was admitted is predicted in time, and the machine does useful work only."""
    admitted, goodput, cpu_shares = [], [], []
    for repeat in range(bench.options.repeats):
        capacity = bench.capacity()
        due_ms = bench.arrivals(OVERLOAD * capacity, repeat)
        outcome = bench.place.opened(due_ms, OVERLOAD_DEADLINE_MS)
        start = float(np.nanmin(outcome.due)) + WARM_S
        end = float(np.nanmax(outcome.due))
        counted = outcome.in_time & outcome.between(start, end)
        admitted.append(1 - _missed(outcome))
        goodput.append(int(counted.sum()) / (end - start) / capacity)
        cpu_shares.append(outcome.cpu_s / (end - start + WARM_S))
    figures: dict[str, Any] = {
        "offered_per_second": round(OVERLOAD * capacity, 1), "of_admitted": median(admitted, 4),
        "goodput_of_capacity": median(goodput), "client_cores": median(cpu_shares, 2), "reasons": outcome.reasons(),
        "lateness_worst_ms": round(float(np.nanmax(outcome.lateness_ms)), 1), "problems": outcome.problems(),
    }  # fmt: skip
    first = Row(
        "three times the capacity: predicted in time, of those admitted", "99 %", f"{figures['of_admitted']:.2%}",
        figures["of_admitted"] >= ADMITTED_SHARE, figures,
    )  # fmt: skip
    share = figures["goodput_of_capacity"]
    value = f"{share} (the load generator takes {figures['client_cores']} cores)"
    return [first, Row("the same: goodput, of capacity", f"{GOODPUT_SHARE}", value, share >= GOODPUT_SHARE)]


def _missed(outcome: Outcome) -> float:
    """The share of those admitted that were not predicted in time."""
    admitted: NDArray[np.bool_] = outcome.admitted
    return float((admitted & ~outcome.in_time).sum() / max(int(admitted.sum()), 1))
