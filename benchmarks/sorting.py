"""Sorts and unsorts with kills at random moments, and a sort of a million rows by link with its memory.

    python -m benchmarks.sorting                        10,000 trees, 500 of them with SIGKILL; up to 1,000,000 rows
    python -m benchmarks.sorting --cases 200 --kills 20 --rows 20000
    python -m benchmarks.sorting --only 17              the tree of that number alone

A case is a small tree with odd names. Its sort, and up to three sorts and unsorts after it, are stopped: most at one of
their changes to the disk, in this process; some as real processes that are killed. After every stop the bytes of every
image are somewhere; after a last unsort, source and target are as before, with names and times. The rows that are
sorted by link are of empty files, 1,000 a folder, with 100 labels. The last line is JSON; exit code 1 if a case failed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_run, keep
from benchmarks.sorting_cases import Case, Outcome, Places, kill_a_process, run_case, stop_at_a_change
from modeling.inference.prediction import Prediction
from orchestrator.contract.jobs.rows import Row
from tests.support.sorting import write_manifest

_MEMORY_FOLDER = Path("/dev/shm")
_PER_FOLDER = 1_000
_NUM_LABELS = 100
# The usage that wait4 gives has the memory of the process that was forked, too.
_PROGRAM = """
import atexit, os, pathlib, runpy
def keep_peak():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    peak = next(line.split()[1] for line in lines if line.startswith("VmHWM"))
    pathlib.Path(os.environ["PEAK"]).write_text(peak)
atexit.register(keep_peak)
runpy.run_module("orchestrator", run_name="__main__")
"""


def main() -> int:
    """Run, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000, help="trees")
    parser.add_argument("--kills", type=int, default=500, help="trees whose processes are killed, of these")
    parser.add_argument("--seed", type=int, default=0, help="number of the first tree")
    parser.add_argument("--only", type=int, help="run the tree of this number alone")
    parser.add_argument("--rows", type=int, nargs="*", default=[100_000, 1_000_000], help="rows to sort by link")
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the rows' files are made"
    )
    options = parser.parse_args()
    if options.only is not None:
        outcome = run_cases(range(options.only, options.only + 1), num_kills=0)
        print(outcome)
        return 1 if outcome.faults else 0
    started = time.monotonic()
    outcome = run_cases(range(options.seed, options.seed + options.cases), options.kills)
    for number, fault in outcome.faults:
        print(f"case {number}: {fault}")
    seconds = round(time.monotonic() - started, 1)
    print(f"{outcome.cases:,} trees, {outcome.stops:,} stops, {len(outcome.faults)} faults in {seconds} s", flush=True)
    cases = {"cases": outcome.cases, "stops": outcome.stops, "kills": options.kills, "faults": len(outcome.faults)}
    rows = []
    for num_rows in options.rows:
        rows.append(sort_rows(num_rows, options.folder))
        print(json.dumps(rows[-1]), flush=True)
    keep({**describe_run("sorting"), "seed": options.seed, **cases, "seconds": seconds, "rows": rows}, "sorting")
    return 1 if outcome.faults else 0


# Trees


def run_cases(numbers: range, num_kills: int) -> Outcome:
    """Run the trees of these numbers, the last `num_kills` of them with processes that are killed."""
    outcome = Outcome()
    memory = _MEMORY_FOLDER if _MEMORY_FOLDER.is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as first, tempfile.TemporaryDirectory() as second:
        in_memory = Places(Path(first, "a"), Path(second, "b"))
        on_disk = Places(Path(second, "a"), Path(first, "b"))
        for number in numbers:
            killed = number >= numbers.stop - num_kills
            case = Case(number, on_disk if killed else in_memory)
            run_case(case, kill_a_process if killed else stop_at_a_change, outcome)
            if (number + 1 - numbers.start) % 1_000 == 0:
                print(f"{outcome.cases:,} trees, {outcome.stops:,} stops, {len(outcome.faults)} faults", flush=True)
    return outcome


# Rows


def sort_rows(num_rows: int, folder: Path) -> dict[str, Any]:
    """Sort rows by link and undo that, each as a process of its own; seconds and the peak of its memory."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="sorting-") as name:
        place = Path(name)
        manifest = _make_rows(place, num_rows)
        environment = os.environ | {"PIGEONHOLE_HOME": str(place / "home")}
        target = str(place / "sorted")
        sorting = _measured(["sort", str(manifest), target, "--by", "label"], environment)
        journal = (place / "sorted/.pigeonhole-sort.jsonl").stat().st_size
        num_links = sum(1 for each in (place / "sorted").glob("*/*") if each.is_symlink())
        assert num_links == num_rows, num_links
        unsorting = _measured(["unsort", target], environment)
        assert not (place / "sorted").exists()
    return {"num_rows": num_rows, "sort": sorting, "unsort": unsorting, "journal_bytes": journal}


def _make_rows(place: Path, num_rows: int) -> Path:
    root, manifest = place / "in", place / "out.csv"
    for number in range(0, num_rows, _PER_FOLDER):
        (root / f"{number:07}").mkdir(parents=True)
        for each in range(number, min(number + _PER_FOLDER, num_rows)):
            os.close(os.open(f"{root}/{_path(each)}", os.O_WRONLY | os.O_CREAT, 0o644))
    write_manifest(manifest, root, list(_rows(num_rows)))
    return manifest


def _path(number: int) -> str:
    return f"{number // _PER_FOLDER * _PER_FOLDER:07}/{number:07}.jpg"


def _rows(num_rows: int) -> Iterator[Row]:
    for number in range(num_rows):
        yield Row(_path(number), Prediction((f"label {number * 7919 % _NUM_LABELS}",), (0.9,)))


def _measured(arguments: list[str], environment: dict[str, str]) -> dict[str, float]:
    """Seconds, processor time and the peak of memory of `pigeonhole results ...`."""
    peak = Path(environment["PIGEONHOLE_HOME"]).with_name("peak")
    command = [sys.executable, "-c", _PROGRAM, "results", *arguments]
    started = time.monotonic()
    process = subprocess.Popen(command, env=environment | {"PEAK": str(peak)}, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return {
        "seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mb": round(int(peak.read_text()) / 1024, 1),
    }


if __name__ == "__main__":
    sys.exit(main())
