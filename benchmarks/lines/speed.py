"""Parts: an idle line, a saturated one, half of capacity, and what a push costs."""

import numpy as np

from benchmarks.lines.bench import PAUSE_S, Bench, Row, median
from benchmarks.lines.ideal import simulate

IDLE_MORE_MS, SATURATED_SHARE, HALF_MORE_MS = 5.0, 0.90, 15.0


def idle(bench: Bench) -> list[Row]:
    """One image at a time: p50 of pushes and of the library's own call, in turns."""
    count = max(20, round(bench.options.seconds / PAUSE_S / 2))
    ours, library, p99 = [], [], []
    bench.capacity()  # warm
    for _ in range(bench.options.repeats):
        library.append(bench.library.one_at_a_time_ms(count))
        due_ms = np.arange(count) * (library[-1] + 1000 * PAUSE_S)
        outcome = bench.place.opened(due_ms, 60_000)
        bench.require(outcome)
        ours.append(outcome.percentile(50))
        p99.append(outcome.percentile(99))
    more = median([a - b for a, b in zip(ours, library, strict=True)], 2)
    figures = {"p50_ms": median(ours, 2), "library_ms": median(library, 2), "p99_ms": median(p99, 2), "more_ms": more}
    value = f"{figures['p50_ms']} ms, library {figures['library_ms']} ms: {more} ms more"
    what = "idle line, one image at a time, p50 over the library's call for one image"
    return [Row(what, f"at most {IDLE_MORE_MS:.0f} ms more", value, more <= IDLE_MORE_MS, figures)]


def saturated(bench: Bench) -> list[Row]:
    """Throughput of a saturated line and of the library's pipeline, in turns."""
    ours: list[float] = []
    library: list[float] = []
    rate = bench.capacity()
    for _ in range(bench.options.repeats):
        library.append(bench.library.images_per_sec(bench.options.seconds / 2, rate))
        ours.append(bench.capacity())
    share = median([a / b for a, b in zip(ours, library, strict=True)])
    figures = {"line_per_sec": median(ours, 1), "library_per_sec": median(library, 1), "share": share}
    value = f"{share} ({figures['line_per_sec']} of {figures['library_per_sec']}/s)"
    what = "saturated throughput, of the library's batch throughput"
    return [Row(what, f"{SATURATED_SHARE:.2f}", value, share >= SATURATED_SHARE, figures)]


def half(bench: Bench) -> list[Row]:
    """Poisson load at half of capacity, and the ideal simulation with the same arrivals."""
    cores, alone = bench.library.machines()
    rate = bench.capacity() / 2
    ours, ideals, more, p50 = [], [], [], []
    for repeat in range(bench.options.repeats):
        due_ms = bench.arrivals(rate, repeat)
        outcome = bench.place.opened(due_ms, 60_000)
        bench.require(outcome)
        ours.append(outcome.percentile(99))
        p50.append(outcome.percentile(50))
        ideals.append(min(float(np.percentile(simulate(due_ms, machine), 99)) for machine in (cores, alone)))
        more.append(ours[-1] - ideals[-1])
    figures = {
        "per_second": round(rate, 1), "p50_ms": median(p50, 2), "p99_ms": median(ours, 2),
        "ideal_p99_ms": median(ideals, 2), "more_ms": median(more, 2),
        "image_ms_a_core": round(cores.batch_ms[0], 2), "image_ms_all_cores": round(alone.alone_ms or 0, 2),
    }  # fmt: skip
    value = f"{figures['p99_ms']} ms, ideal {figures['ideal_p99_ms']} ms: {figures['more_ms']} ms more"
    what = "Poisson load at half of capacity, p99 over an ideal simulation"
    return [Row(what, f"at most {HALF_MORE_MS:.0f} ms more", value, median(more, 2) <= HALF_MORE_MS, figures)]


def cpu(bench: Bench) -> list[Row]:
    """Processor time of server and client for each push, at half of capacity and saturated."""
    capacity, figures = bench.capacity(), {}
    for name, rate in (("half", capacity / 2), ("saturated", 0.0)):
        bench.system.client.config_resetstat()
        with bench.cost() as cost:
            outcome = bench.place.opened(bench.arrivals(rate, 0), 60_000) if rate else bench.saturate(5)
        bench.require(outcome)
        each_us = 1e6 / outcome.num_sent
        figures[name] = {
            "server_us": round(cost.server_s * each_us),
            "client_us": round(outcome.cpu_s * each_us),
            "workers_us": round(cost.workers_s * each_us),
            "commands": _commands(bench, outcome.num_sent),
        }
    value = "; ".join(f"{name}: server {f['server_us']} µs, client {f['client_us']} µs" for name, f in figures.items())
    return [Row("CPU of the server and of the client a push", "stated", value, figures=figures)]


def _commands(bench: Bench, num_pushes: int) -> dict[str, dict[str, float]]:
    """Calls of each command of the server and microseconds in it, for each push; those that cost something."""
    info: dict[str, dict[str, float]] = bench.system.client.info("commandstats")
    costly = {name: stats for name, stats in info.items() if stats["usec"] >= num_pushes}
    return {
        name.removeprefix("cmdstat_"): {
            "calls": round(stats["calls"] / num_pushes, 2),
            "us": round(stats["usec"] / num_pushes, 1),
        }
        for name, stats in sorted(costly.items(), key=lambda each: -each[1]["usec"])
    }
