"""Part: very many pushes of 28x28 images, in slices, with the memory of server and workers after each.

The home and the figures of every slice stay in `--folder`: the same command goes on after the last slice that was
finished.
"""

import json
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from benchmarks.lines.bench import WINDOW, Bench, Options, Row
from benchmarks.lines.system import DIGITS, System

NUM_SLICES = 20
DEADLINE_MS = 60_000
WARM_SLICES = 2  # after so many, memory has what it needs
MORE_MB = 64.0  # more than this between the middle and the end is growth: what a heap may still take
SLICES_FILE = "slices.json"


@dataclass(frozen=True)
class Slice:
    """Figures at the end of a slice. Memory in MB: resident, and of it what is not a file's (`own`)."""

    pushes: int
    seconds: float
    per_second: float
    predicted: int
    server_mb: float
    server_used_mb: float
    worker_parent_mb: float
    worker_parent_own_mb: float
    worker_children_mb: float
    worker_children_own_mb: float
    answers_on_server: int
    home_mb: float
    server_us: float
    client_us: float
    workers_us: float


def run(folder: Path, count: int, options: Options) -> list[Row]:
    """Go on to `count` pushes."""
    system = System(folder, DIGITS)
    folder.mkdir(parents=True, exist_ok=True)
    system.prepare()
    path = folder / SLICES_FILE
    slices = [Slice(**each) for each in json.loads(path.read_text())] if path.exists() else []
    try:
        system.start(keep_images_bytes=64 << 20, keep_images_s=3600)
        bench = Bench(system, options)
        bench.place.closed(WINDOW, 200)
        while (done := sum(each.pushes for each in slices)) < count:
            slices.append(_slice(bench, min(-(-count // NUM_SLICES), count - done)))
            path.write_text(json.dumps([asdict(each) for each in slices]))
            print(f"    {done + slices[-1].pushes:>10,} {slices[-1]}", flush=True)
    finally:
        system.stop()
    return [_row(slices)]


def _slice(bench: Bench, num_pushes: int) -> Slice:
    started = time.monotonic()
    with bench.cost() as cost:
        outcome = bench.place.closed(4 * WINDOW, num_pushes, DEADLINE_MS)
    bench.require(outcome)
    system, seconds = bench.system, time.monotonic() - started
    parent, *children = system.worker_processes()
    used = system.client.info("memory")
    return Slice(
        pushes=num_pushes,
        seconds=round(seconds, 1),
        per_second=round(outcome.rate(), 1),
        predicted=int(outcome.predicted.sum()),
        server_mb=_mb(system.server.memory_info().rss),
        server_used_mb=_mb(int(used["used_memory"])),
        worker_parent_mb=_mb(parent.memory_info().rss),
        worker_parent_own_mb=_own_mb([parent]),
        worker_children_own_mb=_own_mb(children),
        worker_children_mb=_mb(sum(child.memory_info().rss for child in children)),
        answers_on_server=int(system.status().num_answers),
        home_mb=_mb(sum(path.stat().st_size for path in (system.settings.home / "lines").rglob("*") if path.is_file())),
        server_us=round(cost.server_s / num_pushes * 1e6),
        client_us=round(outcome.cpu_s / num_pushes * 1e6),
        workers_us=round(cost.workers_s / num_pushes * 1e6),
    )


def _row(slices: list[Slice]) -> Row:
    """Memory of the last slice compared with the one in the middle."""
    total, last = sum(each.pushes for each in slices), slices[-1]
    middle = slices[len(slices) // 2]
    grown = {
        name: round(getattr(last, name) - getattr(middle, name), 1)
        for name in ("server_mb", "worker_parent_own_mb", "worker_children_own_mb")
    }
    predicted = sum(each.predicted for each in slices)
    met = all(more <= MORE_MB for more in grown.values()) if len(slices) > 2 * WARM_SLICES else None
    value = (
        f"{predicted:,} of {total:,} predicted, {last.per_second}/s; at the end server {last.server_mb:.0f} MB, worker "
        f"{last.worker_parent_mb + last.worker_children_mb:.0f} MB; second half {grown}"
    )
    figures = {"slices": [asdict(each) for each in slices], "grown_mb": grown}
    return Row(f"{total:,} pushes of 28x28 images in slices", "no growth beyond the stated bounds", value, met, figures)


def _own_mb(processes: list[psutil.Process]) -> float:
    """Memory that maps no file: files of answers are mapped, and the kernel takes their pages back at will."""
    text = "".join(Path(f"/proc/{process.pid}/smaps_rollup").read_text() for process in processes)
    return round(
        sum(int(kilobytes) for kilobytes in re.findall(r"^Anonymous: +(\d+) kB", text, re.MULTILINE)) / 1000, 1
    )


def _mb(size: int) -> float:
    return round(size / 1e6, 1)
